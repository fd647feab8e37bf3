package main

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"os"
	"slices"

	"github.com/ThreeDotsLabs/watermill/message"
	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"
	"github.com/jackc/pgx/v5/pgxpool"
)

// ledger is the sink: a schema in PostgreSQL. Its methods may be called
// concurrently, also by several processes.
type ledger struct {
	pool   *pgxpool.Pool
	schema string
}

// Tables of the schema. In a long-running system, inbox rows can be deleted
// once they are older than anything that a tunnel can redeliver: the stream's
// expiration time.
const tables = `
create table inbox (
	uuid text primary key,
	at   timestamptz not null default now()
);
create table accounts (
	account text primary key,
	total   bigint not null default 0,
	changes bigint not null default 0
);
-- What was delivered: a row for each batch.
create table batches (
	consumer int not null,
	changes  int not null,
	again    int not null -- how many of the changes were in the inbox before
);`

// openLedger connects to the database of DATABASE_URL.
func openLedger(ctx context.Context, schema string) (*ledger, error) {
	cfg, err := pgxpool.ParseConfig(os.Getenv("DATABASE_URL"))
	if err != nil {
		return nil, fmt.Errorf("reading DATABASE_URL: %w", err)
	}
	cfg.ConnConfig.RuntimeParams["search_path"] = schema
	pool, err := pgxpool.NewWithConfig(ctx, cfg)
	if err != nil {
		return nil, fmt.Errorf("opening the database of DATABASE_URL: %w", err)
	}
	if err := pool.Ping(ctx); err != nil {
		pool.Close()
		return nil, fmt.Errorf("the database of DATABASE_URL does not answer: %w", err)
	}
	return &ledger{pool: pool, schema: schema}, nil
}

func (l *ledger) close() { l.pool.Close() }

func (l *ledger) create(ctx context.Context) error {
	if _, err := l.pool.Exec(ctx, "create schema "+pgx.Identifier{l.schema}.Sanitize()); err != nil {
		return fmt.Errorf("creating schema %s: %w", l.schema, err)
	}
	_, err := l.pool.Exec(ctx, tables)
	if err == nil {
		_, err = l.pool.Exec(ctx, "insert into accounts (account) select unnest($1::text[])", accountNames())
	}
	if err != nil {
		return errors.Join(fmt.Errorf("creating tables in schema %s: %w", l.schema, err), l.drop(context.WithoutCancel(ctx)))
	}
	return nil
}

func (l *ledger) drop(ctx context.Context) error {
	if _, err := l.pool.Exec(ctx, "drop schema "+pgx.Identifier{l.schema}.Sanitize()+" cascade"); err != nil {
		return fmt.Errorf("dropping schema %s: %w", l.schema, err)
	}
	return nil
}

// apply handles a batch in one transaction: it adds up the changes whose UUIDs
// are new to the inbox; the others were added before. If the transaction is not
// committed, for whatever reason, the batch has no effect, and its messages are
// redelivered.
func (l *ledger) apply(ctx context.Context, consumer int, messages []*message.Message) error {
	uuids := make([]string, len(messages))
	for i, msg := range messages {
		uuids[i] = msg.UUID
	}
	return pgx.BeginFunc(ctx, l.pool, func(tx pgx.Tx) error {
		// A consumer that has lost a channel may still be working on its
		// records when the next one gets them: then the insert waits for the
		// end of the other transaction. Since the UUIDs are sorted, two such
		// inserts cannot wait for each other.
		rows, _ := tx.Query(ctx, "insert into inbox (uuid) select unnest($1::text[]) order by 1 on conflict do nothing returning uuid", uuids)
		unseen, err := pgx.CollectRows(rows, pgx.RowTo[string])
		if err != nil {
			return fmt.Errorf("writing %d UUIDs to the inbox: %w", len(uuids), err)
		}
		steps, err := addUp(messages, unseen)
		if err != nil {
			return err
		}
		var updates pgx.Batch
		for _, account := range slices.Sorted(maps.Keys(steps)) { // in the same order as in other transactions
			s := steps[account]
			updates.Queue("update accounts set total = total + $2, changes = $4 where account = $1 and changes = $3", account, s.amount, s.first-1, s.last).
				Exec(exactlyOne(account, s.first))
		}
		updates.Queue("insert into batches values ($1, $2, $3)", consumer, len(messages), len(messages)-len(unseen))
		return tx.SendBatch(ctx, &updates).Close()
	})
}

// step is what a batch adds to an account.
type step struct{ amount, first, last int64 } // the numbers of the first and the last change in it

// addUp adds up the messages that are unseen.
func addUp(messages []*message.Message, unseen []string) (map[string]step, error) {
	fresh := make(map[string]bool, len(unseen))
	for _, uuid := range unseen {
		fresh[uuid] = true
	}
	steps := make(map[string]step)
	for _, msg := range messages {
		if !fresh[msg.UUID] {
			continue
		}
		fresh[msg.UUID] = false // it counts once, even if the batch contains it twice
		c, err := changeOf(msg)
		if err != nil {
			return nil, err
		}
		s, more := steps[c.account]
		if more && c.number != s.last+1 {
			return nil, disorder(c.account, c.number)
		} else if !more {
			s.first = c.number
		}
		steps[c.account] = step{amount: s.amount + c.amount, first: s.first, last: c.number}
	}
	return steps, nil
}

// exactlyOne requires that an update of an account has found the account in the
// state before the change with this number.
func exactlyOne(account string, number int64) func(pgconn.CommandTag) error {
	return func(updated pgconn.CommandTag) error {
		if updated.RowsAffected() != 1 {
			return disorder(account, number)
		}
		return nil
	}
}

// disorder must never happen: records of one primary key are delivered in
// order.
func disorder(account string, number int64) error {
	return fmt.Errorf("account %s: change %d does not follow the one before it", account, number)
}

// accounts reads the result of each account's changes.
func (l *ledger) accounts(ctx context.Context) (map[string]balance, error) {
	rows, _ := l.pool.Query(ctx, "select account, total, changes from accounts") // errors come with the rows
	found := make(map[string]balance)
	var account string
	var b balance
	_, err := pgx.ForEachRow(rows, []any{&account, &b.total, &b.changes}, func() error {
		found[account] = b
		return nil
	})
	if err != nil {
		return nil, fmt.Errorf("reading the accounts in schema %s: %w", l.schema, err)
	}
	return found, nil
}

// delivery counts what was delivered.
type delivery struct{ batches, changes, again int64 }

// delivered reads what was delivered to a consumer, or to all of them if
// consumer is 0.
func (l *ledger) delivered(ctx context.Context, consumer int) (d delivery, err error) {
	err = l.pool.QueryRow(ctx, "select count(*), coalesce(sum(changes), 0), coalesce(sum(again), 0) from batches where $1 in (consumer, 0)", consumer).
		Scan(&d.batches, &d.changes, &d.again)
	if err != nil {
		return d, fmt.Errorf("counting the batches in schema %s: %w", l.schema, err)
	}
	return d, nil
}
