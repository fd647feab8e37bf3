package tracing_test

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/ThreeDotsLabs/watermill/message"
	"github.com/ThreeDotsLabs/watermill/message/router/middleware"
	"go.opentelemetry.io/otel/codes"
	"go.opentelemetry.io/otel/propagation"
	sdktrace "go.opentelemetry.io/otel/sdk/trace"
	"go.opentelemetry.io/otel/sdk/trace/tracetest"
	"go.opentelemetry.io/otel/trace"
	"go.opentelemetry.io/otel/trace/noop"
	"go.uber.org/goleak"

	"github.com/watermill-ots/watermill-ots/ack"
	"github.com/watermill-ots/watermill-ots/batching"
	"github.com/watermill-ots/watermill-ots/ots"
	"github.com/watermill-ots/watermill-ots/subscriber"
	"github.com/watermill-ots/watermill-ots/tracing"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// recorder keeps the spans that a Tracing creates.
type recorder struct {
	*tracetest.SpanRecorder
	provider *sdktrace.TracerProvider
}

func newTracing(t *testing.T, change ...func(*tracing.Config)) (*tracing.Tracing, *recorder) {
	rec := tracetest.NewSpanRecorder()
	r := &recorder{rec, sdktrace.NewTracerProvider(sdktrace.WithSpanProcessor(rec))}
	cfg := tracing.Config{Provider: r.provider, Propagator: propagation.NewCompositeTextMapPropagator(propagation.TraceContext{}, propagation.Baggage{})}
	for _, c := range change {
		c(&cfg)
	}
	return tracing.New(cfg), r
}

// span returns the one ended span of that name.
func (r *recorder) span(t *testing.T, name string) sdktrace.ReadOnlySpan {
	t.Helper()
	spans := r.named(name)
	if len(spans) != 1 {
		t.Fatalf("%d spans are called %q, want one; there are %v", len(spans), name, r.names())
	}
	return spans[0]
}

func (r *recorder) named(name string) (spans []sdktrace.ReadOnlySpan) {
	for _, s := range r.Ended() {
		if s.Name() == name {
			spans = append(spans, s)
		}
	}
	return spans
}

func (r *recorder) names() (names []string) {
	for _, s := range r.Ended() {
		names = append(names, s.Name())
	}
	return names
}

func attr(s sdktrace.ReadOnlySpan, key string) string {
	for _, kv := range s.Attributes() {
		if string(kv.Key) == key {
			return kv.Value.String()
		}
	}
	return ""
}

// checkAttrs asserts attributes; an attribute with an empty value must be absent.
func checkAttrs(t *testing.T, s sdktrace.ReadOnlySpan, want map[string]string) {
	t.Helper()
	for key, value := range want {
		if got := attr(s, key); got != value {
			t.Errorf("span %q has %s = %q, want %q", s.Name(), key, got, value)
		}
	}
}

func links(s sdktrace.ReadOnlySpan) (ids []trace.SpanID) {
	for _, l := range s.Links() {
		ids = append(ids, l.SpanContext.SpanID())
	}
	return ids
}

func id(s sdktrace.ReadOnlySpan) trace.SpanID { return s.SpanContext().SpanID() }

func traceparent(s sdktrace.ReadOnlySpan) string {
	return fmt.Sprintf("00-%s-%s-01", s.SpanContext().TraceID(), id(s))
}

const process = "process orders/to-warehouse"

// recordMessage returns the message of a record, as the subscriber delivers it.
func recordMessage(attempt int) *message.Message {
	msg := message.NewMessage("uuid-1", []byte("payload"))
	ots.WithRecord(msg, &ots.Record{
		Instance: "shop", Table: "orders", Tunnel: "to-warehouse", Channel: "c1", Type: ots.Update, Attempt: attempt,
		Sequence:   ots.Sequence{Epoch: 1, Timestamp: time.Now().Add(-time.Minute).UnixMicro(), RowIndex: 2},
		PrimaryKey: []ots.Column{{Name: "id", Value: ots.IntegerValue(7)}},
	})
	return msg
}

