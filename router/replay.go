package router

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/ThreeDotsLabs/watermill/message"

	"github.com/watermill-ots/watermill-ots/ack"
	"github.com/watermill-ots/watermill-ots/batching"
	"github.com/watermill-ots/watermill-ots/internal/feed"
	"github.com/watermill-ots/watermill-ots/internal/letters"
	"github.com/watermill-ots/watermill-ots/router/internal/keypath"
)

// ClaimLease is how long the claims of a Replay that crashed keep its letters from
// other Replays. A Replay that works renews its claims, however long its handlers take.
// The clocks of the machines that replay must agree within about half of it.
const ClaimLease = 2 * time.Minute

// Replayed counts what Replay did with the rows of the table.
type Replayed struct {
	Succeeded int // handled, and removed from the table
	Failed    int // failed again; the table has the new error and the number of attempts
	Skipped   int // not handled: an earlier letter of the same key failed or was skipped, another Replay works on it, or this one was stopped
	Foreign   int // rows that are not letters, and damaged letters; they stay as they are, and the log names each
}

// Replay handles the dead letters in a tunnel's dead-letter table again,
// through the tunnel's own pipeline: middlewares, Process, batches. It handles letters
// in the order of their changes, and those of one primary key one at a time; after
// a failure it skips the later ones of that key. Each letter is tried once.
//
// A replayed change is handled after changes of its row that were handled since it
// failed: handlers that overwrite should compare Sequence.
//
// Several Replays may run at once, in any number of processes: a Replay claims each letter
// in the table before it handles it. It skips letters that another Replay has claimed,
// and the later letters of the same key. A letter that two Replays wanted at the same
// moment may be left for the next Replay. The claims of a Replay that crashed end after
// ClaimLease.
//
// Replay skips rows that are not letters. At the end it deletes the parts of large
// letters that a crash has left behind.
//
// Replay does not need Run, and may be called while Run works. It returns an
// error when ctx ends, the Router is closed or the table cannot be read or written,
// together with what was counted until then.
func (r *Router) Replay(ctx context.Context, tunnel string) (Replayed, error) {
	t, ok := r.cfg.Tunnels[tunnel]
	if !ok {
		return Replayed{}, r.unknownTunnel("Replay", tunnel)
	}
	if dl := t.Failure.DeadLetter; dl == nil || dl.Table == "" {
		return Replayed{}, r.faulty(Fault{Path: keypath.Join("tunnels", tunnel, "failure"), Text: "Replay reads a dead-letter table, but dead_letter has none; give it a table, or use ReplayMessage for a topic"})
	}
	done, err := r.use("replay")
	if err != nil {
		return Replayed{}, err
	}
	defer done()
	ctx, cancel := r.bound(ctx)
	defer cancel()
	p, err := r.readyPipeline(tunnel)
	if err != nil {
		return Replayed{}, err
	}
	r.mu.Lock()
	table := r.letterTable(tunnel)
	r.mu.Unlock()
	count, err := letters.Replay{
		Table: table, Pipeline: tunnel, Lease: ClaimLease,
		OrderingKey: t.orderingKey,
		Handle: func(ctx context.Context, messages []*message.Message, keys []string) []error {
			return feed.Run(ctx, p.attempt, messages, keys)
		},
		Counts: countsAgain,
	}.Run(ctx)
	if err != nil {
		return Replayed(count), fmt.Errorf("replay %s: %w", keypath.Join("tunnels", tunnel), err)
	}
	return Replayed(count), nil
}

// readyPipeline returns the pipeline of a tunnel if nothing that it needs is missing.
func (r *Router) readyPipeline(tunnel string) (*pipeline, error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if err := r.faulty(r.missing(tunnel)...); err != nil {
		return nil, err
	}
	return r.pipeline(tunnel)
}

// countsAgain reports whether err, of a letter that was handled with ctx, is another failed
// attempt. It is not if the letter was interrupted, or failed only because others did or
// because nothing works.
func countsAgain(ctx context.Context, err error) bool {
	if errors.Is(err, ack.ErrCalledBack) || verdictOf(ctx, err) == interrupted || ack.IsTransient(err) {
		return false
	}
	var f *batching.Failure
	return !errors.As(err, &f) || f.Alone
}
