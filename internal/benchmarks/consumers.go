package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"
	"time"

	"github.com/ThreeDotsLabs/watermill"
	"github.com/ThreeDotsLabs/watermill/message"
	"github.com/aliyun/aliyun-tablestore-go-sdk/tunnel"
	"go.uber.org/zap"
	"go.uber.org/zap/zapcore"

	"github.com/watermill-ots/watermill-ots/batching"
	"github.com/watermill-ots/watermill-ots/ots"
	"github.com/watermill-ots/watermill-ots/router"
	"github.com/watermill-ots/watermill-ots/subscriber"
)

const (
	instance = "bench"
	topic    = "bench/bench"
)

// consumer is one way to consume a tunnel. run consumes until ctx ends and
// calls m.done for each record.
type consumer struct {
	name, what string
	run        func(ctx context.Context, endpoint string, m *meter) error
}

// consumers are in the order of the tables.
var consumers = []consumer{
	{"sdk", "official SDK alone, empty callback", runSDK},
	{"glue", "hand-written glue: SDK → JSON → Watermill Router", runGlue},
	{"json", "ours → Router, JSON payload", ours(subscriber.JSON{}, throughRouter)},
	{"raw", "ours → Router, PlainBuffer payload", ours(subscriber.Raw{}, throughRouter)},
	{"lazy", "ours → Router, no payload, a column of the typed record", ours(subscriber.None{}, throughRouterTyped)},
	{"batch", "ours → Router → batches of 100, JSON", ours(subscriber.JSON{}, throughBatches)},
	{"pipeline", "ours, a pipeline of package router, JSON", runPipeline},
	{"batches", "the same with batches of 100", runPipelineWithBatches},
	{"waiting", "the same with a middleware that needs the outcome of each message", runPipelineWaiting},
	{"lookup", "pipeline with lookup: updates", runPipelineLookingUp},
	{"whole", "ours → Subscriber.Handle, JSON, with LookupUpdates", runWhole},
	{"handle", "ours → Subscriber.Handle, JSON", ours(subscriber.JSON{}, throughHandle)},
	{"limit", "no library: pages read and their checksums verified, nothing made of them", runLimit},
	{"held", "ours without a Router, with a fixed number of unacked messages", runHeld},
	{"bare", "ours without a Router, no payload", ours(subscriber.None{}, withoutRouter)},
}

func consumerNamed(name string) (consumer, error) {
	i := slices.IndexFunc(consumers, func(c consumer) bool { return c.name == name })
	if i < 0 {
		return consumer{}, fmt.Errorf("there is no consumer %q", name)
	}
	return consumers[i], nil
}

// runSDK is the official SDK as users use it: with a callback for each page.
func runSDK(ctx context.Context, endpoint string, m *meter) error {
	return sdkWorker(ctx, endpoint, func(records []*tunnel.Record) error {
		for _, r := range records {
			m.done(r.Timestamp)
		}
		return nil
	})
}

func sdkWorker(ctx context.Context, endpoint string, process func([]*tunnel.Record) error) error {
	client := tunnel.NewTunnelClient(endpoint, instance, "id", "secret")
	daemon := tunnel.NewTunnelDaemon(client, "bench", &tunnel.TunnelWorkerConfig{
		LogConfig: &tunnel.DefaultLogConfig, LogWriteSyncer: zapcore.AddSync(io.Discard),
		ProcessorFactory: &tunnel.SimpleProcessFactory{Logger: zap.NewNop(), ProcessFunc: func(_ *tunnel.ChannelContext, records []*tunnel.Record) error {
			return process(records)
		}},
	})
	ended := make(chan error, 1)
	go func() { ended <- daemon.Run() }() // ends with Close
	select {
	case err := <-ended:
		return err
	case <-ctx.Done():
		daemon.Close()
		return nil // its channels end some heartbeats later; the process does not wait for them
	}
}

// runGlue is what a team would write to bring the SDK's records into a
// Watermill Router: a message for each record, and a callback that waits for
// all messages of a page.
func runGlue(ctx context.Context, endpoint string, m *meter) error {
	out := make(chan *message.Message)
	r, err := newRouter(subscriberFunc(func(context.Context, string) (<-chan *message.Message, error) { return out, nil }), func(msg *message.Message) error {
		m.done(0)
		return nil
	})
	if err != nil {
		return err
	}
	ended := make(chan error, 1)
	go func() { ended <- r.Run(ctx) }() // ends with ctx
	<-r.Running()
	err = sdkWorker(ctx, endpoint, func(records []*tunnel.Record) error {
		messages := make([]*message.Message, len(records))
		for i, record := range records {
			payload, err := json.Marshal(jsonOf(record))
			if err != nil {
				return err
			}
			messages[i] = message.NewMessage(watermill.NewUUID(), payload)
			select {
			case out <- messages[i]:
			case <-ctx.Done():
				return ctx.Err()
			}
		}
		for _, msg := range messages {
			select {
			case <-msg.Acked():
			case <-msg.Nacked():
				return fmt.Errorf("message %s was nacked", msg.UUID)
			case <-ctx.Done():
				return ctx.Err()
			}
		}
		return nil
	})
	select {
	case runErr := <-ended:
		return errors.Join(err, runErr)
	default: // like the SDK's callbacks, the Router runs until the process ends
		return err
	}
}

