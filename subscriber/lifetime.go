package subscriber

import (
	"context"
	"errors"
	"time"
)

// lifetime is when a subscription ends: first it stops, which drains its channels; when the time
// for the drain and the last calls is over, those calls end.
type lifetime struct {
	stopping  context.Context // ends when the drain starts
	stop      context.CancelFunc
	closeOver context.Context // ends when the time for the drain and the last calls is over
	endClose  context.CancelCauseFunc
}

func newLifetime() *lifetime {
	l := new(lifetime)
	l.stopping, l.stop = context.WithCancel(context.Background())
	l.closeOver, l.endClose = context.WithCancelCause(context.Background())
	return l
}

var errCloseOver = errors.New("CloseTimeout and the time for the last calls are over")

// bound ends the last calls closeTimeout and closeGrace after the drain starts. The
// function that it returns undoes that.
func (l *lifetime) bound(closeTimeout time.Duration) (unbound func() bool) {
	return context.AfterFunc(l.stopping, func() {
		time.AfterFunc(closeTimeout+closeGrace, func() { l.endClose(errCloseOver) })
	})
}

// lastCalls returns a context for calls that end a session. It does not end with the
// session, and once the subscription stops it ends in time for Close to keep its bound.
func (l *lifetime) lastCalls() (context.Context, context.CancelFunc) {
	return context.WithCancel(l.closeOver)
}
