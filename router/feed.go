package router

import (
	"context"
	"fmt"
	"sync"

	"github.com/ThreeDotsLabs/watermill/message"

	"github.com/watermill-ots/watermill-ots/ack"
)

// feed gives messages to a pipeline as a subscriber does, one attempt each:
// the messages of an ordering key one after the other, the next one when the
// one before is done or waits in a batch, and none any more once one has failed.
//
// Goroutines: one for each message; run waits for all.
//
// Invariant: a message that was not let go (let is open) has none of its key
// behind it at work.
type feed struct {
	handle func(*message.Message) error
	hurry  chan struct{} // closed when no more messages will come to wait

	mu     sync.Mutex      // guards what follows and the fed messages' states
	held   int             // messages that were not let go
	broken map[string]bool // keys of which a message has failed
	all    []*fed
}

// fed is one message on its way, and what its context carries of it.
type fed struct {
	feed   *feed
	msg    *message.Message
	key    string
	place  int             // in feed.all
	after  <-chan struct{} // closed when it may begin; nil: at once
	let    chan struct{}   // closed when those that wait for it may begin
	cancel context.CancelCauseFunc

	state fedState
	isLet bool
	err   error
}

type fedState uint8

const (
	fedWaiting fedState = iota
	fedRunning
	fedFailed     // said CallBack, or ended with an error; those behind it do not begin
	fedCalledBack // its outcome does not count
	fedDone
)

var _ ack.Delivery = (*fed)(nil)

// run feeds messages and returns the outcome of each: nil, its error, or one that wraps
// ack.ErrCalledBack when an earlier message of its key failed. keys are the
// ordering keys; "" is none. When oneByOne is set, each message waits until the
// one before it, of whatever key, is let go, so that batches are made in a known way.
func (f *feed) run(ctx context.Context, messages []*message.Message, keys []string, oneByOne bool) []error {
	f.hurry = make(chan struct{})
	f.held, f.broken = len(messages), make(map[string]bool)
	last := make(map[string]<-chan struct{})
	for i, msg := range messages {
		m := &fed{feed: f, msg: msg, key: keys[i], place: i, let: make(chan struct{})}
		if oneByOne && i > 0 {
			m.after = f.all[i-1].let
		} else if m.key != "" {
			m.after = last[m.key]
		}
		last[m.key] = m.let
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
	defer m.letGo()
	if m.after != nil {
		<-m.after // let is closed by everybody in the end
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

// begin returns an error if a message of the key has failed before.
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

// fail needs the feed's mu. None of the key begins any more.
func (m *fed) fail() {
	m.state = fedFailed
	if m.key != "" {
		m.feed.broken[m.key] = true
	}
}

func (m *fed) letGo() {
	m.feed.mu.Lock()
	defer m.feed.mu.Unlock()
	if m.isLet {
		return
	}
	m.isLet = true
	close(m.let)
	m.feed.held--
	if m.feed.held == 0 {
		close(m.feed.hurry)
	}
}

// Key implements ack.Delivery.
func (m *fed) Key() string { return m.key }

// HandOff implements ack.Delivery.
func (m *fed) HandOff() { m.letGo() }

// Begin implements ack.Delivery.
func (m *fed) Begin() {}

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
	for _, cancel := range taken { // runs callbacks of others: not under the lock
		cancel(fmt.Errorf("%w: %w", ack.ErrCalledBack, cause))
	}
}

// Hurry implements ack.Delivery.
func (m *fed) Hurry() <-chan struct{} { return m.feed.hurry }
