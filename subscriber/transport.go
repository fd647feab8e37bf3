package subscriber

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"path"
	"time"

	"github.com/aliyun/aliyun-tablestore-go-sdk/tunnel"
	"github.com/aliyun/aliyun-tablestore-go-sdk/tunnel/protocol"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/protoadapt"

	"github.com/watermill-ots/watermill-ots/internal/service"
	"github.com/watermill-ots/watermill-ots/ots"
)

const (
	// A call is bounded by HeartbeatTimeout, within these bounds: an answer that takes
	// longer than a channel may be silent comes too late. Calls of channels are bounded by
	// their patience, too. The SDK's own bound is 60 s.
	minCallTimeout, maxCallTimeout = 5 * time.Second, 30 * time.Second
	// maxAnswer bounds what is read of one answer, against a broken server.
	maxAnswer = 64 << 20
)

// maxIdle is how many idle connections are kept: as many as there may be channels.
const maxIdle = 1024

// pooled is the default transport. When a call on one of its connections got no answer in
// time, the idle ones are given up, too: what swallowed that call, a firewall or a
// machine that is gone, has most likely swallowed them all, and each would cost the
// next call the same time.
type pooled struct{ *http.Transport }

// RoundTrip implements http.RoundTripper.
func (p pooled) RoundTrip(req *http.Request) (*http.Response, error) {
	resp, err := p.Transport.RoundTrip(req)
	if err != nil && req.Context().Err() == context.DeadlineExceeded {
		p.CloseIdleConnections()
	}
	return resp, err
}

// endpoint makes calls to one instance: the SDK builds and signs the requests,
// callTransport carries them. Safe for concurrent use.
type endpoint struct {
	url      string
	instance string
	region   string // of signature version 4; empty for version 2
	base     http.RoundTripper
	creds    *service.CredentialsCache
	timeout  time.Duration // of one HTTP exchange
}

// signer makes a tunnel client of the SDK ask the cache for credentials on every
// request. The client itself gets no keys: NewTunnelApiWithCredentialsProvider,
// which would take the provider as an argument, puts the key id in the place of
// the secret.
func (e *endpoint) signer() tunnel.ClientOption {
	return tunnel.SetCredentialsProvider(e.creds.SDK(e.region))
}

// api returns an SDK client whose requests go through rt. The SDK has no
// context in its calls, so a client is made for each call (two small structs) and rt
// holds the context of that call.
func (e *endpoint) api(rt http.RoundTripper) *tunnel.TunnelApi {
	conf := &tunnel.TunnelConfig{Transport: rt} // no timeout of the SDK's: its timeout errors would be retried inside the call
	return tunnel.NewTunnelApi(e.url, e.instance, "", "", conf, e.signer())
}

// call makes one call of the SDK and returns its error in our form. Nothing is
// retried inside: callers retry, because they can be cancelled.
func (e *endpoint) call(ctx context.Context, op string, f func(api *tunnel.TunnelApi) error) error {
	return e.callWithin(ctx, op, e.timeout, f)
}

// callWithin is call with another bound for the exchange.
func (e *endpoint) callWithin(ctx context.Context, op string, timeout time.Duration, f func(api *tunnel.TunnelApi) error) error {
	return e.callWith(ctx, op, &callTransport{base: e.base, ctx: ctx, timeout: timeout}, f)
}

// callWith is call by a transport of its own.
func (e *endpoint) callWith(ctx context.Context, op string, rt http.RoundTripper, f func(api *tunnel.TunnelApi) error) error {
	if _, err := e.creds.Get(ctx); err != nil {
		return fmt.Errorf("%s: %w", op, err)
	}
	err := fromSDK(op, f(e.api(rt)))
	if classify(err) == auth {
		e.creds.Forget()
	}
	return err
}

// read asks for the page at token and returns the undecoded ReadRecordsResponse.
func (e *endpoint) read(ctx context.Context, timeout time.Duration, req *tunnel.ReadRecordRequest) ([]byte, error) {
	const op = "readrecords"
	if _, err := e.creds.Get(ctx); err != nil {
		return nil, fmt.Errorf("%s: %w", op, err)
	}
	rt := &callTransport{base: e.base, ctx: ctx, timeout: timeout, keepBody: true}
	_, err := e.api(rt).ReadRecords(req)
	if err = fromSDK(op, err); err != nil {
		if classify(err) == auth {
			e.creds.Forget()
		}
		return nil, err
	}
	return rt.body, nil
}

// callTransport is the RoundTripper of one call. It ties the call to a
// context, bounds it in time and size, and makes every failure one that the
// SDK does not retry by itself (its pauses cannot be cancelled).
type callTransport struct {
	base     http.RoundTripper
	ctx      context.Context
	timeout  time.Duration
	keepBody bool   // take the answer's body and give the SDK a stand-in
	body     []byte // with keepBody: the answer
}

// standIn is an empty ReadRecordsResponse: next_token (field 2, required) = "".
var standIn = []byte{0x12, 0x00}