func succeed(*message.Message) ([]*message.Message, error) { return nil, nil }

func TestMiddleware_creates_a_span_for_a_delivery_with_the_origin_of_the_record(t *testing.T) {
	tr, spans := newTracing(t)
	if _, err := tr.Middleware(succeed)(recordMessage(3)); err != nil {
		t.Fatal(err)
	}
	s := spans.span(t, process)
	if s.SpanKind() != trace.SpanKindConsumer || s.Parent().IsValid() || s.Status().Code != codes.Unset {
		t.Errorf("kind %v, parent %v, status %v", s.SpanKind(), s.Parent(), s.Status())
	}
	checkAttrs(t, s, map[string]string{
		"messaging.system": "tablestore", "messaging.destination.name": "orders/to-warehouse",
		"messaging.operation.name": "process", "messaging.operation.type": "process",
		"messaging.message.id": "uuid-1", "messaging.message.body.size": "7", "messaging.destination.partition.id": "c1",
		tracing.AttributeInstance: "shop", tracing.AttributeTable: "orders", tracing.AttributeTunnel: "to-warehouse",
		tracing.AttributeType: "update", tracing.AttributeAttempt: "3", tracing.AttributeOutcome: tracing.OutcomeSucceeded,
		tracing.AttributeKey: "", "error.type": "",
	})
	if attr(s, tracing.AttributeSequence) == "" {
		t.Error("the sequence is missing")
	}
	for _, kv := range s.Attributes() {
		if kv.Key == tracing.AttributeAge && (kv.Value.AsFloat64() < 60 || kv.Value.AsFloat64() > 120) {
			t.Errorf("a record of a minute ago has the age of %v s", kv.Value.AsFloat64())
		}
	}
}

func TestMiddleware_shows_keys_only_when_asked_to(t *testing.T) {
	tr, spans := newTracing(t, func(c *tracing.Config) { c.Keys = true })
	if _, err := tr.Middleware(succeed)(recordMessage(1)); err != nil {
		t.Fatal(err)
	}
	checkAttrs(t, spans.span(t, process), map[string]string{tracing.AttributeKey: "[7]"})
}

func TestMiddleware_gives_the_handler_the_span_the_record_and_the_delivery(t *testing.T) {
	tr, spans := newTracing(t)
	msg := recordMessage(1)
	d := new(fakeDelivery)
	msg.SetContext(ack.NewContext(msg.Context(), d))
	came := msg.Context()
	_, err := tr.Middleware(func(msg *message.Message) ([]*message.Message, error) {
		ctx := msg.Context()
		if r, ok := ots.RecordFromMessage(msg); !ok || r.Table != "orders" {
			t.Error("the record is lost")
		}
		if got, ok := ack.FromContext(ctx); !ok || got != d {
			t.Error("the delivery is lost")
		}
		_, inner := spans.provider.Tracer("test").Start(ctx, "inner")
		inner.End()
		return nil, nil
	})(msg)
	if err != nil {
		t.Fatal(err)
	}
	s := spans.span(t, process)
	if got := spans.span(t, "inner").Parent().SpanID(); got != id(s) {
		t.Errorf("a span of the handler is the child of %v, want %v", got, id(s))
	}
	if msg.Context() != came {
		t.Error("the message does not have its original context")
	}
	if got := msg.Metadata.Get("traceparent"); got != traceparent(s) {
		t.Errorf("metadata has traceparent %q, want %q", got, traceparent(s))
	}
}

// fakeDelivery is a delivery of a subscriber that promises order.
type fakeDelivery struct{ ack.Delivery }

