package letters

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"time"

	"github.com/ThreeDotsLabs/watermill"
	"github.com/ThreeDotsLabs/watermill/message"
	"github.com/aliyun/aliyun-tablestore-go-sdk/tablestore"
)

const (
	// replayPage is how many letters are handled at once.
	replayPage = maxBatchWrite
	// replayBytes bounds the sections of the letters that are handled at once; a
	// letter that has more is handled alone.
	replayBytes = 32 << 20
)

// Replay handles the letters of one pipeline again.
type Replay struct {
	Table    *Table
	Pipeline string

	// Lease is how long a claim lasts that is not renewed.
	Lease time.Duration

	// OrderingKey returns the key within which letters are in order, "" for none, of a
	// letter's channel and primary key.
	OrderingKey func(channel, key string) string

	// Handle handles messages once each and returns the outcome of each. keys are their
	// ordering keys: after a failure it does not handle later messages of the key.
	Handle func(ctx context.Context, messages []*message.Message, keys []string) []error

	// Counts reports whether err, of a message that was handled with ctx, counts as a
	// failed attempt of the letter.
	Counts func(ctx context.Context, err error) bool
}

// Count counts what a Replay did with the rows of the table. Its fields are those of
// router.Replayed.
type Count struct{ Succeeded, Failed, Skipped, Foreign int }

// Run handles each letter of the pipeline once, in the order of their changes, and then
// deletes orphaned parts. It returns what was counted with an error, too.
func (r Replay) Run(ctx context.Context) (Count, error) {
	rp := newReplay(r)
	err := rp.run(ctx)
	return rp.count, err
}

// replay is one run of a Replay. It is used by one goroutine.
type replay struct {
	Replay
	claims  *claims
	count   Count
	blocked map[string]bool // ordering keys with a letter that was not handled
}

func newReplay(r Replay) *replay {
	return &replay{
		Replay: r, blocked: make(map[string]bool),
		claims: &claims{table: r.Table, id: rand.Text(), lease: r.Lease},
	}
}

// run handles the table page by page. A letter that is not handled stays in its place, and
// the next page begins behind it, so run ends.
func (rp *replay) run(ctx context.Context) error {
	if err := rp.Table.verify(ctx); err != nil {
		return fmt.Errorf("the dead-letter table %s: %w", rp.Table.name, err)
	}
	var from *tablestore.PrimaryKey
	for {
		letters, next, err := rp.Table.page(ctx, rp.Pipeline, from, replayPage)
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
	if err := rp.Table.deleteOrphans(ctx, rp.Pipeline); err != nil {
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

// key returns the letter's ordering key. It uses the columns of the row, which are known
// before a packed letter is read.
func (rp *replay) key(k *kept) string { return rp.OrderingKey(k.Channel, k.key) }

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

// foreign counts and logs a row that is not a letter, or a damaged letter. Later changes of
// a damaged letter's key are skipped until the row is repaired or removed.
func (rp *replay) foreign(k *kept, reason error) {
	rp.count.Foreign++
	if !errors.Is(reason, errForeignRow) {
		rp.block(k)
	}
	rp.Table.logger.Error("A row of the dead-letter table is skipped", reason, watermill.LogFields{"table": rp.Table.name, "row": k.name()})
}

// some handles some letters at once.
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
	var errs []error
	for i, err := range rp.Handle(handling, messages, keys) {
		errs = append(errs, rp.settle(handling, held[i], err))
	}
	if ctx.Err() == nil && handling.Err() != nil {
		errs = append(errs, context.Cause(handling))
	}
	return errors.Join(errs...)
}
