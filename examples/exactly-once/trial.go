package main

import (
	"context"
	crand "crypto/rand"
	"encoding/binary"
	"errors"
	"fmt"
	"maps"
	"math/rand/v2"
	"os"
	"slices"
	"time"

	"github.com/watermill-ots/watermill-ots/examples/simple/console"
)

const (
	// longestLife is the longest life of a consumer after its first batch.
	longestLife = time.Second

	// patience is how long a consumer may take for its first batch, and the
	// last one for the rest.
	patience = 30 * time.Second

	// lookEvery is the interval between checks of the consumer's progress in
	// the database.
	lookEvery = 20 * time.Millisecond
)

// trial is one run: a consumer that is killed repeatedly.
type trial struct {
	ledger *ledger
	bank   *bank
	out    *console.Console
	kills  int
	seed   uint64
	random *rand.Rand
	killed int

	verbose bool // for the consumers
}

// newTrial returns a trial; seed 0 is replaced with a random one.
func newTrial(l *ledger, b *bank, kills int, seed uint64, verbose bool) *trial {
	for seed == 0 {
		var bytes [8]byte
		_, _ = crand.Read(bytes[:]) // never fails
		seed = binary.LittleEndian.Uint64(bytes[:])
	}
	return &trial{ledger: l, bank: b, out: console.New(os.Stdout), kills: kills, seed: seed, verbose: verbose, random: rand.New(rand.NewPCG(seed, 0))}
}

// run writes to the table while consumers are killed, lets the last one handle
// the rest, and compares.
func (t *trial) run(ctx context.Context) error {
	t.out.Printf("from  %s, %s/%s (emulator inside this process, on a data directory)\n", t.bank.emulator.Endpoint(), tableName, tunnelName)
	t.out.Printf("to    PostgreSQL %s, schema %s, dropped at the end\n", t.ledger.pool.Config().ConnConfig.Host, t.ledger.schema)
	t.out.Printf("seed  %d\n\n%-12s  %-8s %9s %8s %8s %6s\n", t.seed, "time", "consumer", "lived", "batches", "changes", "again")

	writing, stopWriting := context.WithCancel(ctx)
	defer stopWriting()
	endpoint := t.bank.emulator.Endpoint()
	wrote := make(chan error, 1)
	go func() { wrote <- t.bank.write(writing, t.out.Event) }() // ends with stopWriting; received below

	last, err := t.killMany(ctx, endpoint)
	stopWriting()
	if err := errors.Join(err, <-wrote); err != nil {
		return errors.Join(err, t.end(last))
	}
	if err := t.waitForRest(ctx, last); err != nil {
		return errors.Join(err, t.end(last))
	}
	if err := t.end(last); err != nil {
		return err
	}
	// An interrupt ends the writing and the waiting, but what was handled is
	// still shown.
	return t.compare(context.WithoutCancel(ctx), ctx.Err() != nil)
}

// end makes a consumer drain. c may be nil.
func (t *trial) end(c *consumer) error {
	if c == nil {
		return nil
	}
	return errors.Join(c.finish(), t.report(c, "drained"))
}

// killMany starts consumers and kills them. It returns a running one, or nil
// with an error.
func (t *trial) killMany(ctx context.Context, endpoint string) (*consumer, error) {
	for number := 1; ; number++ {
		c, err := start(consumerArgs{endpoint, t.ledger.schema, number}, t.verbose)
		if err != nil {
			return nil, err
		}
		if number > t.kills {
			return c, nil
		}
		err = t.waitUntil(ctx, c, "has handled nothing", func() (bool, error) {
			d, err := t.ledger.delivered(ctx, number)
			return d.batches > 0, err
		})
		if err != nil || ctx.Err() != nil {
			return c, err
		}
		moment := time.NewTimer(time.Duration(t.random.Int64N(int64(longestLife))))
		select {
		case <-moment.C:
		case <-ctx.Done():
			moment.Stop()
			return c, nil
		}
		if err := c.kill(); err != nil {
			return nil, err
		}
		t.killed++
		if err := t.report(c, "killed"); err != nil {
			return nil, err
		}
	}
}

// waitForRest waits until all changes that were written are in the database.
func (t *trial) waitForRest(ctx context.Context, c *consumer) error {
	return t.waitUntil(ctx, c, "has not handled everything that was written", func() (bool, error) {
		accounts, err := t.ledger.accounts(ctx)
		return sum(accounts).changes >= sum(t.bank.accounts).changes, err
	})
}

// waitUntil waits until done returns true. It returns early, without an error,
// when ctx ends; and with one if the consumer ends or takes too long: text says
// what it has not done.
func (t *trial) waitUntil(ctx context.Context, c *consumer, text string, done func() (bool, error)) error {
	look := time.NewTicker(lookEvery)
	defer look.Stop()
	late := time.NewTimer(patience)
	defer late.Stop()
	for {
		ok, err := done()
		if ctx.Err() != nil {
			return nil
		}
		if ok || err != nil {
			return err
		}
		select {
		case <-look.C:
		case <-ctx.Done():
			return nil
		case <-c.ended:
			return c.unexpected()
		case <-late.C:
			return fmt.Errorf("consumer %d %s within %v", c.number, text, patience)
		}
	}
}

// report prints what a consumer has done.
func (t *trial) report(c *consumer, end string) error {
	d, err := t.ledger.delivered(context.Background(), c.number)
	if err != nil {
		return err
	}
	t.out.Event("%-8d %9s %8d %8d %6d  %s", c.number, time.Since(c.began).Round(time.Millisecond), d.batches, d.changes, d.again, end)
	return nil
}

// compare prints the closing table, whose figures come from the table and the
// database. An interrupted run may leave changes behind.
func (t *trial) compare(ctx context.Context, interrupted bool) error {
	table, err := t.bank.read()
	if err != nil {
		return err
	}
	accounts, err := t.ledger.accounts(ctx)
	if err != nil {
		return err
	}
	all, err := t.ledger.delivered(ctx, 0)
	if err != nil {
		return err
	}
	written, applied := sum(table), sum(accounts)
	t.out.Printf("\n")
	t.out.Row("changes written", "%d", written.changes)
	t.out.Row("delivered", "%d in %d batches", all.changes, all.batches)
	t.out.Row("suppressed", "%d, which were already in the inbox", all.again)
	t.out.Row("applied", "%d", applied.changes)
	t.out.Row("kills", "%d", t.killed)
	t.out.Row("sum in the table", "%d", written.total)
	t.out.Row("sum in PostgreSQL", "%d", applied.total)
	if interrupted {
		t.out.Printf("\nInterrupted: %d changes are left in the tunnel, so the sums are not compared.\n", written.changes-applied.changes)
		return nil
	}
	var errs []error
	for _, account := range slices.Sorted(maps.Keys(accounts)) {
		if table[account] != accounts[account] {
			errs = append(errs, fmt.Errorf("%s: %d after %d changes in the table, %d after %d in PostgreSQL", account,
				table[account].total, table[account].changes, accounts[account].total, accounts[account].changes))
		}
	}
	if errs == nil {
		t.out.Printf("\nThe sums of all %d accounts agree: each change was applied exactly once.\n", len(accounts))
	}
	return errors.Join(errs...)
}

// sum adds up accounts.
func sum(accounts map[string]balance) balance {
	var all balance
	for _, b := range accounts {
		all.total, all.changes = all.total+b.total, all.changes+b.changes
	}
	return all
}
