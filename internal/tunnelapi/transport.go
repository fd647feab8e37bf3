package tunnelapi

import (
	"bytes"
	"context"
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
	resp, body, err := Exchange(t.ctx, t.base, req, t.timeout)
	if err != nil {
		return nil, &CallError{Err: err}
	}
	if !Success(resp) {
		return nil, &CallError{Err: AnswerError(op, resp, body)}
	}
	if len(body) == 0 && NeedsBody(op) {
		// The SDK would dereference fields that are not there.
		return nil, &CallError{Err: fmt.Errorf("the answer (%s) is empty", resp.Status)}
	}
	if t.keepBody {
		t.body, body = body, standIn
	}
	resp.Body = io.NopCloser(bytes.NewReader(body))
	return resp, nil
}

// HeaderRequestID names a call in the service's own logs.
const HeaderRequestID = "x-ots-requestid"

// Success is any 2xx, as in the SDK [docs/protocol.md, Responses].
func Success(resp *http.Response) bool { return resp.StatusCode >= 200 && resp.StatusCode <= 299 }

// NeedsBody reports whether the answers of an operation have required fields.
func NeedsBody(op string) bool { return needsBody[op] }

var needsBody = map[string]bool{"create": true, "describe": true, "connect": true, "getcheckpoint": true, "readrecords": true}

// Exchange sends req and reads the whole answer, bounded by ctx and timeout.
func Exchange(ctx context.Context, base http.RoundTripper, req *http.Request, timeout time.Duration) (*http.Response, []byte, error) {
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
	if resp.ContentLength > service.MaxAnswer {
		return nil, fmt.Errorf("%d bytes are more than the %d taken", resp.ContentLength, service.MaxAnswer)
	}
	if n := resp.ContentLength; n >= 0 {
		body := make([]byte, n)
		_, err := io.ReadFull(resp.Body, body)
		return body, err
	}
	body, err := io.ReadAll(io.LimitReader(resp.Body, service.MaxAnswer+1))
	if err == nil && len(body) > service.MaxAnswer {
		err = fmt.Errorf("more than the %d bytes taken", service.MaxAnswer)
	}
	return body, err
}

// AnswerError turns an answer that is not 2xx into an error. Its body is an
// Error message; one that does not decode becomes, as in the SDK,
// OTSTunnelServerUnavailable for 5xx and OTSClientError for the rest [docs/protocol.md, Responses].
func AnswerError(op string, resp *http.Response, body []byte) *ots.ServiceError {
	requestID := resp.Header.Get(HeaderRequestID)
	var e protocol.Error
	if err := proto.Unmarshal(body, protoadapt.MessageV2Of(&e)); err != nil {
		code := tunnel.ErrCodeClientError
		if resp.StatusCode >= 500 {
			code = tunnel.ErrCodeServerUnavailable
		}
		return NewError(op, resp.StatusCode, code, fmt.Sprintf("%s with a body that is not an error message", resp.Status), requestID)
	}
	return NewError(op, resp.StatusCode, e.GetCode(), e.GetMessage(), requestID)
}
