package laws

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"os/signal"
	"runtime"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/ThreeDotsLabs/watermill"
	"github.com/ThreeDotsLabs/watermill/message"
	"github.com/cenkalti/backoff/v4"
	"go.uber.org/goleak"

	"github.com/watermill-ots/watermill-ots/batching"
	"github.com/watermill-ots/watermill-ots/internal/testbed"
	"github.com/watermill-ots/watermill-ots/ots"
	"github.com/watermill-ots/watermill-ots/subscriber"
)

// The test binary is also the consumer process of the tests, if envConsumer
// holds its configuration.
const envConsumer = "LAWS_CONSUMER"

// mode is what a consumer process does with its messages.
type mode string

const (
	plain     mode = "plain"     // OrderByKey
	byChannel mode = "bychannel" // OrderByChannel
	batched   mode = "batched"   // the batching middleware, OrderByKey
)

// consumer is the configuration of a consumer process.
type consumer struct {
	number   int
	endpoint string
	log      string
	mode     mode
	ownLoop  bool // Subscriber.Handle instead of a Router
	trouble  bool // its handlers fail, panic and stall sometimes
}

// looksUp reports whether the process looks up the row of each record. Half of them do.
func (c consumer) looksUp() bool { return c.number%2 == 1 }

func (c consumer) env() string {
	return fmt.Sprintf("%s=%d %s %s %s %t %t", envConsumer, c.number, c.endpoint, c.log, c.mode, c.ownLoop, c.trouble)
}

func TestMain(m *testing.M) {
	if spec := os.Getenv(envConsumer); spec != "" {
		var c consumer
		if _, err := fmt.Sscanf(spec, "%d %s %s %s %t %t", &c.number, &c.endpoint, &c.log, &c.mode, &c.ownLoop, &c.trouble); err != nil {
			fmt.Fprintln(os.Stderr, "consumer:", err)
			os.Exit(2)
		}
		if err := c.run(); err != nil {
			fmt.Fprintln(os.Stderr, "consumer:", err)
			if couldNotSubscribe(err) {
				os.Exit(exitNoService)
			}
			os.Exit(1)
		}
		os.Exit(0)
	}
	if spec := os.Getenv(envWorker); spec != "" {
		var w pipelineWorker
		if err := json.Unmarshal([]byte(spec), &w); err != nil {
			fmt.Fprintln(os.Stderr, "worker:", err)
			os.Exit(2)
		}
		os.Exit(w.main())
	}
	goleak.VerifyTestMain(m)
}

const (
	// noService is a part of the error of a consumer that could not subscribe,
	// in the Router's words.
	noService = "cannot subscribe"
	// exitNoService is the exit code of such a consumer.
	exitNoService = 3
)

func couldNotSubscribe(err error) bool { return err != nil && strings.Contains(err.Error(), noService) }

// maxHeap bounds a consumer's memory (law L6): the window is 256 records.
const maxHeap = 128 << 20

// consuming is printed by a consumer process once a SIGTERM makes it end
// cleanly.
const consuming = "consuming\n"

// run is the consumer process: it handles the tunnel's messages until SIGTERM,
// and appends a line to the common log for each handled record, before its ack.
// It returns an error if something is left behind.
func (c consumer) run() error {
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGTERM)
	defer stop()
	fmt.Print(consuming)
	log, err := os.OpenFile(c.log, os.O_APPEND|os.O_WRONLY, 0)
	if err != nil {
		return err
	}
	defer log.Close()
	cfg := testbed.Config(c.endpoint)
	cfg.MaxInFlight = 256
	cfg.NackBackoff = func() backoff.BackOff { return backoff.NewConstantBackOff(10 * time.Millisecond) }
	if c.mode == byChannel {
		cfg.Ordering = subscriber.OrderByChannel
	}
	if c.looksUp() {
		cfg.Lookup = subscriber.LookupAlways
	}
	sub, err := subscriber.New(cfg, watermill.NewStdLogger(os.Getenv("LAWS_DEBUG") != "", false))
	if err != nil {
		return err
	}
	handler, closeBatches, err := c.handler(func(msg *message.Message) error {
		if r, ok := ots.RecordFromMessage(msg); c.looksUp() && (!ok || r.RowState == ots.RowUnknown) {
			return errors.New("the record was delivered before its row was looked up")
		}
		h, err := c.handledOf(msg)
		if err == nil {
			_, err = log.WriteString(h.line())
		}
		return err
	})
	if err != nil {
		return err
	}
	for sub.SubscribeInitialize(testbed.Topic) != nil && ctx.Err() == nil { // the service may be unavailable for a moment
		time.Sleep(50 * time.Millisecond)
	}
	consume := byRouter
	if c.ownLoop {
		consume = byHandle
	}
	err = consume(ctx, sub, handler)
	if ctx.Err() != nil && couldNotSubscribe(err) { // it was stopped before it began
		err = nil
	}
	err = errors.Join(err, closeBatches(), sub.Close())
	stop()
	signal.Reset()
	var mem runtime.MemStats
	runtime.ReadMemStats(&mem)
	if mem.HeapSys > maxHeap {
		err = errors.Join(err, fmt.Errorf("L6: the heap grew to %d MiB", mem.HeapSys>>20))
	}
	return errors.Join(err, goleak.Find(goleak.IgnoreTopFunction("os/signal.loop"), goleak.IgnoreTopFunction("os/signal.signal_recv")))
}

