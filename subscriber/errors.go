package subscriber

import (
	"context"
	"errors"
	"fmt"
	"strings"

	"github.com/watermill-ots/watermill-ots/internal/service"
)

var (
	// ErrClosed is returned by Subscribe after Close.
	ErrClosed = errors.New("subscriber is closed")

	// ErrNotSubscribed is returned by RPO for a topic without a subscription.
	ErrNotSubscribed = errors.New("no subscription to this topic")

	// ErrTunnelType means that a tunnel is of another type than Config.Tunnel names, or one that
	// OnGapRecreate is not for.
	ErrTunnelType = errors.New("tunnel of another type")

	// ErrDrainTimeout is wrapped by the error of Close when messages were still
	// unsettled after CloseTimeout, or when their channel was lost before. They
	// are redelivered to the tunnel's next consumer. The contexts of such messages
	// end with a cause that wraps it and context.Canceled.
	ErrDrainTimeout = errors.New("messages still unsettled at the end of the drain")

	// ErrNotCommitted is wrapped by the error of Close when messages were acked and the
	// checkpoint that says so could not be stored: the service did not answer or
	// refused it, or the channel was lost while draining. They are redelivered.
	ErrNotCommitted = errors.New("acked messages are not committed, they will be redelivered")

	// ErrChannelLost is the cancellation cause of a message's context when its
	// channel went to another client or the session ended: whatever its
	// handler does, the record is delivered again elsewhere.
	// It wraps context.Canceled, so that what a handler returns then is not taken for a failure
	// of the message: neither by the Router's log nor by a PoisonQueue that asks.
	// This package does not look for it in what a handler returns: the message's
	// context says whether it was cancelled.
	ErrChannelLost = fmt.Errorf("tunnel channel lost: %w", context.Canceled)

	// ErrSettled is the cancellation cause of a message's context after Ack or Nack.
	ErrSettled = errors.New("message acked or nacked")
)

// errDrainOver is the cancellation cause of messages that a drain gave up. Like
// ErrChannelLost it counts as a cancellation, which the error of Close must not.
var errDrainOver = fmt.Errorf("%w: %w", ErrDrainTimeout, context.Canceled)

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

// class says what an error of a call means for its caller. Calls that this process gave up
// itself have no class: their own context says that. An error that
// wraps context.Canceled may come from a transport or a CredentialsProvider whose
// own call was cancelled, and is as good a reason to retry as any other.
type class = service.Class

const (
	retry     = service.Transient
	throttled = service.Throttled
	notOurs   = service.Lost
	mismatch  = service.Mismatch
	auth      = service.Auth
	fatal     = service.Gone
	gap       = service.Gap
)

// classifyCode returns the class of a code when its message is not known.
func classifyCode(code string) class { return service.TunnelClass(code, "") }
