package subscriber

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"strings"

	"github.com/aliyun/aliyun-tablestore-go-sdk/tunnel"
)

var (
	// ErrClosed is returned by Subscribe after Close.
	ErrClosed = errors.New("subscriber is closed")

	// ErrNotSubscribed is returned by RPO for a topic without a subscription.
	ErrNotSubscribed = errors.New("no subscription to this topic")

	// ErrTunnelExpired means that the log the tunnel still needed is gone (the
	// service keeps it for the stream's retention, at most 7 days). The tunnel
	// is of no use any more; create another one.
	ErrTunnelExpired = errors.New("tunnel expired")

	// ErrTunnelGone means that the table or the tunnel does not exist (any more).
	ErrTunnelGone = errors.New("no such table or tunnel")

	// ErrAuth means that the service refused the credentials.
	ErrAuth = errors.New("credentials refused")

	// ErrDrainTimeout is wrapped by the error of Close when messages were still
	// unsettled after CloseTimeout, or when their channel was lost before. They
	// are redelivered to the tunnel's next consumer. The contexts of such messages
	// end with a cause that wraps it and context.Canceled.
	ErrDrainTimeout = errors.New("messages still unsettled at the end of the drain")

	// ErrChannelLost is the cancellation cause of a message's context when its
	// channel went to another client or the session ended: whatever its
	// handler does, the record is delivered again elsewhere.
	// It wraps context.Canceled, so that nobody takes what a handler returns then for
	// a failure of the message: neither the Router's log nor a PoisonQueue that asks.
	ErrChannelLost = fmt.Errorf("tunnel channel lost: %w", context.Canceled)

	// ErrSettled is the cancellation cause of a message's context after Ack or Nack.
	ErrSettled = errors.New("message acked or nacked")
)

// errDrainOver is the cancellation cause of messages that a drain gave up. Like
// ErrChannelLost it counts as a cancellation, which the error of Close must not.
var errDrainOver = fmt.Errorf("%w: %w", ErrDrainTimeout, context.Canceled)

// ServiceError is an error answer of the Tablestore service, or what the SDK says
// with a code of the service (its text then does not say that the service
// answered so). Match it with errors.As; Unwrap gives ErrTunnelExpired,
// ErrTunnelGone or ErrAuth where the code means that.
type ServiceError struct {
	Op        string // the operation, such as "readrecords"
	Status    int    // HTTP status, 0 if unknown
	Code      string // the service's code, such as "OTSParameterInvalid"
	Message   string
	RequestID string // to be named in a support ticket

	is    error
	local bool // the code is the SDK's or ours, not one that the service sent
}

// Error implements error.
func (e *ServiceError) Error() string {
	s := e.Op + ": "
	if !e.local {
		s += "the service answered "
	}
	s += e.Code
	if e.Message != "" {
		s += ": " + e.Message
	}
	if e.RequestID != "" {
		s += " (request " + e.RequestID + ")"
	}
	return s
}

// Unwrap returns the sentinel that the code stands for, or nil.
func (e *ServiceError) Unwrap() error { return e.is }

// ChannelError is what happened to one channel of a tunnel.
type ChannelError struct {
	Table, Tunnel, Channel string
	Op                     string // "readrecords", "checkpoint", "getcheckpoint" or "decode"
	Err                    error
}

// Error implements error.
func (e *ChannelError) Error() string {
	text := e.Err.Error()
	if !strings.HasPrefix(text, e.Op+":") { // an error of the call names it already
		text = e.Op + ": " + text
	}
	return fmt.Sprintf("%s/%s channel %s: %s", e.Table, e.Tunnel, e.Channel, text)
}

// Unwrap returns the cause.
func (e *ChannelError) Unwrap() error { return e.Err }

// class says what an error of a call means for who made it.
type class uint8

const (
	retry     class = iota // passes by itself: network, timeouts, 5xx, anything unknown
	throttled              // passes by itself if asked less often
	lost                   // the client or the channel is not ours any more
	mismatch               // checkpoint with an unexpected sequence number
	auth                   // the credentials were refused; others may be given
	fatal                  // the tunnel is of no use: gone or expired
	cancelled              // we gave up ourselves
)

// Codes beyond those that the SDK names [facts 1.7].
const (
	codeAuthFailed       = "OTSAuthFailed"
	codeNoPermission     = "OTSNoPermissionAccess"
	codeServerBusy       = "OTSServerBusy"
	codeQuotaExhausted   = "OTSQuotaExhausted"
	codeNotEnoughCU      = "OTSNotEnoughCapacityUnit"
	codeCUExhausted      = "OTSCapacityUnitExhausted"
	codeObjectNotExist   = "OTSObjectNotExist"
	codeUnknownServerErr = "OTSUnknown"
)

// classify maps an error of a service call to its class. It is the only place
// that knows what a code means.
func classify(err error) class {
	var se *ServiceError
	if errors.As(err, &se) {
		return classifyCode(se.Code)
	}
	for _, given := range []error{context.Canceled, errSessionOver, ErrClosed} {
		if errors.Is(err, given) {
			return cancelled
		}
	}
	return retry
}

func classifyCode(code string) class {
	switch code {
	case tunnel.ErrCodeResourceGone:
		return lost
	case tunnel.ErrCodeSequenceNotMatch:
		return mismatch
	case tunnel.ErrCodeTunnelExpired, tunnel.ErrCodeParamInvalid, codeObjectNotExist:
		return fatal
	case tunnel.ErrCodePermissionDenied, codeAuthFailed, codeNoPermission:
		return auth
	case codeServerBusy, codeQuotaExhausted, codeNotEnoughCU, codeCUExhausted:
		return throttled
	}
	return retry
}

// sentinel returns what a code stands for. For calls about one channel
// OTSParameterInvalid may as well mean the channel or its token.
func sentinel(op, code string) error {
	switch code {
	case tunnel.ErrCodeTunnelExpired:
		return ErrTunnelExpired
	case tunnel.ErrCodeParamInvalid, codeObjectNotExist:
		if op == "readrecords" || op == "getcheckpoint" || op == "checkpoint" {
			return nil
		}
		return ErrTunnelGone
	case tunnel.ErrCodePermissionDenied, codeAuthFailed, codeNoPermission:
		return ErrAuth
	}
	return nil
}

func newServiceError(op string, status int, code, message, requestID string) *ServiceError {
	if code == "" {
		code = codeUnknownServerErr
		if message == "" {
			message = strings.TrimSpace(fmt.Sprintf("HTTP status %d %s", status, http.StatusText(status)))
		}
	}
	return &ServiceError{Op: op, Status: status, Code: code, Message: message, RequestID: requestID, is: sentinel(op, code)}
}

// fromSDK gives an error of the SDK our form. The SDK returns *url.Error around what
// our RoundTripper returned, and *TunnelError for answers of the service and for
// what it, or a heartbeat that workerTransport answers, finds out without one. The
// service's own have a request id, and never the code that the SDK keeps for itself.
func fromSDK(op string, err error) error {
	if err == nil {
		return nil
	}
	var se *ServiceError
	if errors.As(err, &se) {
		return se
	}
	var te *tunnel.TunnelError
	if errors.As(err, &te) {
		se := newServiceError(op, 0, te.Code, te.Message, te.RequestId)
		se.local = te.RequestId == "" || te.Code == tunnel.ErrCodeClientError
		return se
	}
	var ce *callError
	if errors.As(err, &ce) {
		return fmt.Errorf("%s: %w", op, ce.err)
	}
	return fmt.Errorf("%s: %w", op, err)
}
