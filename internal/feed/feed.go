// Package feed gives messages to a pipeline without a subscriber, for Test and Replay.
package feed

import (
	"context"
	"fmt"
	"sync"

	"github.com/ThreeDotsLabs/watermill/message"

	"github.com/watermill-ots/watermill-ots/ack"
)

// feed gives messages to a pipeline as a subscriber does, one attempt each. Of an
// ordering key, a message begins when the one before it is done or waits in a batch,
// and none begins once one has failed.
//
// Goroutines: one for each message; run waits for all.
//
// Invariant: while a message is not handed off, no later message of its key is being handled.
type feed struct {
	handle func(*message.Message) error
	hurry  chan struct{} // closed when all messages are handed off: no more will join a batch

	mu     sync.Mutex      // guards what follows and the fed messages' states
	held   int             // messages that are not handed off
	broken map[string]bool // keys of which a message has failed
	all    []*fed
}

// fed is one message in the pipeline. Its context carries it as its ack.Delivery.
type fed struct {
	feed   *feed
	msg    *message.Message
	key    string
	place  int             // in feed.all
	after  <-chan struct{} // closed when it may begin; nil: at once
	next   chan struct{}   // closed when it is handed off, and the next message may begin
	cancel context.CancelCauseFunc
	done   <-chan struct{} // of its context, which ends with it; set before it is handled

	state     fedState
	handedOff bool
	err       error
}

type fedState uint8

const (
	fedWaiting fedState = iota
	fedRunning
	fedFailed     // called CallBack, or ended with an error; later ones of its key do not begin
	fedCalledBack // its outcome is ignored
	fedDone
)

var (
	_ ack.Delivery = (*fed)(nil)
	_ ack.Ender    = (*fed)(nil)
)

// Run calls handle for each message and returns the outcome of each: nil, its error, or an
// error that wraps ack.ErrCalledBack when an earlier message of its key failed. keys are
// the ordering keys; "" is none.
func Run(ctx context.Context, handle func(*message.Message) error, messages []*message.Message, keys []string) []error {
	f := feed{handle: handle}
	return f.run(ctx, messages, keys, false)
}

// RunInOrder is Run with the messages of all keys in order: each waits until the one before
// it is done or waits in a batch, so that batches always have the same messages.
func RunInOrder(ctx context.Context, handle func(*message.Message) error, messages []*message.Message, keys []string) []error {
	f := feed{handle: handle}
	return f.run(ctx, messages, keys, true)
}

func (f *feed) run(ctx context.Context, messages []*message.Message, keys []string, inOrder bool) []error {
	f.hurry = make(chan struct{})
	f.held, f.broken = len(messages), make(map[string]bool)
	last := make(map[string]<-chan struct{})
	for i, msg := range messages {
		m := &fed{feed: f, msg: msg, key: keys[i], place: i, next: make(chan struct{})}
		if inOrder && i > 0 {
			m.after = f.all[i-1].next
		} else if m.key != "" {
			m.after = last[m.key]
		}
		last[m.key] = m.next
		f.all = append(f.all, m)
	}
	var wg sync.WaitGroup
	for _, m := range f.all {
		wg.Go(func() { m.run(ctx) })
	}
	wg.Wait()
	outcomes := make([]error, len(f.all))
	for i, m := range f.all {
		outcomes[i] = m.err
	}
	return outcomes
}

func (m *fed) run(ctx context.Context) {
	defer m.HandOff()
	if m.after != nil {
		<-m.after // every message is handed off when its run returns
	}
	values := m.msg.Context()
	msgCtx, cancel := context.WithCancelCause(ack.NewContext(values, m))
	defer cancel(nil)
	unlink := context.AfterFunc(ctx, func() { cancel(context.Cause(ctx)) })
	defer unlink()

	if err := m.begin(cancel); err != nil {
		m.err = err
		return
	}
	m.done = msgCtx.Done()
	m.msg.SetContext(msgCtx)
	err := m.feed.handle(m.msg)
	m.msg.SetContext(values)

	m.feed.mu.Lock()
	defer m.feed.mu.Unlock()
	switch {
	case m.state == fedCalledBack:
		m.err = context.Cause(msgCtx)
	case err != nil:
		m.err = err
		m.fail()
	default:
		m.state = fedDone
	}
}

// begin returns an error if an earlier message of the key has failed.
func (m *fed) begin(cancel context.CancelCauseFunc) error {
	m.feed.mu.Lock()
	defer m.feed.mu.Unlock()
	if m.feed.broken[m.key] {
		m.state = fedCalledBack
		return ack.ErrCalledBack
	}
	m.state, m.cancel = fedRunning, cancel
	return nil
}

// fail needs the feed's mu. No later message of the key begins.
func (m *fed) fail() {
	m.state = fedFailed
	if m.key != "" {
		m.feed.broken[m.key] = true
	}
}

// HandOff implements ack.Delivery.
func (m *fed) HandOff() {
	m.feed.mu.Lock()
	defer m.feed.mu.Unlock()
	if m.handedOff {
		return
	}
	m.handedOff = true
	close(m.next)
	m.feed.held--
	if m.feed.held == 0 {
		close(m.feed.hurry)
	}
}

// Key implements ack.Delivery.
func (m *fed) Key() string { return m.key }

// Begin implements ack.Delivery.
func (m *fed) Begin() {}

// Done implements ack.Ender: messages are not acked here, so nothing else tells the next one
// of a key that this one has its outcome.
func (m *fed) Done() <-chan struct{} { return m.done }

// WillWait implements ack.Ender.
func (m *fed) WillWait() {}

// CallBack implements ack.Delivery.
func (m *fed) CallBack(cause error) {
	var taken []context.CancelCauseFunc
	m.feed.mu.Lock()
	if m.state == fedRunning {
		m.fail()
		for _, later := range m.feed.all[m.place+1:] {
			if m.key != "" && later.key == m.key && later.state == fedRunning {
				later.state = fedCalledBack
				taken = append(taken, later.cancel)
			}
		}
	}
	m.feed.mu.Unlock()
	for _, cancel := range taken { // may run callbacks, so not under the lock
		cancel(fmt.Errorf("%w: %w", ack.ErrCalledBack, cause))
	}
}

// Hurry implements ack.Delivery.
func (m *fed) Hurry() <-chan struct{} { return m.feed.hurry }
