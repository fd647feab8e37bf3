package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"strconv"
	"time"

	"github.com/ThreeDotsLabs/watermill"
	"github.com/ThreeDotsLabs/watermill/message"

	"github.com/watermill-ots/watermill-ots/batching"
	"github.com/watermill-ots/watermill-ots/router"
)

// consumerArgs are the arguments of a consumer process.
type consumerArgs struct {
	endpoint string // of Tablestore
	schema   string // in the database
	number   int    // counts the consumers, starting at 1
}

func parseConsumerArgs(args []string) (consumerArgs, error) {
	if len(args) != 3 {
		return consumerArgs{}, errors.New("usage: exactly-once consume ENDPOINT SCHEMA NUMBER")
	}
	number, err := strconv.Atoi(args[2])
	return consumerArgs{args[0], args[1], number}, err
}

// consume is the consumer: everything that a program needs to bring a table's
// changes into a database exactly once. It ends with ctx.
func consume(ctx context.Context, list []string, logger watermill.LoggerAdapter) (err error) {
	args, err := parseConsumerArgs(list)
	if err != nil {
		return err
	}
	l, err := openLedger(ctx, args.schema)
	switch {
	case err != nil && ctx.Err() != nil:
		return nil // stopped before it began
	case err != nil:
		return err
	}
	defer l.close()
	r, err := router.New(router.Config{
		Instances: map[string]router.Instance{
			"main": {Name: instance, Endpoint: args.endpoint, AccessKeyID: keyID, AccessKeySecret: keySecret},
		},
		Tunnels: map[string]router.Tunnel{"accounts": {
			Instance: "main", TableName: tableName, TunnelName: tunnelName,
			Tunnel: router.TunnelSpec{Create: true, Type: "Stream", Start: "earliest"},
			// Short, so that the next consumer gets the channels soon after a
			// kill. The defaults are 30s and 300s.
			HeartbeatInterval: 250 * time.Millisecond, HeartbeatTimeout: time.Second,
			CheckpointInterval: 500 * time.Millisecond,
			Batchers:           map[string]router.Batcher{batching.DefaultBatcher: {BatchSize: 50, BatchTimeout: 100 * time.Millisecond, Concurrency: 2}},
		}},
	}, logger)
	if err != nil {
		return err
	}
	err = r.Handle("accounts", router.Handlers{
		Batches: map[string]func(context.Context, *batching.Batch) error{
			batching.DefaultBatcher: func(ctx context.Context, b *batching.Batch) error { return l.apply(ctx, args.number, b.Messages) },
		},
		Failed: func(msg *message.Message, err error) {
			fmt.Fprintf(os.Stderr, "consumer %d: message %s is retried: %v\n", args.number, msg.UUID, err)
		},
	})
	if err != nil {
		return err
	}
	return r.Run(ctx)
}

// consumer is a running consumer process. It is for one goroutine.
type consumer struct {
	consumerArgs
	cmd   *exec.Cmd
	stdin io.Closer
	began time.Time
	ended chan struct{} // closed when the process has ended
	err   error         // how it ended; read it after ended is closed
}

// start runs this program as a consumer.
func start(args consumerArgs, verbose bool) (*consumer, error) {
	self, err := os.Executable()
	if err != nil {
		return nil, err
	}
	c := &consumer{
		consumerArgs: args,
		cmd:          exec.Command(self, "-v="+strconv.FormatBool(verbose), "consume", args.endpoint, args.schema, strconv.Itoa(args.number)),
		began:        time.Now(), ended: make(chan struct{}),
	}
	c.cmd.Stdout, c.cmd.Stderr = os.Stderr, os.Stderr
	if c.stdin, err = c.cmd.StdinPipe(); err != nil {
		return nil, err
	}
	if err := c.cmd.Start(); err != nil {
		return nil, fmt.Errorf("starting consumer %d: %w", args.number, err)
	}
	go func() { // ends with the process, which kill and finish end; both wait for it
		defer close(c.ended)
		c.err = c.cmd.Wait()
	}()
	return c, nil
}

// kill ends the process at once, with SIGKILL.
func (c *consumer) kill() error {
	err := c.cmd.Process.Kill()
	<-c.ended
	if err != nil {
		return errors.Join(c.unexpected(), err)
	}
	return nil
}

// finish makes the process drain, and waits for its end.
func (c *consumer) finish() error {
	_ = c.stdin.Close() // fails if the process has ended: then its error says more
	<-c.ended
	if c.err != nil {
		return c.unexpected()
	}
	return nil
}

// unexpected returns the error for a process that ended by itself.
func (c *consumer) unexpected() error {
	return fmt.Errorf("consumer %d ended by itself: %v", c.number, c.cmd.ProcessState)
}
