package subscriber

import (
	"context"
	"errors"

	"github.com/ThreeDotsLabs/watermill/message"
)

// RunRouter runs a message.Router whose handlers read from subs, until ctx ends, the
// router is closed, or all subscriptions of subs have ended by themselves. It
// returns what router.Run alone keeps to itself:
//
//   - a tunnel was deleted or expired (ErrTunnelGone, ErrTunnelExpired). Run returns nil when all
//     its handlers have stopped, whatever stopped them, so a program would end with status 0;
//   - messages were unsettled at the end of the drain (ErrDrainTimeout). A Router only logs what Close returns.
//
// Nil means that ctx ended, be it before all handlers had subscribed, or the router was closed, and that all is settled and committed; or that all tunnels
// were read to their ends, as those of a backfill are. While one subscription works, the others may have ended:
// the log, Status and health say so at once, RunRouter in the end.
//
// This is not a message.RouterPlugin because Run takes no error from one once the
// handlers have started. subs are closed when RunRouter returns.
func RunRouter(ctx context.Context, router *message.Router, subs ...*Subscriber) error {
	caller := ctx
	ctx, end := context.WithCancel(ctx)
	defer end()
	// The context ends before the last output is closed: a Router whose handlers stop
	// while it has not ended takes that for a fault, and logs one.
	endIfAllEnded := func() {
		if !router.IsRunning() { // further handlers may not have subscribed yet
			return
		}
		for _, s := range subs {
			if !s.allEnded() {
				return
			}
		}
		if len(subs) > 0 {
			end()
		}
	}
	for _, s := range subs {
		defer s.watchEnds(endIfAllEnded)()
	}
	looked := make(chan struct{})
	go func() { // ends when the router runs, or with ctx; awaited below
		defer close(looked)
		select {
		case <-router.Running():
			endIfAllEnded() // some may have ended before
		case <-ctx.Done():
		}
	}()
	var errs []error
	err := router.Run(ctx)
	if router.IsRunning() || caller.Err() == nil {
		errs = append(errs, err)
	} // else the program was to end before all handlers had subscribed, and nothing was read
	end()
	<-looked
	for _, s := range subs {
		errs = append(errs, s.Close(), s.Err())
	}
	return errors.Join(errs...)
}
