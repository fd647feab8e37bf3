// Simple sends the changes of a table to SQS and to S3, with one YAML file and
// one Handlers value: changes with an even value go to a queue, in batches of
// 20, two batches at once; those with an odd one go to a bucket, one batch at a
// time.
//
//	go run ./examples/simple
//
// needs only Go: Tablestore, SQS and S3 run inside the process. It writes to
// the table for a few seconds, ends by itself (or cleanly on Ctrl-C), and
// checks that what has arrived in the queue and the bucket is what was written.
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

	"github.com/watermill-ots/watermill-ots/batching"
	"github.com/watermill-ots/watermill-ots/examples/simple/console"
	"github.com/watermill-ots/watermill-ots/examples/simple/pxytest"
	"github.com/watermill-ots/watermill-ots/examples/simple/sinks"
	"github.com/watermill-ots/watermill-ots/router"
)

//go:embed pipelines.yaml
var pipelines []byte

func main() { console.Main("simple", 6*time.Second, run) }

func run(ctx context.Context, duration time.Duration, logger watermill.LoggerAdapter) (err error) {
	table, err := pxytest.Start()
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, table.Close()) }()
	ends, err := sinks.Open(ctx)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, ends.Close(context.WithoutCancel(ctx))) }()
	out := console.New(os.Stdout)
	out.Banner(table.Endpoint()+", pxy_test/add2 (emulator inside this process)", ends.String())

	// The pipeline: the file says how, the handlers say what.
	cfg, err := router.Parse("pipelines.yaml", pipelines)
	if err != nil {
		return err
	}
	r, err := router.New(cfg, logger)
	if err != nil {
		return err
	}
	err = r.Handle("customer_example", router.Handlers{
		Process: process,
		Batches: map[string]func(context.Context, *batching.Batch) error{
			"sqs": out.Batch(ends.Queue.Send),
			"s3":  out.Batch(ends.Bucket.Put),
		},
	})
	if err != nil {
		return err
	}
	ran := make(chan error, 1)
	go func() { ran <- r.Run(context.Background()) }() // ends with r.Close below
	select {
	case <-r.Running():
	case err := <-ran:
		return err
	}

	// The other side: write to the table.
	err = table.Write(ctx, duration)
	if err == nil {
		err = out.WaitHandled(ctx, len(table.Written()), 30*time.Second)
	}
	interrupted := ctx.Err() != nil
	if interrupted {
		out.Printf("\nInterrupted: finishing what is in flight, committing, disconnecting.\n")
	} else {
		out.Printf("\nAll written, all handled: committing, disconnecting.\n")
	}
	if err := errors.Join(err, r.Close(), <-ran); err != nil {
		return err
	}
	return check(context.WithoutCancel(ctx), out, table, ends, interrupted)
}

// process is called for each message and chooses the batcher.
func process(msg *message.Message) error {
	row, err := pxytest.RowOf(msg)
	if err != nil {
		return err
	}
	batching.SetBatcher(msg, batcherOf(row))
	return nil
}

func batcherOf(row pxytest.Row) string {
	if row.Value%2 == 0 {
		return "sqs"
	}
	return "s3"
}

// check prints the closing table, whose figures come from the queue and the
// bucket. An interrupted run may leave changes behind, but only those that were
// not handled.
func check(ctx context.Context, out *console.Console, table *pxytest.Table, ends *sinks.Sinks, interrupted bool) error {
	report, err := ends.Check(ctx, table.Written(), batcherOf)
	if err != nil {
		return err
	}
	written, handled := len(table.Written()), out.Handled()
	out.Printf("\n")
	out.Row("changes written", "%d", written)
	out.Row("handled", "%d in %d batches", handled, out.Batches())
	out.Row("found in SQS", "%d", report.SQS)
	out.Row("found in S3", "%d", report.S3)
	out.Row("left in the tunnel", "%d", report.Missing)
	if report.Missing != written-handled || handled < written && !interrupted {
		return fmt.Errorf("%d changes were written and %d handled, but %d are missing", written, handled, report.Missing)
	}
	out.Printf("\nEach change that was handled arrived once, where it belongs, and changes of a row came out of the queue in order.\n")
	return nil
}
