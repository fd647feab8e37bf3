// Exactly-once brings each change of a table into PostgreSQL exactly once, and those of a
// row in order, although the process that does it is killed again and again, with
// SIGKILL, at random moments.
//
//	DATABASE_URL=postgres://postgres@127.0.0.1:5432/test go run ./examples/exactly-once
//
// needs a PostgreSQL; Tablestore runs inside the process. It makes a schema of its own there and
// drops it in the end.
//
// A tunnel delivers at least once: after a kill, changes come again that were handled but
// not yet committed at the tunnel. A message's UUID is the same each time, so the consumer keeps an
// inbox, a table of the UUIDs that it has seen. One transaction for each batch puts the UUIDs into
// the inbox and adds up the changes whose UUID was new there (ledger.go). Either both
// are stored or none, whenever the kill comes; there is nothing to repair at the start.
//
// The program writes to the table, starts the consumer as a process of its own, kills it,
// and starts it again. Meanwhile a partition of the table splits, and Tablestore is
// stopped and started on its data directory. In the end it compares the sum of each
// account in PostgreSQL with the one in the table.
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
)

func main() {
	kills := flag.Int("kills", 6, "how often the consumer is killed")
	seed := flag.Uint64("seed", 0, "of the random moments; 0: another one each time")
	verbose := flag.Bool("v", false, "log what the library does")
	flag.Parse()
	var logger watermill.LoggerAdapter = watermill.NopLogger{}
	if *verbose {
		logger = watermill.NewSlogLogger(slog.New(slog.NewTextHandler(os.Stderr, &slog.HandlerOptions{Level: slog.LevelDebug})))
	}

	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	context.AfterFunc(ctx, stop) // a second signal ends the program at once
	var err error
	if flag.Arg(0) == "consume" { // see start
		go func() { // ends with the process at the latest
			_, _ = io.Copy(io.Discard, os.Stdin) // until whoever started the consumer closes it, or has died
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
		return errors.New("DATABASE_URL is not set: give the PostgreSQL to write to, such as postgres://postgres@127.0.0.1:5432/test")
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