// jsonOf converts a record for encoding/json.
func jsonOf(r *tunnel.Record) any {
	key, cells := make(map[string]any), make(map[string]any)
	for _, pk := range r.PrimaryKey.PrimaryKeys {
		key[pk.ColumnName] = pk.Value
	}
	for _, c := range r.Columns {
		cells[*c.Name] = c.Value
	}
	return map[string]any{"type": r.Type.String(), "key": key, "columns": cells, "timestamp": r.Timestamp}
}

// subscriberFunc is a message.Subscriber whose Close does nothing.
type subscriberFunc func(context.Context, string) (<-chan *message.Message, error)

func (f subscriberFunc) Subscribe(ctx context.Context, topic string) (<-chan *message.Message, error) {
	return f(ctx, topic)
}

func (subscriberFunc) Close() error { return nil }

func newRouter(sub message.Subscriber, h message.NoPublishHandlerFunc) (*message.Router, error) {
	r, err := message.NewRouter(message.RouterConfig{}, watermill.NopLogger{})
	if err != nil {
		return nil, err
	}
	r.AddConsumerHandler("bench", topic, sub, h)
	return r, nil
}

// ours is our subscriber with default settings, and a consumer of its messages.
func ours(u ots.Unmarshaler, consume func(context.Context, *subscriber.Subscriber, *meter) error) func(context.Context, string, *meter) error {
	return func(ctx context.Context, endpoint string, m *meter) error {
		sub, err := subscriber.New(subscriber.Config{
			Endpoint: endpoint, Instance: instance, AccessKeyID: "id", AccessKeySecret: "secret", Unmarshaler: u,
		}, nil)
		if err != nil {
			return err
		}
		if err := consume(ctx, sub, m); err != nil {
			return err
		}
		return sub.Close()
	}
}

func throughRouter(ctx context.Context, sub *subscriber.Subscriber, m *meter) error {
	r, err := newRouter(sub, func(msg *message.Message) error {
		m.done(changed(m, msg))
		return nil
	})
	if err != nil {
		return err
	}
	return r.Run(ctx)
}

// throughRouterTyped reads a column of each record.
func throughRouterTyped(ctx context.Context, sub *subscriber.Subscriber, m *meter) error {
	r, err := newRouter(sub, func(msg *message.Message) error {
		record, _ := ots.RecordFromMessage(msg)
		if v, ok := record.Column("column_0"); !ok || len(v.String()) != columnBytes {
			return fmt.Errorf("column_0 is %v", v)
		}
		m.done(changed(m, msg))
		return nil
	})
	if err != nil {
		return err
	}
	return r.Run(ctx)
}

// changed returns the time of a message's change, µs since 1970, if it is
// needed.
func changed(m *meter, msg *message.Message) int64 {
	if !m.latencies {
		return 0
	}
	r, _ := ots.RecordFromMessage(msg)
	return r.Sequence.Timestamp
}

func throughBatches(ctx context.Context, sub *subscriber.Subscriber, m *meter) error {
	b, err := batching.New(batching.Config{Batchers: map[string]batching.Batcher{
		"default": {Size: 100, Concurrency: 4, Handler: func(_ context.Context, b *batching.Batch) error {
			for _, msg := range b.Messages {
				m.done(changed(m, msg))
			}
			return nil
		}},
	}}, nil)
	if err != nil {
		return err
	}
	r, err := newRouter(sub, func(*message.Message) error { return nil })
	if err != nil {
		return err
	}
	r.AddMiddleware(b.Middleware)
	if err := r.Run(ctx); err != nil {
		return err
	}
	return b.Close()
}

func withoutRouter(ctx context.Context, sub *subscriber.Subscriber, m *meter) error {
	messages, err := sub.Subscribe(ctx, topic)
	if err != nil {
		return err
	}
	for msg := range messages {
		m.done(changed(m, msg))
		msg.Ack()
	}
	return nil
}

