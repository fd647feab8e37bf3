// Exactly-once brings each change of a table into PostgreSQL exactly once, and
// the changes of a row in order, although the process that does it is killed
// repeatedly, with SIGKILL, at random moments.
//
//	DATABASE_URL=postgres://postgres@127.0.0.1:5432/test go run ./examples/exactly-once
//
// needs a PostgreSQL; Tablestore runs inside the process. It creates its own
// schema there and drops it at the end.
//
// A tunnel delivers at least once: after a kill, changes are redelivered that
// were handled but not yet committed to the tunnel. A message's UUID is the
// same each time, so the consumer keeps an inbox, a table of the UUIDs that it
// has seen. One transaction for each batch adds the UUIDs to the inbox and adds
// up the changes whose UUIDs were new there (ledger.go). Either both are stored
// or none, whenever the kill happens; there is nothing to repair at the start.
//
// The program writes to the table, starts the consumer as a separate process,
// kills it, and starts it again. Meanwhile a partition of the table splits, and
// Tablestore is stopped and restarted with its data directory. At the end it
// compares the sum of each account in PostgreSQL with the sum in the table.
package main

import (
	"context"
	"crypto/rand"
	"errors"
	"flag"
	"fmt"
	"io"
	"log/slog"
	"os"
	"os/signal"
	"strings"
	"syscall"

	"github.com/ThreeDotsLabs/watermill"

	"github.com/watermill-ots/watermill-ots/examples/cli"
)

func main() {
	kills := flag.Int("kills", 6, "how often the consumer is killed")
	seed := flag.Uint64("seed", 0, "seed of the random moments; 0: a different one each time")
	verbose := flag.Bool("v", false, "log what the library does")
	cli.ParseFlags()
	var logger watermill.LoggerAdapter = watermill.NopLogger{}
	if *verbose {
		logger = watermill.NewSlogLogger(slog.New(slog.NewTextHandler(os.Stderr, &slog.HandlerOptions{Level: slog.LevelDebug})))
	}

	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	context.AfterFunc(ctx, stop) // a second signal ends the program at once
	var err error
	if flag.Arg(0) == "consume" { // see start
		go func() { // ends with the process at the latest
			_, _ = io.Copy(io.Discard, os.Stdin) // until the program that started the consumer closes it or dies
			stop()
		}()
		err = consume(ctx, flag.Args()[1:], logger)
	} else {
		err = run(ctx, *kills, *seed, *verbose)
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, "exactly-once:", err)
		os.Exit(1)
	}
}

func run(ctx context.Context, kills int, seed uint64, verbose bool) (err error) {
	if kills < 0 {
		return fmt.Errorf("-kills is %d; it must be at least 0", kills)
	}
	if os.Getenv("DATABASE_URL") == "" {
		return errors.New("DATABASE_URL is not set: set it to the PostgreSQL to write to, such as postgres://postgres@127.0.0.1:5432/test")
	}
	schema := "exactly_once_" + strings.ToLower(rand.Text()[:10])
	l, err := openLedger(ctx, schema)
	if err != nil {
		return err
	}
	defer l.close()
	if err := l.create(ctx); err != nil {
		return err
	}
	defer func() { err = errors.Join(err, l.drop(context.WithoutCancel(ctx))) }()
	b, err := openBank()
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, b.close()) }()
	return newTrial(l, b, kills, seed, verbose).run(ctx)
}
