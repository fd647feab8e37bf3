package letters

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"time"

	"github.com/aliyun/aliyun-tablestore-go-sdk/tablestore"
)

// Stored is a row of a dead-letter table, as a person looks at it: a letter, or a row that
// cannot be read as one.
type Stored struct{ k *kept }

// Letter returns the letter, as far as it could be read. The metadata, payload and record of
// one that Packed reports are empty until Load has read them.
func (s *Stored) Letter() *Letter { return s.k.Letter }

// Row returns the third column of the row's key, which identifies the letter in its pipeline
// and sequence.
func (s *Stored) Row() string { return s.k.id }

// Fault returns why the row is not a letter that can be read; nil for a letter.
func (s *Stored) Fault() error { return s.k.foreign }

// Claimed reports whether a Replay works on the letter.
func (s *Stored) Claimed() bool { return s.k.claimed(time.Now()) }

// Bytes is the size of the letter's metadata, payload and record.
func (s *Stored) Bytes() int { return s.k.size }

// Packed reports whether the large parts of the letter are in other rows.
func (s *Stored) Packed() bool { return s.k.packing != nil }

// browsePage is how many letters one read asks for.
const browsePage = 100

// Check returns an error if the table does not exist, or is not one of dead letters
// (ErrTable).
func (t *Table) Check(ctx context.Context) error {
	if err := t.verify(ctx); err != nil {
		return fmt.Errorf("the dead-letter table %s: %w", t.name, err)
	}
	return nil
}

// Pipelines returns the names of the pipelines that have rows in the table, sorted.
func (t *Table) Pipelines(ctx context.Context) (names []string, err error) {
	from, end := new(tablestore.PrimaryKey), new(tablestore.PrimaryKey)
	for _, column := range letterKey {
		from.AddPrimaryKeyColumnWithMinValue(column)
		end.AddPrimaryKeyColumnWithMaxValue(column)
	}
	for {
		rows, _, err := t.read(ctx, from, end, 1, columnFailedAt, columnWrittenAt)
		if err != nil || len(rows) == 0 {
			return names, err
		}
		name, _ := rows[0].PrimaryKey.PrimaryKeys[0].Value.(string)
		names = append(names, name)
		from = new(tablestore.PrimaryKey)
		from.AddPrimaryKeyColumn(columnPipeline, name)
		from.AddPrimaryKeyColumnWithMaxValue(columnSequence)
		from.AddPrimaryKeyColumnWithMaxValue(columnID)
	}
}

// Each calls f for each row of a pipeline, in the order of the changes, until f returns an
// error, which it returns.
func (t *Table) Each(ctx context.Context, pipeline string, f func(*Stored) error) error {
	var from *tablestore.PrimaryKey
	for {
		page, next, err := t.page(ctx, pipeline, from, browsePage)
		if err != nil {
			return err
		}
		for _, k := range page {
			if err := f(&Stored{k}); err != nil {
				return err
			}
		}
		if next == nil {
			return nil
		}
		from = next
	}
}

// Load reads what a packed letter has in other rows.
func (t *Table) Load(ctx context.Context, s *Stored) error {
	if err := t.unpack(ctx, s.k); err != nil {
		return fmt.Errorf("letter %s of the dead-letter table %s: %w", s.k.name(), t.name, err)
	}
	return nil
}

// purgeLease is how long the claims of a Purge that crashed keep its letters from Replays.
const purgeLease = 2 * time.Minute

// Purge deletes letters for good, each with its parts, and reports each to done. Like a Replay it claims
// a letter first: one that a Replay works on, or that was written again since it was read,
// stays, and is reported as not deleted. Rows that are not letters are refused.
func (t *Table) Purge(ctx context.Context, letters []*Stored, done func(s *Stored, deleted bool)) error {
	c := &claims{table: t, id: rand.Text(), lease: purgeLease}
	for first := 0; first < len(letters); first += maxBatchWrite {
		chunk := letters[first:min(first+maxBatchWrite, len(letters))]
		if err := t.purge(ctx, c, chunk, done); err != nil {
			return err
		}
	}
	return nil
}

// purge is Purge for letters that are claimed in one request.
func (t *Table) purge(ctx context.Context, c *claims, letters []*Stored, done func(*Stored, bool)) error {
	var wanted []*kept
	for _, s := range letters {
		if s.k.foreign != nil {
			return fmt.Errorf("row %s of the dead-letter table %s: %w", s.k.name(), t.name, s.k.foreign)
		}
		if !s.Claimed() {
			wanted = append(wanted, s.k)
		}
	}
	lost, err := c.take(ctx, wanted)
	if err != nil {
		return errors.Join(err, c.releaseAll(ctx, wanted))
	}
	for i, s := range letters {
		if s.Claimed() || lost[s.k] { // k is as it was read, without our claim
			done(s, false)
			continue
		}
		err := c.remove(ctx, s.k)
		switch {
		case errors.Is(err, errClaimLost):
			done(s, false)
		case err != nil:
			var rest []*kept
			for _, left := range letters[i:] {
				rest = append(rest, left.k)
			}
			return errors.Join(err, c.releaseAll(ctx, rest))
		default:
			done(s, true)
		}
	}
	return nil
}

// releaseAll releases what was claimed, also when ctx has ended.
func (c *claims) releaseAll(ctx context.Context, letters []*kept) error {
	if len(letters) == 0 {
		return nil
	}
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), Timeout)
	defer cancel()
	return c.release(ctx, letters)
}
