// Package forward is the common part of the examples to-nats, to-redis,
// to-rabbitmq, to-postgres, to-kafka and to-http: a table of orders in a
// Tablestore inside the process, a writer to that table, a Watermill Router
// that forwards each change to the example's publisher, and the comparison of
// what a consumer receives from the broker with what was written to the table.
//
//	table ── tunnel ──▶ subscriber ──▶ Router ──▶ publisher ──▶ broker ──▶ consumer
//	  └───────────────────────── compared with ─────────────────────────────┘
//
// Every change must arrive, with the payload that the subscriber gave it, and
// the changes of each order in order. Meanwhile a partition of the table
// splits, and some of the broker's responses are lost (simulated): those
// changes are published again and arrive twice with the same UUID.
package forward

import (
	"cmp"
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"log/slog"
	"os"
	"os/signal"
	"strings"
	"syscall"
	"time"

	"github.com/ThreeDotsLabs/watermill"
	"github.com/ThreeDotsLabs/watermill/message"

	"github.com/watermill-ots/watermill-ots/examples/cli"
	"github.com/watermill-ots/watermill-ots/subscriber"
)

// limit is how long a step may take after the writes.
const limit = 30 * time.Second

// Main is an example's main function. name is the example's name; open connects
// to its broker and creates what it needs there.
func Main(name string, open func(ctx context.Context, b *Broker) error) {
	orders := flag.Int("orders", 100, "how many orders are written")
	changes := flag.Int("changes", 10, "how many changes each order has")
	verbose := flag.Bool("v", false, "log what the library and the publisher do")
	cli.ParseFlags()
	if *orders < 2 || *changes < 1 {
		fmt.Fprintf(os.Stderr, "%s: -orders must be 2 or more, -changes 1 or more\n", name)
		os.Exit(2)
	}
	var logger watermill.LoggerAdapter = watermill.NopLogger{}
	if *verbose {
		logger = watermill.NewSlogLogger(slog.New(slog.NewTextHandler(os.Stderr, &slog.HandlerOptions{Level: slog.LevelDebug})))
	}
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	context.AfterFunc(ctx, stop) // a second signal ends the program at once
	if err := run(ctx, *orders, *changes, logger, open); err != nil {
		fmt.Fprintf(os.Stderr, "%s: %v\n", name, err)
		os.Exit(1)
	}
}

func run(
	ctx context.Context, orders, changes int, logger watermill.LoggerAdapter, open func(context.Context, *Broker) error,
) (err error) {
	b := newBroker(logger)
	defer func() { err = errors.Join(err, b.end()) }()
	if err := open(ctx, b); err != nil {
		return err
	}
	t, err := startTable(orders)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, t.Close()) }()
	fmt.Printf("from  table and tunnel %s (emulator inside this process)\nto    %s\n\n", topic, b.Server)

	// Both ends: write to the table, read from the broker.
	l := newLedger()
	working, fail := context.WithCancelCause(context.Background()) // ends with the comparison, or early if something fails
	defer fail(nil)
	reading, stopReading := context.WithCancel(working)
	read := make(chan struct{})
	go func() { // ends with stopReading
		defer close(read)
		if err := b.Read(reading, l.got); reading.Err() == nil {
			fail(fmt.Errorf("reading from %s ended early: %w", b.Server, cmp.Or(err, io.ErrUnexpectedEOF)))
		}
	}()
	defer func() { stopReading(); <-read }()
	router, ran, err := startRouter(t, b, l, fail)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, router.Close(), <-ran) }() // closed below, unless something fails
	stopShowing := show(l)
	defer stopShowing()
	interrupted, err := bridge(ctx, working, t, l, orders, changes)
	if err != nil {
		return err
	}
	if err := router.Close(); err != nil { // drains, commits, disconnects
		return err
	}

	// What the server has accepted can be read.
	err = l.wait(working, limit, "read back", func(c counts) bool {
		return c.unread == 0 && (b.DropsDuplicates || c.arrived >= c.published)
	})
	stopShowing()
	if interrupted {
		fmt.Print("\nInterrupted: what was in flight is finished and committed.\n")
	}
	return errors.Join(err, report(l, b, orders, interrupted))
}