func TestMiddleware_distinguishes_outcomes(t *testing.T) {
	boom := errors.New("boom")
	calledBack, fence := context.WithCancelCause(context.Background())
	fence(fmt.Errorf("taken: %w", ack.ErrCalledBack))
	lost, lose := context.WithCancelCause(context.Background())
	lose(subscriber.ErrChannelLost)
	nacked, settle := context.WithCancelCause(context.Background())
	settle(subscriber.ErrSettled)
	late, cancel := context.WithDeadline(context.Background(), time.Now().Add(-time.Second))
	defer cancel()
	elsewhere := fmt.Errorf("query: %w", context.Canceled)
	const cancelled = "*errors.errorString"
	for name, c := range map[string]struct {
		ctx     context.Context
		err     error
		outcome string
		status  codes.Code
		typ     string
	}{
		"failure":                                {context.Background(), fmt.Errorf("insert: %w", boom), tracing.OutcomeFailed, codes.Error, "*errors.errorString"},
		"called back":                            {calledBack, nil, tracing.OutcomeCalledBack, codes.Unset, ""},
		"lost":                                   {lost, boom, tracing.OutcomeInterrupted, codes.Unset, ""},
		"shutdown":                               {context.Background(), batching.ErrClosed, tracing.OutcomeInterrupted, codes.Unset, ""},
		"a cancelled call of the handler's own":  {context.Background(), elsewhere, tracing.OutcomeFailed, codes.Error, cancelled},
		"a failure that the handler nacked":      {nacked, boom, tracing.OutcomeFailed, codes.Error, cancelled},
		"too late for the context's deadline":    {late, elsewhere, tracing.OutcomeFailed, codes.Error, cancelled},
		"lost, with an error that tells nothing": {lost, boom, tracing.OutcomeInterrupted, codes.Unset, ""},
	} {
		t.Run(name, func(t *testing.T) {
			tr, spans := newTracing(t)
			msg := message.NewMessage("u", nil)
			msg.SetContext(c.ctx)
			if _, err := tr.Middleware(func(*message.Message) ([]*message.Message, error) { return nil, c.err })(msg); err != c.err {
				t.Errorf("the middleware returns %v, want %v", err, c.err)
			}
			s := spans.span(t, "process ")
			checkAttrs(t, s, map[string]string{tracing.AttributeOutcome: c.outcome, "error.type": c.typ, "messaging.system": "watermill"})
			if s.Status().Code != c.status {
				t.Errorf("status %v, want %v", s.Status(), c.status)
			}
			if told := len(s.Events()) > 0; told != (c.err != nil) {
				t.Errorf("the error's event: %v", s.Events())
			}
		})
	}
}

func TestMiddleware_lets_a_panic_through_and_ends_the_span(t *testing.T) {
	tr, spans := newTracing(t)
	msg := recordMessage(1)
	came := msg.Context()
	_, err := middleware.Recoverer(tr.Middleware(func(*message.Message) ([]*message.Message, error) { panic("no") }))(msg)
	if err == nil {
		t.Error("the panic did not reach the Recoverer")
	}
	s := spans.span(t, process)
	checkAttrs(t, s, map[string]string{tracing.AttributeOutcome: tracing.OutcomeFailed})
	if s.Status().Code != codes.Error || msg.Context() != came {
		t.Errorf("status %v, context restored: %v", s.Status(), msg.Context() == came)
	}
}

func TestMiddleware_continues_the_trace_that_a_message_carries(t *testing.T) {
	tr, spans := newTracing(t)
	msg := message.NewMessage("u", nil)
	msg.Metadata.Set("traceparent", "00-0102030405060708090a0b0c0d0e0f10-0102030405060708-01")
	msg.Metadata.Set("baggage", "tenant=blue")
	if _, err := tr.Middleware(succeed)(msg); err != nil {
		t.Fatal(err)
	}
	s := spans.span(t, "process ")
	if got := s.Parent().SpanID().String(); got != "0102030405060708" || len(s.Links()) != 0 {
		t.Errorf("the parent is %v, links %v", got, s.Links())
	}
	if msg.Metadata.Get("traceparent") != traceparent(s) || msg.Metadata.Get("baggage") != "tenant=blue" {
		t.Errorf("the metadata is %v", msg.Metadata)
	}
}

