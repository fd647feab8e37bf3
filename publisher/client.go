package publisher

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/http"
	"strings"
	"time"

	"github.com/aliyun/aliyun-tablestore-go-sdk/common"
	"github.com/aliyun/aliyun-tablestore-go-sdk/tablestore"

	"github.com/watermill-ots/watermill-ots/subscriber"
)

// maxAnswer bounds what is read of one answer, against a broken server.
const maxAnswer = 8 << 20

// newTransport returns the default transport.
func newTransport() *http.Transport {
	return &http.Transport{
		Proxy:                 http.ProxyFromEnvironment,
		DialContext:           (&net.Dialer{Timeout: 5 * time.Second, KeepAlive: 30 * time.Second}).DialContext,
		TLSHandshakeTimeout:   10 * time.Second,
		ExpectContinueTimeout: time.Second,
		MaxIdleConnsPerHost:   256, // one for each Publish that runs
		IdleConnTimeout:       90 * time.Second,
	}
}

// client makes calls of the table API. Safe for concurrent use.
type client struct {
	endpoint, instance string
	base               http.RoundTripper
	creds              *credentialsCache
	timeout            time.Duration // of one call
}

// call makes one call, once, with a client of the SDK that is tied to ctx. Its
// errors are ServiceErrors for answers of the service.
func (c *client) call(ctx context.Context, op string, f func(*tablestore.TableStoreClient) error) (err error) {
	ctx, cancel := context.WithTimeoutCause(ctx, c.timeout, fmt.Errorf("no answer within %v: %w", c.timeout, context.DeadlineExceeded))
	defer cancel()
	cred, err := c.creds.get(ctx)
	if err != nil {
		return fmt.Errorf("%s: asking for credentials: %w", op, err)
	}
	// The SDK dereferences parts of an answer unseen, and panics where they lack.
	defer func() {
		if v := recover(); v != nil {
			err = fmt.Errorf("%s: malformed answer: %v", op, v)
		}
	}()
	// The SDK's calls take no context and its retries sleep through everything.
	// So a client is made for each call, a few small structs, whose transport has
	// the call's context, and it does not retry (zero RetryTimes).
	config := &tablestore.TableStoreConfig{Transport: &contextTransport{ctx: ctx, base: c.base}}
	sdk := tablestore.NewClientWithConfig(c.endpoint, c.instance, "", "", "", config, tablestore.SetCredentialsProvider(fixedCredentials{
		common.DefaultCredentials{AccessKeyID: cred.AccessKeyID, AccessKeySecret: cred.AccessKeySecret, SecurityToken: cred.SecurityToken},
	}))
	err = fromSDK(ctx, op, f(sdk))
	if hasCode(err, codeAuthFailed, codeNoPermission) {
		c.creds.forget()
	}
	return err
}

// fromSDK gives an error of the SDK our form.
func fromSDK(ctx context.Context, op string, err error) error {
	if err == nil {
		return nil
	}
	var oe *tablestore.OtsError
	if errors.As(err, &oe) {
		return serviceError(op, oe.HttpStatusCode, oe.Code, oe.Message, oe.RequestId)
	}
	if ctx.Err() != nil {
		err = context.Cause(ctx)
	}
	return fmt.Errorf("%s: %w", op, err)
}

func serviceError(op string, status int, code, message, requestID string) error {
	err := error(&subscriber.ServiceError{Op: op, Status: status, Code: code, Message: message, RequestID: requestID})
	switch code {
	case codeObjectNotExist:
		return fmt.Errorf("%w: %w; create it with CreateTable, or set Config.CreateTables", ErrNoTable, err)
	case codeInvalidPK:
		return fmt.Errorf("%w: %w; see Config.Columns for its key columns", ErrTable, err)
	case codeAuthFailed, codeNoPermission:
		return fmt.Errorf("%w: %w", subscriber.ErrAuth, err)
	}
	return err
}

// putRows stores rows of one table in one request and returns the outcome of each.
func (c *client) putRows(ctx context.Context, table string, rows []*row) []error {
	const op = "BatchWriteRow"
	outcomes := make([]error, len(rows))
	req := new(tablestore.BatchWriteRowRequest)
	for _, r := range rows {
		req.AddRowChange(r.change)
	}
	var resp *tablestore.BatchWriteRowResponse
	err := c.call(ctx, op, func(sdk *tablestore.TableStoreClient) (err error) {
		resp, err = sdk.BatchWriteRow(req)
		return err
	})
	if err == nil && len(resp.TableToRowsResult[table]) != len(rows) {
		err = fmt.Errorf("%s: malformed answer: %d outcomes of %d rows", op, len(resp.TableToRowsResult[table]), len(rows))
	}
	for i := range outcomes {
		if err != nil {
			outcomes[i] = err
		} else if o := &resp.TableToRowsResult[table][i]; !o.IsSucceed {
			outcomes[i] = serviceError(op, 0, o.Error.Code, o.Error.Message, resp.RequestId)
		}
	}
	return outcomes
}

// fixedCredentials are the SDK's view of credentials that were asked for.
type fixedCredentials struct{ common.DefaultCredentials }

func (f fixedCredentials) GetCredentials() common.Credentials { return &f.DefaultCredentials }

// contextTransport ties the requests of one call to its context, and bounds their answers.
type contextTransport struct {
	ctx  context.Context
	base http.RoundTripper
}

// RoundTrip implements http.RoundTripper.
func (t *contextTransport) RoundTrip(req *http.Request) (*http.Response, error) {
	resp, err := t.base.RoundTrip(req.WithContext(t.ctx))
	if err == nil {
		resp.Body = http.MaxBytesReader(nil, resp.Body, maxAnswer)
	}
	return resp, err
}

// trimEndpoint: with a trailing slash the SDK would request //BatchWriteRow and sign /BatchWriteRow.
func trimEndpoint(url string) string { return strings.TrimRight(url, "/") }
