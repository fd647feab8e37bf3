package batching

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"sync"
	"time"

	"github.com/ThreeDotsLabs/watermill/message"

	"github.com/watermill-ots/watermill-ots/ack"
)

// source is a subscriber that keeps the order of each key as ack.Delivery promises
// it. It is written to be obviously right: one list, searched from the front at each
// event. It redelivers until all records are acked.
//
// A record is delivered when all earlier ones of its key are acked or handed
// off, none of its key is still called back, its backoff is over, and fewer than window
// records are live.
type source struct {
	window  int
	backoff time.Duration
	plain   bool // provides no Delivery and keeps no order
	tells   bool // its Deliveries are ack.Enders
	defers  bool // its Deliveries are ack.Deferrers
	out     chan *message.Message
	pumps   sync.WaitGroup // goroutines of the source

	mu       sync.Mutex
	records  []*record
	byKey    map[string][]*record // the same records
	hurry    chan struct{}
	draining bool
	drained  chan struct{} // closed when draining and no record is live
	faults   []error       // of the middleware
}

type recordState int

const (
	queued recordState = iota
	delivered
	handedOff // waits in a batch
	begun     // its batch runs
	failed    // has called back the records behind it, not settled
	calledBack
	acked
)

type record struct {
	src      *source
	id, key  string
	state    recordState
	attempt  int
	failures int
	retryAt  time.Time
	cancel   context.CancelCauseFunc // of the live attempt
	listener ack.Listener            // of the live attempt; nil unless it is deferred
	acked    <-chan struct{}         // of the live attempt's message
}

func (s recordState) live() bool { return s != queued && s != acked }

func newSource(window int, backoff time.Duration) *source {
	return &source{
		window: window, backoff: backoff,
		out: make(chan *message.Message), byKey: make(map[string][]*record),
		hurry: make(chan struct{}), drained: make(chan struct{}),
	}
}

// add appends a record; a record without a key has no order.
func (s *source) add(id, key string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	r := &record{src: s, id: id, key: key}
	s.records = append(s.records, r)
	s.byKey[key] = append(s.byKey[key], r)
	s.pump()
}

// pump delivers the records that may be delivered. The caller holds mu.
func (s *source) pump() {
	if s.draining {
		return
	}
	live, waiting, more := 0, 0, false
	for _, r := range s.records {
		if r.state.live() {
			live++
		}
		if r.state == handedOff {
			waiting++
		}
		more = more || r.state == queued
	}
	for _, r := range s.records {
		if live == s.window {
			break
		}
		if s.deliverable(r) {
			s.deliver(r)
			live++
		}
	}
	if more && live == s.window && waiting == live {
		close(s.hurry)
		s.hurry = make(chan struct{})
	}
}

func (s *source) deliverable(r *record) bool {
	if r.state != queued || time.Now().Before(r.retryAt) {
		return false
	}
	if r.key == "" || s.plain {
		return true
	}
	before := true
	for _, o := range s.byKey[r.key] {
		switch {
		case o == r:
			before = false
		case o.state == calledBack:
			return false
		case before && o.state != acked && o.state != handedOff && o.state != begun:
			return false
		}
	}
	return true
}

// deliver delivers one record. The caller holds mu.
func (s *source) deliver(r *record) {
	r.state = delivered
	r.attempt++
	d := &testDelivery{r: r, attempt: r.attempt, settled: make(chan struct{})}
	ctx, cancel := context.WithCancelCause(context.Background())
	r.cancel, r.listener = cancel, nil
	msg := message.NewMessageWithContext(ctx, r.id, []byte("payload of "+r.id))
	switch {
	case s.plain:
	case s.defers:
		msg.SetContext(ack.NewContext(ctx, &deferredDelivery{testDelivery: d, ctx: ctx, msg: msg}))
	case s.tells:
		msg.SetContext(ack.NewContext(ctx, endedDelivery{d, ctx}))
	default:
		msg.SetContext(ack.NewContext(ctx, d))
	}
	r.acked = msg.Acked()
	msg.Metadata.Set("key", r.key)
	msg.Metadata.Set("index", strings.TrimLeft(r.id, "kji"))
	msg.Metadata.Set("attempt", fmt.Sprint(r.attempt))
	s.pumps.Go(func() {
		s.out <- msg
		acked := false
		select {
		case <-msg.Acked():
			acked = true
		case <-msg.Nacked():
		case <-d.settled:
		}
		if !closed(d.settled) {
			s.settle(d, acked)
		}
		cancel(nil)
	})
}

