package tunnelapi

import (
	"context"
	"fmt"
	"net/http"
	"time"

	"github.com/aliyun/aliyun-tablestore-go-sdk/common"
	"github.com/aliyun/aliyun-tablestore-go-sdk/tunnel"
	"github.com/aliyun/aliyun-tablestore-go-sdk/tunnel/protocol"

	"github.com/watermill-ots/watermill-ots/ack"
	"github.com/watermill-ots/watermill-ots/internal/service"
)

// Client makes calls to one instance: the SDK builds and signs the requests, a transport
// of this package carries them. Its fields do not change while it is used. It is safe for
// concurrent use.
type Client struct {
	URL      string // without a slash at its end: the SDK would request //tunnel/.. and sign /tunnel/.. [docs/protocol.md, Paths]
	Instance string
	Region   string // for signature version 4; empty for version 2
	Base     http.RoundTripper
	Creds    *service.CredentialsCache
	Timeout  time.Duration // of one HTTP exchange
}

// signer makes a tunnel client of the SDK ask the cache for credentials on every
// request. The client itself gets no keys: NewTunnelApiWithCredentialsProvider,
// which would take the provider as an argument, puts the key id in the place of
// the secret.
func (e *Client) signer() tunnel.ClientOption {
	return tunnel.SetCredentialsProvider(e.Creds.SDK(e.Region))
}

// API returns an SDK client whose requests go through rt. The SDK has no
// context in its calls, so a client is made for each call (two small structs) and rt
// holds the context of that call.
func (e *Client) API(rt http.RoundTripper) *tunnel.TunnelApi {
	conf := &tunnel.TunnelConfig{Transport: rt} // no timeout of the SDK's: its timeout errors would be retried inside the call
	return tunnel.NewTunnelApi(e.URL, e.Instance, "", "", conf, e.signer())
}

// SDK returns an SDK tunnel client, for workers, whose requests go through rt.
func (e *Client) SDK(rt http.RoundTripper) tunnel.TunnelClient {
	conf := &tunnel.TunnelConfig{Transport: rt}
	return tunnel.NewTunnelClientWithConfig(e.URL, e.Instance, "", "", conf, e.signer())
}

// TableClient returns a client of the table API that makes its calls in the same way.
func (e *Client) TableClient() *service.TableClient {
	return &service.TableClient{Endpoint: e.URL, Instance: e.Instance, Region: e.Region, Transport: e.Base, Credentials: e.Creds, Timeout: e.Timeout}
}

// Call makes one call of the SDK and returns its error in our form. Nothing is
// retried inside: callers retry, because they can be cancelled. op names the call in
// errors. A panic of the SDK, which dereferences fields of answers that may be missing, is
// an error too.
func (e *Client) Call(ctx context.Context, op string, f func(api *tunnel.TunnelApi) error) error {
	return e.CallWithin(ctx, op, e.Timeout, f)
}

// CallWithin is Call with another bound for the exchange.
func (e *Client) CallWithin(ctx context.Context, op string, timeout time.Duration, f func(api *tunnel.TunnelApi) error) error {
	return e.callWith(ctx, op, &callTransport{base: e.Base, ctx: ctx, timeout: timeout}, f)
}

// callWith is Call by a transport of its own.
func (e *Client) callWith(ctx context.Context, op string, rt http.RoundTripper, f func(api *tunnel.TunnelApi) error) (err error) {
	if _, err := e.Creds.Get(ctx); err != nil {
		return fmt.Errorf("%s: %w", op, err)
	}
	defer func() {
		if v := recover(); v != nil {
			err = fmt.Errorf("%s: the answer is incomplete: %w", op, ack.NewPanicError("the SDK", v))
		}
	}()
	err = FromSDK(op, f(e.API(rt)))
	if Classify(err) == service.Auth {
		e.Creds.Forget()
	}
	return err
}

// Read asks for the page at a token and returns the undecoded ReadRecordsResponse.
func (e *Client) Read(ctx context.Context, timeout time.Duration, req *tunnel.ReadRecordRequest) ([]byte, error) {
	const op = "readrecords"
	if _, err := e.Creds.Get(ctx); err != nil {
		return nil, fmt.Errorf("%s: %w", op, err)
	}
	rt := &callTransport{base: e.Base, ctx: ctx, timeout: timeout, keepBody: true}
	_, err := e.API(rt).ReadRecords(req)
	if err = FromSDK(op, err); err != nil {
		if Classify(err) == service.Auth {
			e.Creds.Forget()
		}
		return nil, err
	}
	return rt.body, nil
}

// Delete deletes a tunnel by its name and its id, so that a tunnel of the same name that
// was created meanwhile stays. The SDK sends the name only [docs/protocol.md, Deleting a tunnel].
func (e *Client) Delete(ctx context.Context, table, name, id string) error {
	rt := &deleteTransport{RoundTripper: &callTransport{base: e.Base, ctx: ctx, timeout: e.Timeout}, id: id, creds: e.Creds.SDK(e.Region)}
	return e.callWith(ctx, "delete", rt, func(api *tunnel.TunnelApi) error {
		_, err := api.DeleteTunnel(&tunnel.DeleteTunnelRequest{TableName: table, TunnelName: name})
		return err
	})
}

// deleteTransport adds the tunnel's id to a delete request.
type deleteTransport struct {
	http.RoundTripper
	id    string
	creds common.CredentialsProvider
}

// RoundTrip implements http.RoundTripper.
func (t *deleteTransport) RoundTrip(req *http.Request) (*http.Response, error) {
	message := new(protocol.DeleteTunnelRequest)
	if err := Rewrite(req, t.creds.GetCredentials(), message, func() { message.TunnelId = &t.id }); err != nil {
		return nil, &CallError{Err: err}
	}
	return t.RoundTripper.RoundTrip(req)
}
