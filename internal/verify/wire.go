package verify

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"strings"
	"time"

	"github.com/aliyun/aliyun-tablestore-go-sdk/tunnel/protocol"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/protoadapt"

	"github.com/watermill-ots/watermill-ots/internal/service"
	"github.com/watermill-ots/watermill-ots/internal/signing"
	"github.com/watermill-ots/watermill-ots/ots"
)

// callTimeout limits one call.
const callTimeout = 30 * time.Second

// wire makes calls of the tunnel API, one request each and without retries: the checks
// want to see what the service answers to exactly one request.
type wire struct {
	endpoint, instance, region string
	creds                      *service.CredentialsCache
	http                       *http.Client
}

// variation changes a request before it is sent.
type variation struct {
	ahead  time.Duration // of the request's date
	secret string        // instead of the right one
}

// call makes one call of the tunnel API. An answer that is an error is an
// *ots.ServiceError; resp may be nil.
func (w *wire) call(ctx context.Context, op string, req, resp protoadapt.MessageV1, v variation) error {
	ctx, cancel := context.WithTimeoutCause(ctx, callTimeout, fmt.Errorf("no answer within %v: %w", callTimeout, context.DeadlineExceeded))
	defer cancel()
	body, err := proto.Marshal(protoadapt.MessageV2Of(req))
	if err != nil {
		return fmt.Errorf("%s: encoding the request: %w", op, err)
	}
	cred, err := w.creds.Get(ctx)
	if err != nil {
		return fmt.Errorf("%s: %w", op, err)
	}
	r, err := http.NewRequestWithContext(ctx, http.MethodPost, strings.TrimRight(w.endpoint, "/")+"/tunnel/"+op, nil)
	if err != nil {
		return fmt.Errorf("%s: %w", op, err)
	}
	r.Header.Set("x-ots-date", time.Now().Add(v.ahead).UTC().Format("2006-01-02T15:04:05.000Z"))
	r.Header.Set("x-ots-apiversion", "2018-04-01")
	r.Header.Set("x-ots-instancename", w.instance)
	signing.Body(r, body)
	secret := cred.AccessKeySecret
	if v.secret != "" {
		secret = v.secret
	}
	signing.Request(r, signing.Credentials(w.region, cred.AccessKeyID, secret, cred.SecurityToken))
	return w.send(r, op, resp)
}

// send sends the request and decodes the answer.
func (w *wire) send(r *http.Request, op string, resp protoadapt.MessageV1) error {
	answer, err := w.http.Do(r)
	if err != nil {
		if cause := context.Cause(r.Context()); cause != nil {
			err = cause
		}
		return fmt.Errorf("%s: %w", op, err)
	}
	defer answer.Body.Close()
	b, err := io.ReadAll(io.LimitReader(answer.Body, service.MaxAnswer))
	if err != nil {
		return fmt.Errorf("%s: reading the answer: %w", op, err)
	}
	if answer.StatusCode/100 != 2 {
		var e protocol.Error
		if err := proto.Unmarshal(b, protoadapt.MessageV2Of(&e)); err != nil {
			e = protocol.Error{} // its text says the status
		}
		return service.NewError(op, answer.StatusCode, e.GetCode(), e.GetMessage(), answer.Header.Get("x-ots-requestid"), nil)
	}
	if resp == nil {
		return nil
	}
	if err := proto.Unmarshal(b, protoadapt.MessageV2Of(resp)); err != nil {
		return fmt.Errorf("%s: decoding the answer: %w", op, err)
	}
	return nil
}

// answerOf returns the error answer in err, nil if the service did not answer with one.
func answerOf(err error) *ots.ServiceError {
	var e *ots.ServiceError
	if errors.As(err, &e) && !e.Local {
		return e
	}
	return nil
}

// classOf returns what an error means, Transient if it is not an answer of the service.
func classOf(err error) service.Class {
	if e := answerOf(err); e != nil {
		return service.TunnelClass(e.Code, e.Message)
	}
	return service.Transient
}
