package tracing_test

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/ThreeDotsLabs/watermill"
	"github.com/ThreeDotsLabs/watermill/message"
	"github.com/aliyun/aliyun-tablestore-go-sdk/tunnel"
	"github.com/cenkalti/backoff/v4"
	"go.opentelemetry.io/otel/codes"
	sdktrace "go.opentelemetry.io/otel/sdk/trace"

	"github.com/watermill-ots/watermill-ots/batching"
	"github.com/watermill-ots/watermill-ots/emulator"
	"github.com/watermill-ots/watermill-ots/internal/testbed"
	"github.com/watermill-ots/watermill-ots/ots"
	"github.com/watermill-ots/watermill-ots/subscriber"
	"github.com/watermill-ots/watermill-ots/tracing"
)

// forwarded is a publisher that may be read concurrently.
type forwarded struct {
	mu       sync.Mutex
	messages []*message.Message
}

func (f *forwarded) Publish(_ string, messages ...*message.Message) error {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.messages = append(f.messages, messages...)
	return nil
}

func (f *forwarded) Close() error { return nil }

func (f *forwarded) get() []*message.Message {
	f.mu.Lock()
	defer f.mu.Unlock()
	return slices.Clone(f.messages)
}

func TestTracing_follows_records_from_the_tunnel_through_batches_into_another_publisher(t *testing.T) {
	const keys = 4
	b := testbed.New(t, emulator.Options{})
	b.CreateTunnel(tunnel.TunnelTypeStream)
	tr, spans := newTracing(t)
	out := new(forwarded)

	archive := batching.PublishTo(tr.Publisher(out), "archive")
	batches, err := batching.New(batching.Config{Batchers: map[string]batching.Batcher{"default": {
		Size: keys, Timeout: 50 * time.Millisecond,
		Handler: tr.Batch(func(ctx context.Context, b *batching.Batch) error {
			if r, _ := ots.RecordFromMessage(b.Messages[0]); r.Attempt == 1 {
				return errors.New("the warehouse is closed")
			}
			return archive(ctx, b)
		}),
	}}}, nil)
	if err != nil {
		t.Fatal(err)
	}
	cfg := testbed.Config(b.Emulator.Endpoint())
	cfg.HeartbeatTimeout = 30 * time.Second
	cfg.NackBackoff = func() backoff.BackOff { return backoff.NewConstantBackOff(20 * time.Millisecond) }
	sub, err := subscriber.New(cfg, nil)
	if err != nil {
		t.Fatal(err)
	}
	router, err := message.NewRouter(message.RouterConfig{}, watermill.NopLogger{})
	if err != nil {
		t.Fatal(err)
	}
	router.AddMiddleware(tr.Middleware, batches.Middleware)
	router.AddConsumerHandler("changes", testbed.Topic, sub, func(*message.Message) error { return nil })
	stopped := make(chan error, 1)
	go func() { stopped <- router.Run(context.Background()) }() // ends with Close below
	<-router.Running()
	b.PutAll(keys, 1)
	testbed.Eventually(t, 20*time.Second, "all records are published", func() bool { return len(out.get()) >= keys })
	if err := errors.Join(router.Close(), <-stopped, batches.Close()); err != nil {
		t.Fatal(err)
	}

	succeeded := make(map[string]sdktrace.ReadOnlySpan) // by the message's UUID
	for _, s := range spans.named("process " + testbed.Topic) {
		outcome, status := tracing.OutcomeFailed, codes.Error
		if attr(s, tracing.AttributeAttempt) != "1" {
			outcome, status = tracing.OutcomeSucceeded, codes.Unset
			succeeded[attr(s, "messaging.message.id")] = s
		}
		checkAttrs(t, s, map[string]string{
			"messaging.system": "tablestore", tracing.AttributeTable: testbed.Table, tracing.AttributeTunnel: testbed.Tunnel,
			tracing.AttributeHandler: "changes", tracing.AttributeOutcome: outcome,
		})
		if s.Status().Code != status || len(s.Links()) != 1 {
			t.Errorf("attempt %s has the status %v and is linked with %d batches", attr(s, tracing.AttributeAttempt), s.Status(), len(s.Links()))
		}
	}
	batched := 0
	for _, s := range spans.named("process batch default") {
		batched += len(s.Links())
		if n := fmt.Sprint(len(s.Links())); attr(s, "messaging.batch.message_count") != n {
			t.Errorf("a batch of %s messages is linked with %s", attr(s, "messaging.batch.message_count"), n)
		}
	}
	if len(succeeded) != keys || batched < 2*keys {
		t.Errorf("%d deliveries succeeded, batches had %d messages", len(succeeded), batched)
	}
	for _, msg := range out.get() {
		if s := succeeded[msg.UUID]; s == nil || msg.Metadata.Get("traceparent") != traceparent(s) {
			t.Errorf("message %s was published with the trace context %q, not with its delivery's", msg.UUID, msg.Metadata.Get("traceparent"))
		}
	}
}