func TestMiddleware_within_another_span_links_the_trace_that_the_message_carries(t *testing.T) {
	tr, spans := newTracing(t)
	msg := message.NewMessage("u", nil)
	msg.Metadata.Set("traceparent", "00-0102030405060708090a0b0c0d0e0f10-0102030405060708-01")
	ctx, outside := spans.provider.Tracer("test").Start(context.Background(), "outside")
	msg.SetContext(ctx)
	if _, err := tr.Middleware(succeed)(msg); err != nil {
		t.Fatal(err)
	}
	outside.End()
	s := spans.span(t, "process ")
	if s.Parent().SpanID() != id(spans.span(t, "outside")) {
		t.Errorf("the parent is %v", s.Parent())
	}
	if l := links(s); len(l) != 1 || l[0].String() != "0102030405060708" {
		t.Errorf("the links are %v", l)
	}
}

func TestMiddleware_adds_the_trace_to_produced_messages_that_have_none(t *testing.T) {
	tr, spans := newTracing(t)
	const own = "00-0102030405060708090a0b0c0d0e0f10-0102030405060708-01"
	bare, traced := message.NewMessage("bare", nil), message.NewMessage("traced", nil)
	bare.Metadata = nil
	traced.Metadata.Set("traceparent", own)
	_, err := tr.Middleware(func(*message.Message) ([]*message.Message, error) {
		return []*message.Message{bare, traced}, nil
	})(recordMessage(1))
	if err != nil {
		t.Fatal(err)
	}
	if s := spans.span(t, process); bare.Metadata.Get("traceparent") != traceparent(s) || trace.SpanContextFromContext(bare.Context()).SpanID() != id(s) {
		t.Errorf("a message without a trace context got %v", bare.Metadata)
	}
	if traced.Metadata.Get("traceparent") != own {
		t.Errorf("a message with a trace context got %v", traced.Metadata)
	}
}

func TestBatch_is_linked_with_its_deliveries_in_both_directions(t *testing.T) {
	tr, spans := newTracing(t)
	var inside trace.SpanID
	batches, err := batching.New(batching.Config{Batchers: map[string]batching.Batcher{"s3": {
		Size: 3, Timeout: time.Minute,
		Handler: tr.Batch(func(ctx context.Context, b *batching.Batch) error {
			inside = trace.SpanContextFromContext(ctx).SpanID()
			b.Fail(b.Messages[1], errors.New("this one"))
			b.Messages[1] = nil // the slice belongs to the handler
			return nil
		}),
	}}}, nil)
	if err != nil {
		t.Fatal(err)
	}
	handle := tr.Middleware(batches.Middleware(func(msg *message.Message) ([]*message.Message, error) {
		batching.SetBatcher(msg, "s3")
		batching.SetBatchKey(msg, "blue")
		_, step := spans.provider.Tracer("test").Start(msg.Context(), "step")
		msg.SetContext(trace.ContextWithSpan(msg.Context(), step)) // as careless steps do
		step.End()
		return nil, nil
	}))
	outcomes := make(chan error)
	for range 3 {
		go func() { _, err := handle(recordMessage(1)); outcomes <- err }()
	}
	failed := 0
	for range 3 {
		if <-outcomes != nil {
			failed++
		}
	}
	if err := batches.Close(); err != nil || failed != 1 {
		t.Fatalf("%d messages failed, close: %v", failed, err)
	}
	batch := spans.span(t, "process batch s3")
	if id(batch) != inside || batch.Parent().IsValid() || batch.SpanKind() != trace.SpanKindConsumer || batch.Status().Code != codes.Unset {
		t.Errorf("the handler's span is %v; the batch has %v, parent %v, status %v", inside, id(batch), batch.Parent(), batch.Status())
	}
	checkAttrs(t, batch, map[string]string{
		"messaging.system": "tablestore", "messaging.destination.name": "orders/to-warehouse", "messaging.batch.message_count": "3",
		tracing.AttributeBatcher: "s3", tracing.AttributeTrigger: "size", tracing.AttributePartition: "0", tracing.AttributeFailed: "1", tracing.AttributeBatchKey: "",
	})
	deliveries := spans.named(process)
	if len(deliveries) != 3 || len(batch.Links()) != 3 {
		t.Fatalf("%d deliveries, %d links", len(deliveries), len(batch.Links()))
	}
	for _, d := range deliveries {
		if !slices.Contains(links(batch), id(d)) || !slices.Equal(links(d), []trace.SpanID{id(batch)}) {
			t.Errorf("delivery %v has links %v; the batch %v has %v", id(d), links(d), id(batch), links(batch))
		}
		if d.EndTime().Before(batch.EndTime()) {
			t.Error("a delivery ended before its batch")
		}
	}
}

