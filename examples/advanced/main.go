// Advanced adds more to the pipeline of examples/simple: middlewares, both
// Watermill's and its own, a batcher whose batches go to another Watermill
// publisher, and a failure policy. Some changes cannot be processed: they
// become dead letters after three attempts, and are replayed once the bug is
// fixed. Meanwhile a partition of the table splits.
//
//	go run ./examples/advanced
//
// needs only Go: Tablestore, SQS and S3 run inside the process. It ends by
// itself (or cleanly on Ctrl-C), and checks that each change that was written
// has arrived where it belongs: in the queue, in the bucket or on the topic of
// alerts.
//
// With AWS_ACCESS_KEY_ID (or AWS_PROFILE) and AWS_REGION set, it creates the
// queue and the bucket in AWS, with unique names, and deletes them at the end.
package main

import (
	"context"
	_ "embed"
	"errors"
	"fmt"
	"os"
	"time"

	"github.com/ThreeDotsLabs/watermill"
	"github.com/ThreeDotsLabs/watermill/message"
	"github.com/ThreeDotsLabs/watermill/message/router/middleware"
	"github.com/ThreeDotsLabs/watermill/pubsub/gochannel"

	"github.com/watermill-ots/watermill-ots/batching"
	"github.com/watermill-ots/watermill-ots/examples/simple/console"
	"github.com/watermill-ots/watermill-ots/examples/simple/pxytest"
	"github.com/watermill-ots/watermill-ots/examples/simple/sinks"
	"github.com/watermill-ots/watermill-ots/router"
)

//go:embed pipelines.yaml
var pipelines []byte

func main() { console.Main("advanced", 5*time.Second, run) }

// example is the state of one run.
type example struct {
	out    *console.Console
	table  *pxytest.Table
	sinks  *sinks.Sinks
	router *router.Router

	events          *gochannel.GoChannel // any Watermill publisher works here
	alerts, letters *topic

	processor processor
	ages      ages
	failures  failures
	replayed  int // dead letters that were handled in the end
}

func run(ctx context.Context, duration time.Duration, logger watermill.LoggerAdapter) (err error) {
	e := &example{out: console.New(os.Stdout)}
	if e.table, err = pxytest.Start(); err != nil {
		return err
	}
	defer func() { err = errors.Join(err, e.table.Close()) }()
	if e.sinks, err = sinks.Open(ctx); err != nil {
		return err
	}
	defer func() { err = errors.Join(err, e.sinks.Close(context.WithoutCancel(ctx))) }()
	e.out.Banner(e.table.Endpoint()+", pxy_test/add2 (emulator inside this process)", e.sinks.String())

	// A slow subscriber must not lose what the pipeline has published, so
	// publishing blocks.
	e.events = gochannel.NewGoChannel(gochannel.Config{OutputChannelBuffer: 64, BlockPublishUntilSubscriberAck: true}, logger)
	if e.alerts, err = follow(e.events, "alerts", e.out.Done); err != nil {
		return err
	}
	if e.letters, err = follow(e.events, "dead-letters", e.out.Done); err != nil {
		return err
	}
	if err := e.assemble(logger); err != nil {
		return err
	}
	ran := make(chan error, 1)
	go func() { ran <- e.router.Run(context.Background()) }() // ends with Close below
	select {
	case <-e.router.Running():
	case err := <-ran:
		return err
	}

	err = e.work(ctx, duration)
	interrupted := ctx.Err() != nil
	if interrupted {
		e.out.Printf("\nInterrupted: finishing what is in flight, committing, disconnecting.\n")
	} else {
		e.out.Printf("\nAll written, all handled: committing, disconnecting.\n")
	}
	if err := errors.Join(err, e.router.Close(), <-ran, e.events.Close()); err != nil {
		return err
	}
	e.alerts.wait()
	e.letters.wait()
	return e.check(context.WithoutCancel(ctx), interrupted)
}