// settle is called with the outcome of an attempt.
func (s *source) settle(d *testDelivery, ok bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	r := d.r
	switch {
	case r.state == calledBack:
		r.state = queued
	case ok:
		r.state = acked
	default:
		r.takeBackLater(errors.New("nacked"))
		r.failures++
		r.state = queued
		r.retryAt = time.Now().Add(s.backoff)
		s.pumps.Go(func() {
			time.Sleep(s.backoff)
			s.mu.Lock()
			defer s.mu.Unlock()
			s.pump()
		})
	}
	s.pump()
	if s.draining {
		s.checkDrained()
	}
}

// takeBackLater takes back the later records of the key. The caller holds the
// source's mu.
func (r *record) takeBackLater(cause error) {
	if r.key == "" || r.src.plain {
		return
	}
	behind := false
	for _, o := range r.src.records {
		if o == r {
			behind = true
			continue
		}
		if behind && o.key == r.key && o.state.live() && o.state != calledBack {
			o.state = calledBack
			o.end(fmt.Errorf("%w: %w", ack.ErrCalledBack, cause))
		}
	}
}

// drain stops the deliveries and hurries waiting messages.
func (s *source) drain() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.draining = true
	close(s.hurry)
	s.checkDrained()
}

func (s *source) checkDrained() {
	for _, r := range s.records {
		if r.state.live() {
			return
		}
	}
	select {
	case <-s.drained:
	default:
		close(s.drained)
	}
}

// fence cancels all live attempts: the channel is lost.
func (s *source) fence(cause error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.draining = true
	for _, r := range s.records {
		if r.state.live() {
			r.end(cause)
		}
	}
}

// count returns how many records are in the state.
func (s *source) count(state recordState) int {
	s.mu.Lock()
	defer s.mu.Unlock()
	n := 0
	for _, r := range s.records {
		if r.state == state {
			n++
		}
	}
	return n
}

func (s *source) find(id string) record {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, r := range s.records {
		if r.id == id {
			return *r
		}
	}
	panic("no record " + id)
}

// faultsFound returns the middleware's faults so far.
func (s *source) faultsFound() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	return errors.Join(s.faults...)
}

// testDelivery is one attempt; its methods have no effect after its end.
type testDelivery struct {
	r       *record
	attempt int
	handed  bool          // guarded by source.mu
	settled chan struct{} // closed by deferredDelivery.Settle
}

func (d *testDelivery) Key() string { return d.r.key }

func (d *testDelivery) Hurry() <-chan struct{} {
	d.r.src.mu.Lock()
	defer d.r.src.mu.Unlock()
	return d.r.src.hurry
}

func (d *testDelivery) HandOff() {
	d.do(func(r *record) {
		d.handed = true
		if r.state == delivered {
			r.state = handedOff
			r.src.pump()
		}
	})
}

func (d *testDelivery) Begin() {
	d.do(func(r *record) {
		if !d.handed {
			r.src.faults = append(r.src.faults, fmt.Errorf("%s: Begin before HandOff", r.id))
		}
		if r.state == handedOff {
			r.state = begun
		}
	})
}

func (d *testDelivery) CallBack(cause error) {
	d.do(func(r *record) {
		if cause == nil {
			r.src.faults = append(r.src.faults, fmt.Errorf("%s: CallBack without a cause", r.id))
		}
		if r.state == delivered || r.state == handedOff || r.state == begun {
			r.state = failed
			r.takeBackLater(cause)
		}
	})
}

func (d *testDelivery) do(f func(*record)) {
	d.r.src.mu.Lock()
	defer d.r.src.mu.Unlock()
	if d.r.attempt == d.attempt && d.r.state.live() {
		f(d.r)
	}
}

// end ends the live attempt. The caller holds the source's mu: listeners must not call
// deliveries.
func (r *record) end(cause error) {
	r.cancel(cause)
	if l := r.listener; l != nil {
		r.listener = nil
		l.DeliveryEnded()
	}
}

// errJoined is what a handler returns to route when its message is deferred.
var errJoined = errors.New("joined")

// deferredDelivery is a testDelivery that can be deferred. It finds wrong calls.
type deferredDelivery struct {
	*testDelivery
	ctx      context.Context
	msg      *message.Message
	deferred bool // guarded by source.mu
}

func (d *deferredDelivery) Defer(l ack.Listener) bool {
	s := d.r.src
	s.mu.Lock()
	defer s.mu.Unlock()
	if d.ctx.Err() != nil {
		return false
	}
	d.deferred, d.r.listener = true, l
	return true
}