func TestBatch_fails_with_its_handler_and_ends_with_its_panic(t *testing.T) {
	boom := errors.New("boom")
	ended, cancel := context.WithCancelCause(context.Background())
	cancel(batching.ErrAllEnded)
	for name, c := range map[string]struct {
		ctx    context.Context
		handle batching.HandlerFunc
		status codes.Code
	}{
		"error":                    {t.Context(), func(context.Context, *batching.Batch) error { return boom }, codes.Error},
		"panic":                    {t.Context(), func(context.Context, *batching.Batch) error { panic(boom) }, codes.Error},
		"cancelled call elsewhere": {t.Context(), func(context.Context, *batching.Batch) error { return context.Canceled }, codes.Error},
		"shutdown":                 {ended, func(context.Context, *batching.Batch) error { return boom }, codes.Unset},
	} {
		t.Run(name, func(t *testing.T) {
			tr, spans := newTracing(t, func(c *tracing.Config) { c.Keys = true })
			b := &batching.Batch{Batcher: "sqs", Key: "blue", Messages: []*message.Message{recordMessage(1), message.NewMessage("u", nil)}}
			func() {
				defer func() { _ = recover() }()
				_ = tr.Batch(c.handle)(c.ctx, b)
			}()
			s := spans.span(t, "process batch sqs")
			if s.Status().Code != c.status {
				t.Errorf("status %v, want %v", s.Status(), c.status)
			}
			checkAttrs(t, s, map[string]string{tracing.AttributeBatchKey: "blue", "messaging.destination.name": "", tracing.AttributeWaited: ""})
		})
	}
}

// published keeps the published messages.
type published struct {
	messages []*message.Message
	err      error
}

func (p *published) Publish(_ string, messages ...*message.Message) error {
	p.messages = append(p.messages, messages...)
	return p.err
}

func (p *published) Close() error { return nil }

func TestPublisher_in_a_traced_batch_keeps_each_records_trace(t *testing.T) {
	tr, spans := newTracing(t)
	out := new(published)
	batches, err := batching.New(batching.Config{Batchers: map[string]batching.Batcher{"default": {
		Size: 2, Timeout: time.Minute, Handler: tr.Batch(batching.PublishTo(tr.Publisher(out), "archive")),
	}}}, nil)
	if err != nil {
		t.Fatal(err)
	}
	handle := tr.Middleware(batches.Middleware(succeed))
	done := make(chan error)
	for range 2 {
		go func() { _, err := handle(recordMessage(1)); done <- err }()
	}
	if err := errors.Join(<-done, <-done, batches.Close()); err != nil {
		t.Fatal(err)
	}
	s, batch, deliveries := spans.span(t, "publish archive"), spans.span(t, "process batch default"), spans.named(process)
	if s.Parent().SpanID() != id(batch) || s.SpanKind() != trace.SpanKindClient {
		t.Errorf("publish is a %v and the child of %v, want %v", s.SpanKind(), s.Parent().SpanID(), id(batch))
	}
	checkAttrs(t, s, map[string]string{"messaging.destination.name": "archive", "messaging.operation.type": "send", "messaging.batch.message_count": "2"})
	for _, d := range deliveries {
		if !slices.Contains(links(s), id(d)) {
			t.Errorf("publish is not linked with %v", id(d))
		}
		if !slices.ContainsFunc(out.messages, func(m *message.Message) bool { return m.Metadata.Get("traceparent") == traceparent(d) }) {
			t.Errorf("no published message carries the trace of %v", id(d))
		}
	}
}

