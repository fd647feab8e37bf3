package router

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"sync"

	"github.com/ThreeDotsLabs/watermill/message"

	"github.com/watermill-ots/watermill-ots/batching"
	"github.com/watermill-ots/watermill-ots/internal/feed"
	"github.com/watermill-ots/watermill-ots/ots"
	"github.com/watermill-ots/watermill-ots/router/internal/keypath"
	"github.com/watermill-ots/watermill-ots/router/internal/strictyaml"
	"github.com/watermill-ots/watermill-ots/subscriber"
)

// Outcome is the outcome of one message in Test.
type Outcome struct {
	// Message is the message as the pipeline left it; nil for a record that the
	// payload format skips.
	Message *message.Message

	// Err is nil if the message would have been acked. It wraps ack.ErrCalledBack if
	// an earlier message of its key failed: this one would be redelivered after it.
	Err error

	// Dropped says that Process returned ErrDrop, or the payload format ots.ErrSkip.
	Dropped bool

	// Batch is the batch that the message was in, nil if there was none. Messages of
	// the same batch share the pointer.
	Batch *batching.Batch
}

// TestRecords turns records into messages, as the subscriber does, and calls Test. It
// fills in the instance, table, tunnel, type and attempt that a record lacks. UUIDs are
// "record-1", "record-2", ... unless the record or the payload format has them.
func (r *Router) TestRecords(ctx context.Context, tunnel string, records ...*ots.Record) ([]Outcome, error) {
	t, ok := r.cfg.Tunnels[tunnel]
	if !ok {
		return nil, r.unknownTunnel("TestRecords", tunnel)
	}
	r.mu.Lock()
	format := cmp.Or(t.Payload, DefaultPayload)
	unmarshaler, ok := r.payloads[format]
	r.mu.Unlock()
	if !ok {
		return nil, fmt.Errorf("test %s: %w: no payload format called %q is registered", keypath.Join("tunnels", tunnel), ErrInvalidConfig, format)
	}
	outcomes := make([]Outcome, len(records))
	var messages []*message.Message
	var places []int // of the messages, in outcomes
	for i, rec := range records {
		filled := *rec
		filled.Instance = cmp.Or(rec.Instance, r.cfg.Instances[t.Instance].Name)
		filled.Table = cmp.Or(rec.Table, t.TableName)
		filled.Tunnel = cmp.Or(rec.Tunnel, t.TunnelName)
		filled.Type = cmp.Or(rec.Type, ots.Put)
		filled.Attempt = cmp.Or(rec.Attempt, 1)
		filled.UUID = cmp.Or(rec.UUID, fmt.Sprintf("record-%d", i+1))
		msg, err := unmarshaler.Unmarshal(&filled)
		switch {
		case errors.Is(err, ots.ErrSkip):
			outcomes[i].Dropped = true
			continue
		case err != nil:
			return nil, fmt.Errorf("test %s: record %d: %w", keypath.Join("tunnels", tunnel), i+1, err)
		}
		msg.UUID = cmp.Or(msg.UUID, filled.UUID)
		ots.WithRecord(msg, &filled)
		messages, places = append(messages, msg), append(places, i)
	}
	tried, err := r.Test(ctx, tunnel, messages...)
	if err != nil {
		return nil, err
	}
	for i, o := range tried {
		outcomes[places[i]] = o
	}
	return outcomes, nil
}

// Test sends messages through a pipeline without a tunnel, for tests of handlers and of
// a configuration, and returns the outcome of each, in the same order. It does not
// connect to the service, but forwarded messages do go to the registered publishers.
//
// Messages join their batches in the given order. Batches end by their size, by a flush,
// or when all messages wait (batching.TriggerDrain): never by time. Each message is
// tried once: a failed message is neither retried nor written as a dead letter. Test has
// its own batches and slots, so it may be called any number of times, also before and
// during Run. Handlers cannot be added after it.
func (r *Router) Test(ctx context.Context, tunnel string, messages ...*message.Message) ([]Outcome, error) {
	done, err := r.use("test")
	if err != nil {
		return nil, err
	}
	defer done()
	ctx, cancel := r.bound(ctx)
	defer cancel()

	// Messages are identified by their pointers: a test may give two the same UUID. A
	// middleware may replace a message; the replacement is not in found.
	var mu sync.Mutex
	found := make(map[*message.Message]*Outcome, len(messages))
	p, err := r.trialPipeline(tunnel, watch{
		batch: func(b *batching.Batch) {
			mu.Lock()
			defer mu.Unlock()
			for _, m := range b.Messages {
				if o := found[m]; o != nil {
					o.Batch = b
				}
			}
		},
		drop: func(m *message.Message) {
			mu.Lock()
			defer mu.Unlock()
			if o := found[m]; o != nil {
				o.Dropped = true
			}
		},
	})
	if err != nil {
		return nil, err
	}
	outcomes, keys := make([]Outcome, len(messages)), make([]string, len(messages))
	for i, msg := range messages {
		if found[msg] != nil {
			return nil, fmt.Errorf("test %s: message %d is given twice", keypath.Join("tunnels", tunnel), i+1)
		}
		outcomes[i].Message, keys[i] = msg, orderingKey(msg, r.cfg.Tunnels[tunnel])
		found[msg] = &outcomes[i]
	}
	for i, err := range feed.RunInOrder(ctx, p.attempt, messages, keys) {
		outcomes[i].Err = err
	}
	return outcomes, p.close()
}

// trialPipeline returns a pipeline for one Test.
func (r *Router) trialPipeline(tunnel string, w watch) (*pipeline, error) {
	if _, ok := r.cfg.Tunnels[tunnel]; !ok {
		return nil, r.unknownTunnel("Test", tunnel)
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	if err := r.faulty(r.missing(tunnel)...); err != nil {
		return nil, err
	}
	parts := r.parts(tunnel)
	parts.letters, parts.onBatch, parts.watch, parts.trial = nil, nil, w, true
	return newPipeline(parts)
}

// unknownTunnel returns the error of a method that was called for a tunnel that is not in
// the configuration.
func (r *Router) unknownTunnel(method, tunnel string) error {
	return r.faulty(Fault{Path: "tunnels", Text: fmt.Sprintf("%s is called for %q, but there is no such tunnel%s", method, tunnel, strictyaml.Suggest(tunnel, names(r.cfg.Tunnels), "tunnels"))})
}

// orderingKey returns the key by which the subscriber would order msg.
func orderingKey(msg *message.Message, t Tunnel) string {
	key := msg.Metadata.Get(subscriber.MetadataKey)
	if rec, ok := ots.RecordFromMessage(msg); ok {
		key = rec.KeyText()
	}
	return t.orderingKey(msg.Metadata.Get(subscriber.MetadataChannel), key)
}

// orderingKey returns the key by which the subscriber orders messages of a channel and a
// primary key, "" if they are not in order.
func (t Tunnel) orderingKey(channel, key string) string {
	switch t.ordering() {
	case subscriber.Unordered:
		return ""
	case subscriber.OrderByChannel:
		return "channel " + channel
	}
	return key
}