// assemble creates the router and passes by name what the file cannot contain.
func (e *example) assemble(logger watermill.LoggerAdapter) error {
	cfg, err := router.Parse("pipelines.yaml", pipelines)
	if err != nil {
		return err
	}
	if e.router, err = router.New(cfg, logger); err != nil {
		return err
	}
	if err := e.router.RegisterPublisher("events", e.events); err != nil {
		return err
	}
	e.router.AddMiddleware(middleware.CorrelationID, middleware.Recoverer) // for all pipelines
	return e.router.Handle("customer_example", router.Handlers{
		Process: e.processor.process,
		Batches: map[string]func(context.Context, *batching.Batch) error{
			"sqs": e.out.Batch(e.sinks.Queue.Send),
			"s3":  e.out.Batch(e.sinks.Bucket.Put),
		},
		Failed:      e.failures.failed,
		Middlewares: []message.HandlerMiddleware{e.ages.Middleware}, // for this one
	})
}

// work writes, splits a partition half way, and replays the dead letters once
// all other messages are handled.
func (e *example) work(ctx context.Context, duration time.Duration) error {
	if err := e.table.Write(ctx, duration/2); err != nil {
		return err
	}
	if err := e.table.Split(); err != nil {
		return err
	}
	e.out.Event("a partition of the table is split: its channel ends, two others continue")
	if err := e.table.Write(ctx, duration/2); err != nil {
		return err
	}
	if err := e.out.WaitHandled(ctx, len(e.table.Written()), 30*time.Second); err != nil || ctx.Err() != nil {
		return err
	}
	e.processor.fixed.Store(true)
	return e.replay(ctx)
}

// replay sends the dead letters through the pipeline once more, in batches.
func (e *example) replay(ctx context.Context) error {
	letters := e.letters.all()
	if len(letters) == 0 {
		return nil
	}
	first, err := router.ParseDeadLetter(letters[0].Payload)
	if err != nil {
		return err
	}
	e.out.Event("%d dead letters; the first: key %s, %d attempts, %s", len(letters), first.Key, first.Attempts, first.Error)
	e.out.Event("the bug is fixed: they are replayed")
	errs := e.router.ReplayMessages(ctx, letters...)
	for _, err := range errs {
		if err == nil {
			e.replayed++
		}
	}
	return errors.Join(errs...)
}

// check prints the closing table and compares what was written with what is in
// the queue, in the bucket and on the topics. An interrupted run may leave
// changes behind, but only those that were not handled, and dead letters that
// were not replayed.
func (e *example) check(ctx context.Context, interrupted bool) error {
	report, err := e.sinks.Check(ctx, e.table.Written(), sinkOf)
	if err != nil {
		return err
	}
	written, handled := len(e.table.Written()), e.out.Handled()
	alerts, letters := distinct(e.alerts.all()), distinct(e.letters.all())
	left := written - report.SQS - report.S3 - alerts - (letters - e.replayed)
	e.out.Printf("\n")
	e.out.Row("changes written", "%d", written)
	e.out.Row("handled", "%d", handled)
	e.out.Row("found in SQS", "%d", report.SQS)
	e.out.Row("found in S3", "%d", report.S3)
	e.out.Row("topic alerts", "%d", alerts)
	e.out.Row("dead letters", "%d after %d failed attempts, %d replayed", letters, e.failures.n.Load(), e.replayed)
	e.out.Row("left in the tunnel", "%d", left)
	e.out.Row("write to done", "%v in the median, batching included", e.ages.median().Round(time.Millisecond))
	if left != written-handled || !interrupted && (left != 0 || letters != e.replayed || report.Missing != 0) {
		return fmt.Errorf("of %d changes written %d were handled, but %d have not arrived", written, handled, left)
	}
	e.out.Printf("\nEach change that was handled arrived once, where it belongs, and changes of a row came out of the queue in order.\n")
	return nil
}