func TestPublisher_after_the_batch_belongs_to_the_delivery(t *testing.T) {
	tr, spans := newTracing(t)
	pub := tr.Publisher(new(published))
	batches, err := batching.New(batching.Config{Batchers: map[string]batching.Batcher{"default": {
		Size: 1, Handler: tr.Batch(func(context.Context, *batching.Batch) error { return errors.New("boom") }),
	}}}, nil)
	if err != nil {
		t.Fatal(err)
	}
	giveUp := func(h message.HandlerFunc) message.HandlerFunc { // as a PoisonQueue does
		return func(msg *message.Message) ([]*message.Message, error) {
			if _, err := h(msg); err == nil {
				t.Error("the batch did not fail")
			}
			return nil, pub.Publish("dead", msg)
		}
	}
	if _, err := tr.Middleware(giveUp(batches.Middleware(succeed)))(recordMessage(1)); err != nil {
		t.Fatal(err)
	}
	if err := batches.Close(); err != nil {
		t.Fatal(err)
	}
	if got, want := spans.span(t, "publish dead").Parent().SpanID(), id(spans.span(t, process)); got != want {
		t.Errorf("publish is the child of %v, want the delivery %v", got, want)
	}
}

func TestPublisher_begins_a_trace_for_messages_without_one_and_shows_its_error(t *testing.T) {
	tr, spans := newTracing(t)
	out := &published{err: errors.New("broker is gone")}
	pub, err := tr.PublisherDecorator(out)
	if err != nil {
		t.Fatal(err)
	}
	if err := pub.Publish("archive", message.NewMessage("u", nil)); err != out.err {
		t.Errorf("Publish returns %v", err)
	}
	s := spans.span(t, "publish archive")
	if out.messages[0].Metadata.Get("traceparent") != traceparent(s) || s.SpanKind() != trace.SpanKindProducer || s.Status().Code != codes.Error {
		t.Errorf("metadata %v, kind %v, status %v", out.messages[0].Metadata, s.SpanKind(), s.Status())
	}
	checkAttrs(t, s, map[string]string{"messaging.message.id": "u"})
	if err := pub.Publish("nothing"); err != out.err || len(spans.named("publish nothing")) != 0 {
		t.Errorf("publishing nothing: %v, spans %v", err, spans.names())
	}
}

func TestPublisher_fails_by_its_messages_contexts_not_by_what_the_error_wraps(t *testing.T) {
	ended, cancel := context.WithCancel(context.Background())
	cancel()
	for name, c := range map[string]struct {
		ctx    context.Context
		err    error
		status codes.Code
	}{
		"a call of the publisher's own was cancelled": {context.Background(), context.Canceled, codes.Error},
		"a message's context was cancelled":           {ended, errors.New("not sent"), codes.Unset},
	} {
		t.Run(name, func(t *testing.T) {
			tr, spans := newTracing(t)
			last := message.NewMessage("v", nil)
			last.SetContext(c.ctx)
			if err := tr.Publisher(&published{err: c.err}).Publish("archive", message.NewMessage("u", nil), last); err != c.err {
				t.Errorf("Publish returns %v", err)
			}
			if s := spans.span(t, "publish archive"); s.Status().Code != c.status || len(s.Events()) != 1 {
				t.Errorf("status %v, events %v", s.Status(), s.Events())
			}
		})
	}
}