func (d *deferredDelivery) Settle(err error) {
	s := d.r.src
	s.mu.Lock()
	if !d.deferred {
		s.faults = append(s.faults, fmt.Errorf("%s is settled a second time, or was not deferred", d.r.id))
	}
	d.deferred = false
	if d.r.attempt == d.attempt {
		d.r.listener = nil
	}
	for _, o := range s.byKey[d.r.key] {
		if o == d.r || d.r.key == "" || err != nil || d.r.state == calledBack || d.ctx.Err() != nil {
			break
		}
		if o.state != acked && !closed(o.acked) {
			s.faults = append(s.faults, fmt.Errorf("%s is acked before %s of its key, in state %d", d.r.id, o.id, o.state))
		}
	}
	s.mu.Unlock()
	close(d.settled)
	if err == nil {
		d.msg.Ack()
	} else {
		d.msg.Nack()
	}
	s.settle(d.testDelivery, err == nil)
}

func (d *deferredDelivery) BeginAll(all []ack.Deferrer) {
	for _, o := range all {
		o.Begin()
	}
}

func (d *deferredDelivery) AckAll(all []ack.Deferrer) {
	for _, o := range all {
		o.Settle(nil)
	}
}

// Subscribe implements message.Subscriber.
func (s *source) Subscribe(context.Context, string) (<-chan *message.Message, error) {
	return s.out, nil
}

// Close implements message.Subscriber: it drains and closes the output.
func (s *source) Close() error {
	s.drain()
	<-s.drained
	s.pumps.Wait()
	close(s.out)
	return nil
}

// route handles each message in its own goroutine, acks and nacks, as
// Watermill's Router does, until the source is closed. The channel it returns
// is closed when the last handler has returned.
func (s *source) route(h message.HandlerFunc) <-chan struct{} {
	stopped := make(chan struct{})
	go func() {
		defer close(stopped)
		var handlers sync.WaitGroup
		for msg := range s.out {
			handlers.Go(func() {
				defer func() {
					if recover() != nil {
						msg.Nack()
					}
				}()
				if _, err := h(msg); errors.Is(err, errJoined) {
					return // its outcome goes to its delivery
				} else if err != nil {
					msg.Nack()
					return
				}
				msg.Ack()
			})
		}
		handlers.Wait()
	}()
	return stopped
}

// ledger watches batch handlers: records of a key must be handled in order, and
// never by two batches at once.
type ledger struct {
	mu        sync.Mutex
	unordered bool                // no order is promised, only that no two batches share a key
	order     map[string][]string // by key: all record ids in order
	succeeded map[string]bool
	running   map[string]bool // keys
	faults    []error
}

func newLedger() *ledger {
	return &ledger{order: map[string][]string{}, succeeded: map[string]bool{}, running: map[string]bool{}}
}

func (l *ledger) expect(id, key string) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.order[key] = append(l.order[key], id)
}

// begin checks that the batch may run.
func (l *ledger) begin(msgs []*message.Message) {
	l.mu.Lock()
	defer l.mu.Unlock()
	here := map[string]bool{}
	keys := map[string]bool{}
	for _, m := range msgs {
		key := m.Metadata.Get("key")
		if key == "" {
			continue
		}
		for _, id := range l.order[key] {
			if id == m.UUID {
				break
			}
			if !l.unordered && !l.succeeded[id] && !here[id] {
				l.faults = append(l.faults, fmt.Errorf("%s is handled before %s (key %s)", m.UUID, id, key))
			}
		}
		here[m.UUID] = true
		keys[key] = true
	}
	for key := range keys {
		if l.running[key] {
			l.faults = append(l.faults, fmt.Errorf("two batches with key %s run at once", key))
		}
		l.running[key] = true
	}
}

// end records which of the batch's messages succeeded.
func (l *ledger) end(msgs []*message.Message, ok func(*message.Message) bool) {
	l.mu.Lock()
	defer l.mu.Unlock()
	broken := map[string]bool{} // keys with a failed message: the later ones are called back
	for _, m := range msgs {
		key := m.Metadata.Get("key")
		l.succeeded[m.UUID] = ok(m) && !broken[key]
		if !ok(m) && key != "" && !l.unordered {
			broken[key] = true
		}
		delete(l.running, key)
	}
}

func (l *ledger) err() error {
	l.mu.Lock()
	defer l.mu.Unlock()
	return errors.Join(l.faults...)
}
