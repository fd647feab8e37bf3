package service

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"strings"
	"time"

	"github.com/aliyun/aliyun-tablestore-go-sdk/tablestore"

	"github.com/watermill-ots/watermill-ots/ack"
	"github.com/watermill-ots/watermill-ots/ots"
)

// MaxAnswer limits how many bytes of an answer are read, against a broken server.
const MaxAnswer = 64 << 20

// TableClient calls the table API of one instance. Its fields do not change while it is
// used. It is safe for concurrent use.
type TableClient struct {
	Endpoint    string // a URL
	Instance    string
	Region      string // for signature version 4; empty for version 2
	Transport   http.RoundTripper
	Credentials *CredentialsCache
	Timeout     time.Duration // of one call
}

// Call makes one call, without retries, with an SDK client that is bound to ctx. Errors of
// the service are *ots.ServiceError. op names the call in errors.
func (c *TableClient) Call(ctx context.Context, op string, f func(*tablestore.TableStoreClient) error) (err error) {
	ctx, cancel := context.WithTimeoutCause(ctx, c.Timeout, fmt.Errorf("no answer within %v: %w", c.Timeout, context.DeadlineExceeded))
	defer cancel()
	if _, err := c.Credentials.Get(ctx); err != nil {
		return fmt.Errorf("%s: %w", op, err)
	}
	// The SDK dereferences parts of an answer without a check, and panics if one is missing.
	defer func() {
		if v := recover(); v != nil {
			err = fmt.Errorf("%s: malformed answer: %w", op, ack.NewPanicError("the SDK", v))
		}
	}()
	// The SDK's calls take no context, and its retries sleep without one. Therefore each
	// call gets its own client, which is a few small structs: its transport has the call's
	// context, and it does not retry (zero RetryTimes).
	// With a trailing slash the SDK would request //BatchWriteRow and sign /BatchWriteRow.
	config := &tablestore.TableStoreConfig{Transport: &contextTransport{ctx: ctx, base: c.Transport}}
	sdk := tablestore.NewClientWithConfig(strings.TrimRight(c.Endpoint, "/"), c.Instance, "", "", "", config,
		tablestore.SetCredentialsProvider(c.Credentials.SDK(c.Region)))
	err = fromSDK(ctx, op, f(sdk))
	if HasCode(err, CodeAuthFailed, CodeNoPermission) {
		c.Credentials.Forget()
	}
	return err
}

// fromSDK converts an error of the SDK into ours.
func fromSDK(ctx context.Context, op string, err error) error {
	if err == nil {
		return nil
	}
	var oe *tablestore.OtsError
	if errors.As(err, &oe) {
		return TableError(op, oe.HttpStatusCode, oe.Code, oe.Message, oe.RequestId)
	}
	var se *ots.ServiceError
	if errors.As(err, &se) { // the error of one row
		return err
	}
	if ctx.Err() != nil {
		err = context.Cause(ctx)
	}
	return fmt.Errorf("%s: %w", op, err)
}

// TableError returns the error for an answer of the table API, or for one row of it. A row
// has no status.
func TableError(op string, status int, code, message, requestID string) *ots.ServiceError {
	var means error
	switch code {
	case CodeAuthFailed, CodeNoPermission:
		means = ots.ErrAuth
	}
	return NewError(op, status, code, message, requestID, means)
}

// contextTransport sends the requests of one call with its context, and limits the size of
// their answers.
type contextTransport struct {
	ctx  context.Context
	base http.RoundTripper
}

// RoundTrip implements http.RoundTripper.
func (t *contextTransport) RoundTrip(req *http.Request) (*http.Response, error) {
	resp, err := t.base.RoundTrip(req.WithContext(t.ctx))
	if err == nil {
		resp.Body = http.MaxBytesReader(nil, resp.Body, MaxAnswer)
	}
	return resp, err
}