// In a batch whose context was cancelled only those messages failed that were given to Fail.
func TestMiddleware_of_a_batch_that_was_cancelled_is_interrupted(t *testing.T) {
	boom := errors.New("boom")
	running := make(chan struct{})
	tr, spans := newTracing(t)
	b, err := batching.New(batching.Config{CloseTimeout: 50 * time.Millisecond, Batchers: map[string]batching.Batcher{
		batching.DefaultBatcher: {Size: 2, Handler: tr.Batch(func(ctx context.Context, b *batching.Batch) error {
			b.Fail(b.Messages[0], boom)
			close(running)
			<-ctx.Done()
			return errors.New("rolled back") // it does not mention a cancellation
		})},
	}}, nil)
	if err != nil {
		t.Fatal(err)
	}
	var handlers sync.WaitGroup
	for range 2 {
		handlers.Go(func() { _, _ = tr.Middleware(b.Middleware(succeed))(message.NewMessage("u", nil)) })
	}
	<-running
	if err := b.Close(); err != nil { // the handler returns when its context ends
		t.Error(err)
	}
	handlers.Wait()
	var outcomes []string
	for _, s := range spans.named("process ") {
		outcomes = append(outcomes, attr(s, tracing.AttributeOutcome))
	}
	slices.Sort(outcomes)
	if !slices.Equal(outcomes, []string{tracing.OutcomeFailed, tracing.OutcomeInterrupted}) {
		t.Errorf("the outcomes are %v", outcomes)
	}
	if s := spans.span(t, "process batch default"); s.Status().Code != codes.Unset {
		t.Errorf("the batch's status is %v", s.Status())
	}
}

func TestPublisher_of_messages_from_several_spans_starts_a_trace(t *testing.T) {
	tr, spans := newTracing(t)
	a, b := message.NewMessage("a", nil), message.NewMessage("b", nil)
	for _, msg := range []*message.Message{a, b} {
		ctx, span := spans.provider.Tracer("test").Start(context.Background(), "made "+msg.UUID)
		msg.SetContext(ctx)
		span.End()
	}
	if err := tr.Publisher(new(published)).Publish("archive", a, b); err != nil {
		t.Fatal(err)
	}
	if s := spans.span(t, "publish archive"); s.Parent().IsValid() {
		t.Errorf("the parent is %v", s.Parent())
	}
}

func TestTracing_without_a_provider_and_a_propagator_changes_nothing(t *testing.T) {
	tr := tracing.New(tracing.Config{Provider: noop.NewTracerProvider()})
	msg := recordMessage(1)
	came := msg.Context()
	out := new(published)
	handle := tr.Middleware(func(msg *message.Message) ([]*message.Message, error) {
		b := &batching.Batch{Messages: []*message.Message{msg}}
		return []*message.Message{msg}, tr.Batch(batching.PublishTo(tr.Publisher(out), "x"))(context.Background(), b)
	})
	if _, err := handle(msg); err != nil {
		t.Fatal(err)
	}
	if len(msg.Metadata) != 0 || msg.Context() != came || len(out.messages) != 1 || len(out.messages[0].Metadata) != 0 {
		t.Errorf("metadata %v, published %v", msg.Metadata, out.messages)
	}
}

// BenchmarkMiddleware/none measures the cost of the message itself.
func BenchmarkMiddleware(b *testing.B) {
	b.Run("none", func(b *testing.B) {
		b.ReportAllocs()
		for b.Loop() {
			if _, err := succeed(recordMessage(1)); err != nil {
				b.Fatal(err)
			}
		}
	})
	for name, provider := range map[string]trace.TracerProvider{
		"off":       noop.NewTracerProvider(),
		"unsampled": sdktrace.NewTracerProvider(sdktrace.WithSampler(sdktrace.NeverSample())),
		"recorded":  sdktrace.NewTracerProvider(),
	} {
		b.Run(name, func(b *testing.B) {
			handle := tracing.New(tracing.Config{Provider: provider, Propagator: propagation.TraceContext{}}).Middleware(succeed)
			b.ReportAllocs()
			for b.Loop() {
				if _, err := handle(recordMessage(1)); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}
