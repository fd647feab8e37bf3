package subscriber

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/ThreeDotsLabs/watermill"
	"github.com/aliyun/aliyun-tablestore-go-sdk/tunnel"
	"github.com/cenkalti/backoff/v4"

	"github.com/watermill-ots/watermill-ots/internal/tunnelapi"
	"github.com/watermill-ots/watermill-ots/ots"
)

// recreation replaces a tunnel that cannot continue, as OnGapRecreate says. It keeps no
// record of its steps: each one follows from a look at the tunnel that has the name, so it
// does not matter which process took the step before, or whether that process crashed.
//
//	look ──▶ the former tunnel, which cannot continue, or one that has expired: delete it by its id, look again
//	     ──▶ none, and clients of the former tunnel may still handle its records: wait, look again
//	     ──▶ none: create one, look again
//	     ──▶ another one: continue with it
//
// Invariants:
//   - A tunnel is deleted only by its id and right after a look that showed it, and only if it is the
//     condemned one or the service says that it has expired. So none loses a tunnel that
//     another process has just created.
//   - While clients of other processes may handle records of the former tunnel, no other is created: their leases
//     are over when createAt has come (law L4).
//
// It belongs to one goroutine.
type recreation struct {
	*Subscriber
	topic, table, name string

	former    string          // id of the tunnel that the subscription read, or could not read; empty: there was none
	condemned bool            // former has lost changes or has expired, rather than vanished
	own       map[string]bool // clients of this subscription, which have ended

	removed  bool      // this process has deleted a tunnel, or may have
	createAt time.Time // when a tunnel may be created; zero: at any time
	waits    bool      // the log says that it waits for createAt
	pauses   backoff.BackOff
	creates  int
	refusals int
}

// maxRefusals is how many times the service may refuse to delete a tunnel that it shows.
// One refusal is expected when another process was faster.
const maxRefusals = 5

// recreatePause is the shortest pause between two looks that follow each other without a
// successful step in between.
const recreatePause = 100 * time.Millisecond

// run returns a tunnel that can be read.
func (r *recreation) run(ctx context.Context) (*tunnel.TunnelInfo, error) {
	r.pauses = r.cfg.ReadBackoff()
	for {
		found, err := r.look(ctx, r.table, r.name)
		switch {
		case errors.Is(err, ots.ErrTunnelGone):
			err = r.createInTime(ctx)
		case err != nil:
		case found.Tunnel.Expired || r.condemned && found.Tunnel.TunnelId == r.former:
			err = r.remove(ctx, found)
		default:
			return found.Tunnel, r.check(found.Tunnel)
		}
		if err != nil {
			return nil, err
		}
	}
}

// check refuses a tunnel that would hide what was lost: one of the same name that another
// program has created, and that does not deliver all rows.
func (r *recreation) check(info *tunnel.TunnelInfo) error {
	if r.former != "" && info.TunnelId != r.former && TunnelType(info.TunnelType) != BaseAndStream {
		return fmt.Errorf("%w: another program created tunnel %s as %s, which does not deliver the rows again; delete it, and OnGapRecreate creates it as BaseAndStream", ErrTunnelType, info.TunnelId, info.TunnelType)
	}
	return r.checkRecreatable(info)
}

// remove deletes the tunnel that a look has shown. If the call fails for a reason that may pass, the
// next look tells whether it had its effect.
func (r *recreation) remove(ctx context.Context, found *tunnel.DescribeTunnelResponse) error {
	id, others := found.Tunnel.TunnelId, r.others(found)
	fields := watermill.LogFields{"topic": r.topic, "tunnel_id": id, "other_clients": others}
	err := r.endpoint.Delete(ctx, r.table, r.name, id)
	if others > 0 && !r.createAt.After(time.Now()) {
		// They hear of it with their next heartbeat; until then they may handle records that are older than
		// the rows that will be delivered again.
		r.createAt = time.Now().Add(r.cfg.HeartbeatTimeout)
	}
	switch class := tunnelapi.Classify(err); {
	case err == nil:
		r.removed = true
		r.logger.Info("Tunnel was deleted, to be recreated", fields)
		return nil
	case ctx.Err() != nil:
		return gaveUp(ctx, err)
	case class == retry || class == throttled:
		r.removed = true
		r.logger.Error("Tunnel cannot be deleted, to be recreated; retrying", err, fields)
		return r.pause(ctx, pauseAfter(r.pauses, err))
	case errors.Is(err, ots.ErrTunnelGone) && r.refusals < maxRefusals: // another process has deleted it
		r.refusals++
		return r.pause(ctx, nextPause(r.pauses))
	}
	return fmt.Errorf("deleting tunnel %s: %w", id, err)
}

// others counts the clients of other processes that hold channels.
func (r *recreation) others(found *tunnel.DescribeTunnelResponse) int {
	clients := make(map[string]bool)
	for _, c := range found.Channels {
		if c.ClientId != "" && c.ChannelStatus != statusTerminated && !r.own[c.ClientId] {
			clients[c.ClientId] = true
		}
	}
	return len(clients)
}

// createInTime creates the tunnel, which does not exist, or waits for a moment if it is too
// early. If another process has deleted the former tunnel, that process creates the next one, unless it
// crashes; and what else it knows of clients that may be at work, this one does not.
func (r *recreation) createInTime(ctx context.Context) error {
	if r.former != "" && !r.removed && r.createAt.IsZero() {
		r.createAt = time.Now().Add(r.cfg.HeartbeatTimeout)
	}
	if wait := time.Until(r.createAt); wait > 0 {
		if !r.waits {
			r.waits = true
			r.logger.Info("Tunnel does not exist; it is created when no client of the former one can be at work, unless another process is faster",
				watermill.LogFields{"topic": r.topic, "wait": wait.Round(time.Millisecond).String()})
		}
		return r.pause(ctx, min(wait, nextPause(r.pauses)))
	}
	if r.creates > 0 { // it was created a moment ago, and deleted again or not visible yet
		if err := r.pause(ctx, nextPause(r.pauses)); err != nil {
			return err
		}
	}
	r.creates++
	err := r.create(ctx, r.table, r.name)
	switch {
	case errors.Is(err, ots.ErrTunnelGone):
		return fmt.Errorf("%w; the table must exist, with a stream, in instance %q", err, r.cfg.Instance)
	case err != nil:
		return fmt.Errorf("creating the tunnel: %w", err)
	}
	r.logger.Info("Tunnel was created as BaseAndStream, by this process or another", watermill.LogFields{"topic": r.topic})
	return nil
}

// pause waits between two looks.
func (r *recreation) pause(ctx context.Context, d time.Duration) error {
	if !sleep(ctx, max(d, recreatePause)) {
		return context.Cause(ctx)
	}
	return nil
}
