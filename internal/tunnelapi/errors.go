package tunnelapi

import (
	"errors"
	"fmt"
	"time"

	"github.com/aliyun/aliyun-tablestore-go-sdk/tunnel"

	"github.com/watermill-ots/watermill-ots/internal/service"
	"github.com/watermill-ots/watermill-ots/ots"
)

// Classify maps an error of a call to what it means for the caller.
func Classify(err error) service.Class {
	var se *ots.ServiceError
	if !errors.As(err, &se) {
		return service.Transient
	}
	if se.Means == ots.ErrGap {
		return service.Gap
	}
	return service.TunnelClass(se.Code, se.Message)
}

// sentinel returns what an answer stands for. For calls about one channel
// OTSParameterInvalid may as well mean the channel or its token.
func sentinel(op, code, message string) error {
	switch service.TunnelClass(code, message) {
	case service.Gap:
		return ots.ErrGap
	case service.Auth:
		return ots.ErrAuth
	case service.Gone:
		switch {
		case code == service.CodeTunnelExpired:
			return ots.ErrTunnelExpired
		case op == "readrecords", op == "getcheckpoint", op == "checkpoint":
			return nil
		}
		return ots.ErrTunnelGone
	}
	return nil
}

// NewError returns the error of an answer of the tunnel API.
func NewError(op string, status int, code, message, requestID string) *ots.ServiceError {
	return service.NewError(op, status, code, message, requestID, sentinel(op, code, message))
}

// FromSDK gives an error of the SDK our form. The SDK returns *url.Error around what
// our RoundTripper returned, and *TunnelError for answers of the service and for
// what it, or a transport that answers in the service's place, finds out without one. The
// service's own have a request id, and never the code that the SDK keeps for itself.
func FromSDK(op string, err error) error {
	if err == nil {
		return nil
	}
	var se *ots.ServiceError
	if errors.As(err, &se) {
		return se
	}
	var te *tunnel.TunnelError
	if errors.As(err, &te) {
		se := NewError(op, 0, te.Code, te.Message, te.RequestId)
		se.Local = te.RequestId == "" || te.Code == tunnel.ErrCodeClientError
		return se
	}
	var ce *CallError
	if errors.As(err, &ce) {
		return fmt.Errorf("%s: %w", op, ce.Err)
	}
	return fmt.Errorf("%s: %w", op, err)
}

// CallError carries a failure through the SDK. The SDK retries errors whose
// text contains "EOF" or "Connection reset by peer", and those with Temporary()
// true; this one has neither, and gives its cause only to errors.As.
type CallError struct{ Err error }

// Error implements error, with a text that the SDK does not take for a reason to retry.
func (*CallError) Error() string { return "the call did not succeed" }

// Unwrap returns the failure.
func (e *CallError) Unwrap() error { return e.Err }

// SinceEpoch turns nanoseconds since 1970, as the service counts, into a time; 0 means "none" [docs/protocol.md, Recovery points].
func SinceEpoch(ns int64) time.Time {
	if ns <= 0 {
		return time.Time{}
	}
	return time.Unix(0, ns)
}