// RoundTrip implements http.RoundTripper.
func (t *callTransport) RoundTrip(req *http.Request) (*http.Response, error) {
	op := path.Base(req.URL.Path)
	resp, body, err := exchange(t.ctx, t.base, req, t.timeout)
	if err != nil {
		return nil, &callError{err: err}
	}
	if !success(resp) {
		return nil, &callError{err: answerError(op, resp, body)}
	}
	if len(body) == 0 && needsBody[op] {
		// The SDK would dereference fields that are not there.
		return nil, &callError{err: fmt.Errorf("the answer (%s) is empty", resp.Status)}
	}
	if t.keepBody {
		t.body, body = body, standIn
	}
	resp.Body = io.NopCloser(bytes.NewReader(body))
	return resp, nil
}

// headerRequestID names a call in the service's own logs.
const headerRequestID = "x-ots-requestid"

// success is any 2xx, as in the SDK [docs/protocol.md, Responses].
func success(resp *http.Response) bool { return resp.StatusCode >= 200 && resp.StatusCode <= 299 }

// needsBody names the operations whose answers have required fields.
var needsBody = map[string]bool{"create": true, "describe": true, "connect": true, "getcheckpoint": true, "readrecords": true}

// exchange sends req and reads the whole answer, bounded by ctx and timeout.
func exchange(ctx context.Context, base http.RoundTripper, req *http.Request, timeout time.Duration) (*http.Response, []byte, error) {
	ctx, cancel := context.WithTimeoutCause(ctx, timeout, fmt.Errorf("no answer within %v: %w", timeout.Round(time.Millisecond), context.DeadlineExceeded))
	defer cancel()
	resp, err := base.RoundTrip(req.WithContext(ctx))
	if err != nil {
		return nil, nil, withCause(ctx, err)
	}
	defer resp.Body.Close()
	body, err := readBody(resp)
	if err != nil {
		return nil, nil, fmt.Errorf("reading the answer: %w", withCause(ctx, err))
	}
	return resp, body, nil
}

// withCause replaces the bare "context canceled" of net/http by why the context ended.
func withCause(ctx context.Context, err error) error {
	if ctx.Err() != nil {
		return context.Cause(ctx)
	}
	return err
}

func readBody(resp *http.Response) ([]byte, error) {
	if resp.ContentLength > maxAnswer {
		return nil, fmt.Errorf("%d bytes are more than the %d taken", resp.ContentLength, maxAnswer)
	}
	if n := resp.ContentLength; n >= 0 {
		body := make([]byte, n)
		_, err := io.ReadFull(resp.Body, body)
		return body, err
	}
	body, err := io.ReadAll(io.LimitReader(resp.Body, maxAnswer+1))
	if err == nil && len(body) > maxAnswer {
		err = fmt.Errorf("more than the %d bytes taken", maxAnswer)
	}
	return body, err
}

// answerError turns an answer that is not 2xx into an error. Its body is an
// Error message; one that does not decode becomes, as in the SDK,
// OTSTunnelServerUnavailable for 5xx and OTSClientError for the rest [docs/protocol.md, Responses].
func answerError(op string, resp *http.Response, body []byte) *ots.ServiceError {
	requestID := resp.Header.Get(headerRequestID)
	var e protocol.Error
	if err := proto.Unmarshal(body, protoadapt.MessageV2Of(&e)); err != nil {
		code := tunnel.ErrCodeClientError
		if resp.StatusCode >= 500 {
			code = tunnel.ErrCodeServerUnavailable
		}
		return newServiceError(op, resp.StatusCode, code, fmt.Sprintf("%s with a body that is not an error message", resp.Status), requestID)
	}
	return newServiceError(op, resp.StatusCode, e.GetCode(), e.GetMessage(), requestID)
}

// callError carries a failure through the SDK. The SDK retries errors whose
// text contains "EOF" or "Connection reset by peer", and those with Temporary()
// true; this one has neither, and gives its cause only to errors.As.
type callError struct{ err error }

// Error implements error, with a text that the SDK does not take for a reason to retry.
func (*callError) Error() string { return "the call did not succeed" }

// Unwrap returns the failure.
func (e *callError) Unwrap() error { return e.err }

// errSessionOver is the cause of calls that end because the session ends.
var errSessionOver = errors.New("the tunnel session is over")

// sinceEpoch turns nanoseconds since 1970, as the service counts, into a time; 0 means "none" [docs/protocol.md, Recovery points].
func sinceEpoch(ns int64) time.Time {
	if ns <= 0 {
		return time.Time{}
	}
	return time.Unix(0, ns)
}

// client returns an SDK tunnel client, for workers, whose requests go through rt.
func (e *endpoint) client(rt http.RoundTripper) tunnel.TunnelClient {
	conf := &tunnel.TunnelConfig{Transport: rt}
	return tunnel.NewTunnelClientWithConfig(e.url, e.instance, "", "", conf, e.signer())
}