func throughHandle(ctx context.Context, sub *subscriber.Subscriber, m *meter) error {
	done, err := sub.Handle(ctx, topic, func(msg *message.Message) error {
		m.done(changed(m, msg))
		return nil
	})
	if err == nil {
		<-done
	}
	return err
}

// inFlight is the number of messages that runHeld holds.
var inFlight = 1

// runHeld acks a message only after inFlight later ones have arrived. It is
// unordered, since otherwise a key that occurs again would wait for itself.
func runHeld(ctx context.Context, endpoint string, m *meter) error {
	sub, err := subscriber.New(subscriber.Config{
		Endpoint: endpoint, Instance: instance, AccessKeyID: "id", AccessKeySecret: "secret", Unmarshaler: subscriber.None{},
		Ordering: subscriber.Unordered, MaxInFlight: 2 * inFlight, MaxInFlightBytes: 64 << 30,
	}, nil)
	if err != nil {
		return err
	}
	messages, err := sub.Subscribe(ctx, topic)
	if err != nil {
		return err
	}
	held := make([]*message.Message, inFlight)
	for i := 0; ; i = (i + 1) % inFlight {
		msg, ok := <-messages
		if !ok {
			break
		}
		if old := held[i]; old != nil {
			old.Ack()
			m.done(0)
		}
		held[i] = msg
	}
	if err := sub.Close(); !errors.Is(err, subscriber.ErrDrainTimeout) { // the held messages stay unacked
		return fmt.Errorf("closing with %d held messages: %w", inFlight, err)
	}
	return nil
}

func runPipeline(ctx context.Context, endpoint string, m *meter) error {
	return runYAML(ctx, endpoint, "", router.Handlers{Process: func(msg *message.Message) error {
		m.done(changed(m, msg))
		return nil
	}})
}

// runPipelineLookingUp is runPipeline with the rows of updates.
func runPipelineLookingUp(ctx context.Context, endpoint string, m *meter) error {
	return runYAML(ctx, endpoint, ", lookup: updates", router.Handlers{Process: func(msg *message.Message) error {
		m.done(changed(m, msg))
		return nil
	}})
}

// runWhole is Handle with rows that are looked up.
func runWhole(ctx context.Context, endpoint string, m *meter) error {
	sub, err := subscriber.New(subscriber.Config{
		Endpoint: endpoint, Instance: instance, AccessKeyID: "id", AccessKeySecret: "secret", Lookup: subscriber.LookupUpdates,
	}, nil)
	if err != nil {
		return err
	}
	if err := throughHandle(ctx, sub, m); err != nil {
		return err
	}
	return sub.Close()
}

func runPipelineWithBatches(ctx context.Context, endpoint string, m *meter) error {
	return runYAML(ctx, endpoint, batchesOf100, handlersWithBatches(m))
}

func runPipelineWaiting(ctx context.Context, endpoint string, m *meter) error {
	h := handlersWithBatches(m)
	h.Middlewares = []message.HandlerMiddleware{func(h message.HandlerFunc) message.HandlerFunc { return h }}
	return runYAML(ctx, endpoint, batchesOf100, h)
}

const batchesOf100 = ", batchers: {default: {batch_size: 100, concurrency: 4}}"

func handlersWithBatches(m *meter) router.Handlers {
	return router.Handlers{Batches: map[string]func(context.Context, *batching.Batch) error{
		"default": func(_ context.Context, b *batching.Batch) error {
			for _, msg := range b.Messages {
				m.done(changed(m, msg))
			}
			return nil
		},
	}}
}

// runYAML runs a pipeline. more are further keys of its tunnel.
func runYAML(ctx context.Context, endpoint, more string, h router.Handlers) error {
	cfg, err := router.Parse("bench.yaml", []byte(fmt.Sprintf(`
instances:
  bench: {name: %s, endpoint: %q, access_key_id: id, access_key_secret: secret}
tunnels:
  bench: {instance: bench, table_name: bench, tunnel_name: bench%s}
`, instance, endpoint, more)))
	if err != nil {
		return err
	}
	r, err := router.New(cfg, nil)
	if err != nil {
		return err
	}
	if err := r.Handle("bench", h); err != nil {
		return err
	}
	return r.Run(ctx)
}

// describe lists the consumers for -help.
func describe() string {
	var b strings.Builder
	for _, c := range consumers {
		fmt.Fprintf(&b, "  %-9s %s\n", c.name, c.what)
	}
	return b.String()
}

// timeOf converts a change time in µs.
func timeOf(us int64) time.Time { return time.UnixMicro(us) }
