// To-postgres forwards the changes of a table to a PostgreSQL table, with a
// Watermill Router and Watermill's SQL publisher, and compares what a
// subscriber receives from there with what was written.
//
//	DATABASE_URL=postgres://postgres@127.0.0.1:5432/postgres go run ./examples/to-postgres
//
// That URL is also the default. PostgreSQL cannot run inside the process, so a
// server must run there. The example creates two tables, for the messages and
// for the subscriber's position, and drops them at the end. The Tablestore is
// inside the process. It ends by itself, or cleanly on Ctrl-C.
package main

import (
	"cmp"
	"context"
	"fmt"
	"os"
	"strings"
	"time"

	wmsql "github.com/ThreeDotsLabs/watermill-sql/v4/pkg/sql"
	"github.com/jackc/pgx/v5/pgxpool"

	"github.com/watermill-ots/watermill-ots/examples/forward"
)

func main() { forward.Main("to-postgres", open) }

func open(ctx context.Context, b *forward.Broker) error {
	config, err := pgxpool.ParseConfig(cmp.Or(os.Getenv("DATABASE_URL"), "postgres://postgres@127.0.0.1:5432/postgres"))
	if err != nil { // without the password
		return fmt.Errorf("DATABASE_URL: %w", err)
	}
	config.MaxConns = 16 // number of changes that are inserted side by side
	pool, err := pgxpool.NewWithConfig(ctx, config)
	if err != nil {
		return err
	}
	b.AtEnd(func(context.Context) error { pool.Close(); return nil })
	at := fmt.Sprintf("%s:%d", config.ConnConfig.Host, config.ConnConfig.Port)
	var version string
	if err := pool.QueryRow(ctx, "select split_part(current_setting('server_version'), ' ', 1)").Scan(&version); err != nil {
		attempts := strings.Split(err.Error(), "\n") // one line each
		return fmt.Errorf("cannot use PostgreSQL at %s: set DATABASE_URL, such as postgres://user:password@host:5432/database (%s)",
			at, strings.TrimSpace(attempts[len(attempts)-1]))
	}

	db := wmsql.BeginnerFromPgx(pool)
	schema, offsets := wmsql.DefaultPostgreSQLSchema{}, wmsql.DefaultPostgreSQLOffsetsAdapter{}
	sub, err := wmsql.NewSubscriber(db, wmsql.SubscriberConfig{
		SchemaAdapter: schema, OffsetsAdapter: offsets, PollInterval: 50 * time.Millisecond,
	}, b.Logger)
	if err != nil {
		return err
	}
	b.AtEnd(func(context.Context) error { return sub.Close() })
	b.AtEnd(func(ctx context.Context) error {
		_, err := pool.Exec(ctx, fmt.Sprintf("drop table if exists %s, %s", schema.MessagesTable(b.Name), offsets.MessagesOffsetsTable(b.Name)))
		return err
	})
	if err := sub.SubscribeInitialize(b.Name); err != nil { // creates both tables
		return fmt.Errorf("create the tables of %s: %w", b.Name, err)
	}
	b.Server = fmt.Sprintf("PostgreSQL %s, %s, database %s, table %s", version, at, config.ConnConfig.Database, schema.MessagesTable(b.Name))

	// Each change is a separate transaction, acked by its commit. If that is
	// too slow, batching.PublishTo inserts the rows of a batch with one
	// statement.
	b.Publisher, err = wmsql.NewPublisher(db, wmsql.PublisherConfig{SchemaAdapter: schema}, b.Logger)

	// Order per key costs delays: rows are read in the order of their
	// transactions, so a transaction that stays open anywhere in the database
	// holds back all later rows.
	b.Read = func(ctx context.Context, got func(string, []byte)) error { return read(ctx, sub, b.Name, got) }
	return err
}

func read(ctx context.Context, sub *wmsql.Subscriber, topic string, got func(uuid string, payload []byte)) error {
	messages, err := sub.Subscribe(ctx, topic)
	if err != nil {
		return err
	}
	for msg := range messages { // until ctx ends
		got(msg.UUID, msg.Payload)
		msg.Ack()
	}
	return nil
}