// startRouter starts the Router between a subscription to the table's changes
// and the broker's publisher. The Router's end is sent to ran.
func startRouter(t *table, b *Broker, l *ledger, fail context.CancelCauseFunc) (router *message.Router, ran <-chan error, err error) {
	sub, err := subscriber.New(t.config(), b.Logger)
	if err != nil {
		return nil, nil, err
	}
	if err := sub.SubscribeInitialize(topic); err != nil {
		return nil, nil, err
	}
	router, err = message.NewRouter(message.RouterConfig{CloseTimeout: limit}, b.Logger)
	if err != nil {
		return nil, nil, err
	}
	router.AddHandler("forward", topic, sub, b.Topic, losing{b.Publisher, l}, l.delivered)
	end := make(chan error, 1)
	go func() { // ends with router.Close
		err := router.Run(context.Background())
		if err != nil {
			fail(err)
		}
		end <- err
		close(end)
	}()
	select {
	case <-router.Running():
		return router, end, nil
	case err := <-end:
		return nil, nil, err
	}
}

// bridge writes the orders and waits until each change is forwarded. The end of
// ctx, an interrupt, ends it early.
func bridge(ctx, working context.Context, t *table, l *ledger, orders, changes int) (interrupted bool, err error) {
	both, cancel := context.WithCancelCause(working)
	defer cancel(nil)
	defer context.AfterFunc(ctx, func() { cancel(errInterrupted) })()
	err = t.write(both, orders, changes, l.wrote)
	if err == nil {
		err = l.wait(both, limit, "forwarded", func(c counts) bool { return c.forwarded >= c.written })
	}
	if errors.Is(err, errInterrupted) {
		return true, nil
	}
	return false, err
}

var errInterrupted = errors.New("interrupted")

// show prints progress until stop is called, and then a last line.
func show(l *ledger) (stop func()) {
	began := time.Now()
	line := func() {
		c := l.counts()
		fmt.Printf("%5.1fs  written %5d  forwarded %5d  read back %5d\n", time.Since(began).Seconds(), c.written, c.forwarded, c.distinct)
	}
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan struct{})
	go func() { // ends with stop
		defer close(done)
		every := time.NewTicker(250 * time.Millisecond)
		defer every.Stop()
		for {
			select {
			case <-every.C:
				line()
			case <-ctx.Done():
				line()
				return
			}
		}
	}()
	return func() { cancel(); <-done }
}

// report prints the closing table and returns what is wrong. An interrupted run
// may leave changes behind, but only those that were not forwarded.
func report(l *ledger, b *Broker, orders int, interrupted bool) error {
	c, v := l.counts(), l.compare()
	row := func(name, format string, args ...any) {
		fmt.Printf("  %-18s %s\n", name, fmt.Sprintf(format, args...))
	}
	fmt.Println()
	row("changes written", "%d, to %d orders", c.written, orders)
	row("forwarded", "%d", c.forwarded)
	row("responses lost", "%d, simulated: published again", c.lost)
	row("read back", "%d", c.arrived)
	if b.DropsDuplicates {
		row("duplicates", "%d, the server drops them by their UUID", v.duplicates)
	} else {
		row("duplicates", "%d, recognized by their UUID", v.duplicates)
	}
	row("left in the tunnel", "%d", c.written-c.forwarded)
	if !interrupted && v.missing > 0 || v.missing > c.written-c.forwarded {
		v.fault("%d changes were written and %d forwarded, but %d are missing", c.written, c.forwarded, v.missing)
	}
	if len(v.faults) > 0 {
		return errors.New("what was read back is not what was written:\n  " + strings.Join(v.faults, "\n  "))
	}
	fmt.Printf("\nEach forwarded change arrived with its payload, and those of an order arrived in order.\n")
	return nil
}
