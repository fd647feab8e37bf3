package router

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"

	"github.com/ThreeDotsLabs/watermill"
	"github.com/ThreeDotsLabs/watermill/message"
	"github.com/aliyun/aliyun-tablestore-go-sdk/tablestore"

	"github.com/watermill-ots/watermill-ots/router/internal/keypath"
	"github.com/watermill-ots/watermill-ots/subscriber"
)

// Replayed counts what Replay did with the rows of the table.
type Replayed struct {
	Succeeded int // handled, and removed from the table
	Failed    int // failed again; the table has the new error and the number of attempts
	Skipped   int // not handled: an earlier letter of the same key failed or was skipped, another Replay works on it, or this one was stopped
	Foreign   int // not letters, or damaged ones; they stay as they are, and the log names each
}

const (
	// replayPage is how many letters are handled at once.
	replayPage = maxBatchWrite
	// replayBytes bounds the sections of the letters that are handled at once; a
	// letter that has more is handled alone.
	replayBytes = 32 << 20
)

// Replay handles the dead letters in a tunnel's dead-letter table once more,
// through the tunnel's own pipeline: middlewares, Process, batches. Letters come
// in the order of their changes, those of one primary key one after the other; after
// a failure the later ones of that key are left alone. Each letter is tried once.
//
// A replayed change comes after changes of its row that were handled since it
// failed: handlers that overwrite should compare Sequence.
//
// Several Replays may run at once, in any number of processes: each letter is claimed
// in the table before it is handled, and only by one of them. A Replay
// leaves alone what another one has claimed, and what comes after it of the
// same key; a letter that two of them wanted at the same moment may be left
// for the next Replay. The claims of a Replay that crashed end after ClaimLease.
//
// Rows that are not letters are skipped. When Replay has been through the table, it deletes
// the parts of large letters that a crash has left behind.
//
// Replay needs no Run, and may be called while Run does its work. It ends with an
// error when ctx ends, the Router is closed or the table cannot be read or written;
// what was counted until then is returned with it.
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
	rp := newReplay(p, r.letterTable(tunnel), t)
	r.mu.Unlock()
	if err := rp.run(ctx); err != nil {
		return rp.count, fmt.Errorf("replay %s: %w", keypath.Join("tunnels", tunnel), err)
	}
	return rp.count, nil
}

// readyPipeline returns the pipeline of a tunnel that has all that it needs.
func (r *Router) readyPipeline(tunnel string) (*pipeline, error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if err := r.faulty(r.missing(tunnel)...); err != nil {
		return nil, err
	}
	return r.pipeline(tunnel)
}

// replay is one Replay. It is used by one goroutine.
type replay struct {
	pipeline *pipeline
	table    *tableLetters
	claims   *claims
	cfg      Tunnel
	count    Replayed
	blocked  map[string]bool // ordering keys with a letter that was not handled
}

func newReplay(p *pipeline, table *tableLetters, cfg Tunnel) *replay {
	return &replay{
		pipeline: p, table: table, cfg: cfg, blocked: make(map[string]bool),
		claims: &claims{table: table, id: rand.Text(), lease: ClaimLease},
	}
}

// run goes through the table. A letter that is not handled stays at its place, behind which
// the next page begins, so it comes to an end.
func (rp *replay) run(ctx context.Context) error {
	if err := rp.table.verify(ctx); err != nil {
		return fmt.Errorf("the dead-letter table %s: %w", rp.table.table, err)
	}
	var from *tablestore.PrimaryKey
	for {
		letters, next, err := rp.table.page(ctx, rp.pipeline.name, from, replayPage)
		if err != nil {
			return err
		}
		for len(letters) > 0 && ctx.Err() == nil {
			n := replayable(letters)
			if err := rp.some(ctx, letters[:n]); err != nil {
				return err
			}
			letters = letters[n:]
		}
		if ctx.Err() != nil {
			return context.Cause(ctx)
		}
		if next == nil {
			break
		}
		from = next
	}
	if err := rp.table.sweep(ctx, rp.pipeline.name); err != nil {
		return fmt.Errorf("deleting parts that belong to no letter: %w", err)
	}
	return nil
}

// replayable returns how many of the letters, at least one, are small enough to
// be handled at once.
func replayable(letters []*kept) int {
	size := letters[0].size
	for i, k := range letters[1:] {
		if size += k.size; size > replayBytes {
			return i + 1
		}
	}
	return len(letters)
}

// key is the letter's ordering key: of its columns, which are there before a
// packed letter is read.
func (rp *replay) key(k *kept) string {
	switch rp.cfg.ordering() {
	case subscriber.Unordered:
		return ""
	case subscriber.OrderByChannel:
		return "channel " + k.Channel
	}
	return k.key
}

// skip counts a letter that is not handled. Later ones of its key are not handled either.
func (rp *replay) skip(k *kept) {
	rp.count.Skipped++
	rp.block(k)
}

func (rp *replay) block(k *kept) {
	if key := rp.key(k); key != "" {
		rp.blocked[key] = true
	}
}

// foreign counts and names a row that is not a letter, or a damaged one. Later changes of a damaged
// letter's key are skipped until the row is repaired or removed.
func (rp *replay) foreign(k *kept, reason error) {
	rp.count.Foreign++
	if !errors.Is(reason, errForeignRow) {
		rp.block(k)
	}
	rp.table.logger.Error("A row of the dead-letter table is skipped", reason, watermill.LogFields{"table": rp.table.table, "row": k.name()})
}

// some handles some letters side by side.
func (rp *replay) some(ctx context.Context, letters []*kept) error {
	held, err := rp.claim(ctx, letters)
	if err != nil {
		return err
	}
	if len(held) == 0 {
		return nil
	}
	handling, keeping := rp.claims.keep(ctx, held)
	defer keeping.end()
	held, err = rp.unpack(handling, held)
	if err != nil {
		return errors.Join(err, rp.release(ctx, held))
	}
	messages, keys := make([]*message.Message, len(held)), make([]string, len(held))
	for i, k := range held {
		messages[i], keys[i] = k.Message(), rp.key(k)
	}
	f := feed{handle: rp.pipeline.attempt}
	var errs []error
	for i, err := range f.run(handling, messages, keys, false) {
		errs = append(errs, rp.settle(handling, held[i], err))
	}
	if ctx.Err() == nil && handling.Err() != nil {
		errs = append(errs, context.Cause(handling))
	}
	return errors.Join(errs...)
}