// byRouter consumes with Watermill's Router until ctx ends.
func byRouter(ctx context.Context, sub *subscriber.Subscriber, h message.NoPublishHandlerFunc) error {
	router, err := message.NewRouter(message.RouterConfig{CloseTimeout: 10 * time.Second}, watermill.NopLogger{})
	if err != nil {
		return err
	}
	router.AddConsumerHandler("log", testbed.Topic, sub, h)
	return router.Run(ctx)
}

// byHandle consumes with the subscriber's own loop until ctx ends.
func byHandle(ctx context.Context, sub *subscriber.Subscriber, h message.NoPublishHandlerFunc) error {
	done, err := sub.Handle(ctx, testbed.Topic, h)
	if err != nil {
		return fmt.Errorf("%s: %w", noService, err)
	}
	<-done
	return nil
}

// handler returns the handler of the mode, which works and then writes, and a
// function that ends its batches.
func (c consumer) handler(write func(*message.Message) error) (h message.NoPublishHandlerFunc, closeBatches func() error, err error) {
	if c.mode != batched {
		return func(msg *message.Message) error {
			if err := c.work(); err != nil {
				return err
			}
			return write(msg)
		}, func() error { return nil }, nil
	}
	batches, err := batching.New(batching.Config{Batchers: map[string]batching.Batcher{"default": {
		Size: 20, Timeout: 50 * time.Millisecond, Concurrency: 4,
		Handler: func(_ context.Context, b *batching.Batch) error {
			if err := c.work(); err != nil {
				return err
			}
			for _, msg := range b.Messages {
				if c.trouble && rand.IntN(100) == 0 {
					b.Fail(msg, errTrouble)
					// A later change of its key must not be handled before it:
					// as every batch handler must, it leaves out the rest of
					// the key.
					failKey(b, msg)
					return nil
				}
				if err := write(msg); err != nil {
					return err
				}
			}
			return nil
		},
	}}}, nil)
	if err != nil {
		return nil, nil, err
	}
	wait := batches.Middleware(func(*message.Message) ([]*message.Message, error) { return nil, nil })
	return func(msg *message.Message) error {
		_, err := wait(msg)
		return err
	}, batches.Close, nil
}

// failKey fails msg and the rest of its key in the batch.
func failKey(b *batching.Batch, msg *message.Message) {
	failing := false
	for _, m := range b.Messages {
		failing = failing || m == msg
		if failing && m != msg {
			b.Fail(m, errTrouble)
		}
	}
}

var errTrouble = errors.New("simulated")

// work is what a handler does before it is done: it takes a while, and with
// trouble it fails, panics or stalls sometimes.
func (c consumer) work() error {
	longest := 2000
	if c.mode == byChannel { // one at a time
		longest = 300
	}
	time.Sleep(time.Duration(rand.IntN(longest)) * time.Microsecond)
	if !c.trouble {
		return nil
	}
	switch n := rand.IntN(1000); {
	case n < 15:
		return errTrouble
	case n < 20:
		panic("simulated")
	case n < 23 && c.mode != byChannel:
		time.Sleep(time.Duration(rand.IntN(700)) * time.Millisecond)
	}
	return nil
}
