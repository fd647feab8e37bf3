package batching

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	"github.com/ThreeDotsLabs/watermill"
	"github.com/ThreeDotsLabs/watermill/message"

	"github.com/watermill-ots/watermill-ots/internal/closing"
)

// closeGrace is how long Close waits for batch handlers to return after it has
// cancelled their contexts.
const closeGrace = time.Second

// errCalledBack is the outcome of a message that was called back.
var errCalledBack = errors.New("batching: message called back")

// errHandledAgain is the reason with which later messages are called back when a
// message passes the middleware a second time, as with Retry outside.
var errHandledAgain = errors.New("batching: the message is handled again")

// Batching is a Watermill middleware that groups messages into batches. One
// Batching may serve several Router handlers; their messages then share its
// batches. All methods are safe for concurrent use.
//
// The scheduling (schedule.go) is a state machine under one mutex. The mutex is not
// held while messages wait, handlers run or methods of a Delivery are called. There
// is one goroutine for each running batch, one timer for each open batch, and with Join
// one goroutine for each signal of a subscriber and each message that fails.
//
// Invariants, besides those of schedule:
//   - A message is in at most one batch, and its handler returns only when no
//     batch handler is using the message.
//   - HandOff is called after the message has its place, Begin after HandOff, and
//     CallBack before the batches behind the message may run and before the
//     middleware returns the error.
type Batching struct {
	logger       watermill.LoggerAdapter
	orderingKey  func(*message.Message) string // nil: none
	onBatch      func(Handled)                 // nil: not set
	nameOf       func(*message.Message) string
	closeTimeout time.Duration
	scope        func(*message.Message) string // nil: one scope
	batchers     map[string]*shared            // not changed after New

	ctx    context.Context // parent of every batch handler's; ends after CloseTimeout
	cancel context.CancelCauseFunc
	runs   sync.WaitGroup // the goroutines of running batches; Close waits

	ended closing.Once // by Close

	mu sync.Mutex // guards what follows and all of schedule.go's state
	schedule
	signals signals
}

// New checks cfg and returns a Batching. It starts no goroutine. The error wraps
// ErrInvalidConfig and lists all faults. A nil logger discards the log.
func New(cfg Config, logger watermill.LoggerAdapter) (*Batching, error) {
	if logger == nil {
		logger = watermill.NopLogger{}
	}
	cfg = cfg.withDefaults()
	if err := cfg.validate(); err != nil {
		return nil, err
	}
	b := &Batching{
		logger:       logger,
		orderingKey:  cfg.OrderingKey,
		onBatch:      cfg.OnBatch,
		nameOf:       cfg.NameOf,
		closeTimeout: cfg.CloseTimeout,
		scope:        cfg.Scope,
		batchers:     make(map[string]*shared, len(cfg.Batchers)),
		schedule:     newSchedule(),
		signals:      newSignals(),
	}
	if b.nameOf == nil {
		b.nameOf = func(msg *message.Message) string { return msg.UUID }
	}
	b.ctx, b.cancel = context.WithCancelCause(context.Background())
	for name, c := range cfg.Batchers {
		b.batchers[name] = newShared(name, c, cfg.Scope != nil)
		if cfg.MaxInFlight > 0 && c.Size > cfg.MaxInFlight {
			logger.Info("Batches of this batcher can never be full: Size exceeds the messages in flight", watermill.LogFields{
				"batcher": name, "size": c.Size, "max_in_flight": cfg.MaxInFlight,
			})
		}
	}
	return b, nil
}

// Middleware calls h, the processing step, and then waits until the batch that the
// message joins is done. It returns what h produced if the message succeeded, and an
// error if h or the batch failed. Before it returns an error, it has the subscriber
// take back later messages of the ordering key.
//
// When the middleware returns, the message has its original context again.
func (b *Batching) Middleware(h message.HandlerFunc) message.HandlerFunc {
	return func(msg *message.Message) ([]*message.Message, error) {
		it := newItem(msg)
		produced, err := b.handle(it, h)
		msg.SetContext(it.Context)
		if err == nil {
			return produced, nil
		}
		return nil, withoutCallBack(err)
	}
}

// withoutCallBack returns what a handler returns for a message with the outcome err. To be
// called back is not a failure: a PoisonQueue, a Retry or an error log outside must not
// treat it as one. Nor is it a success: nothing may be published.
func withoutCallBack(err error) error {
	if errors.Is(err, errCalledBack) {
		return nil
	}
	return err
}

// handle takes one message through the processing step and its batch.
func (b *Batching) handle(it *item, h message.HandlerFunc) ([]*message.Message, error) {
	if it.gone() { // ended before its handler ran: the step's result would be discarded
		return nil, it.goneError()
	}
	produced, scope, err := b.process(it, h)
	if it.calledBack() {
		return nil, errCalledBack
	}
	if err == nil {
		err = b.joinAndWait(it, scope)
	} else {
		it.callBack(err)
	}
	if err != nil {
		return nil, err
	}
	return produced, nil
}

// joinAndWait gives the item its place and waits for its outcome.
func (b *Batching) joinAndWait(it *item, scope string) error {
	it.listens()
	at, err := b.join(it, scope)
	if err != nil {
		it.callBack(err)
		return err
	}
	var hurry <-chan struct{}
	if it.delivery != nil {
		// Before HandOff, which may make the subscriber close the current Hurry channel.
		hurry = it.delivery.Hurry()
		it.handOff()
	}
	return b.wait(it, at, hurry)
}

// process calls the processing step and the user's functions that describe the
// message (prepare). It also returns the message's scope.
func (b *Batching) process(it *item, h message.HandlerFunc) (produced []*message.Message, scope string, err error) {
	finished := false
	defer func() {
		// The panic propagates to a Recoverer outside. The later messages of the
		// key must be taken back before it is handled there.
		if !finished {
			it.callBack(errProcessPanicked)
			it.msg.SetContext(it.Context)
		}
	}()

	it.msg.SetContext(it)
	produced, err = h(it.msg)
	if after := it.msg.Context(); after != context.Context(it) {
		if r := lookupRoute(it.msg); r != nil && r != &it.route {
			it.route = *r
		}
		it.msg.SetContext(newProcessedContext(it.Context, after))
	}
	switch {
	case err == nil:
		scope, err = b.prepare(it)
	case errors.Is(err, context.Canceled) && it.Err() == nil: // a call of the step's own
		err = &stepError{err}
	}
	finished = true
	return produced, scope, err
}

// prepare sets the item's batcher, ordering key and weight, and returns its scope.
// join needs them all.
func (b *Batching) prepare(it *item) (scope string, err error) {
	if it.deferred == nil && it.gone() { // Defer finds it out
		return "", it.goneError()
	}
	name := it.route.batcher
	if name == "" {
		name = DefaultBatcher
	}
	bt := b.batchers[name]
	if bt == nil {
		return "", &UnknownBatcherError{Batcher: name}
	}
	it.to = bt.whole
	switch {
	case it.delivery != nil:
		it.orderKey = it.delivery.Key()
	case b.orderingKey != nil:
		it.orderKey = b.orderingKey(it.msg)
	}
	if bt.MaxBytes > 0 {
		it.weight = max(0, bt.SizeBy(it.msg))
	}
	if b.scope != nil {
		scope = b.scope(it.msg)
	}
	return scope, nil
}

// wait blocks until the item's batch is done and its turn has come, or the item
// has left. When hurry is closed, the batch should not wait for more messages.
//
// It is one frame with three cases on purpose: with more, the small stack of a
// message's goroutine would have to grow, which costs more than everything else.
func (b *Batching) wait(it *item, at spot, hurry <-chan struct{}) error {
	ended := it.ended
	hurried := false
	for {
		select {
		case <-at.changed:
			if at.in == nil || at.in.split {
				at = b.spotOf(it)
				continue
			}
			return b.conclude(it)
		case <-hurry:
			b.hurry(it)
			if hurry = nil; !hurried { // the reason may have been another one than the drain
				hurry, hurried = it.draining, true
			}
		case <-ended:
			ended = nil
			if b.end(it) {
				return it.goneError()
			}
		}
	}
}

// conclude returns the outcome of an item whose batch is done, when its turn has
// come.
func (b *Batching) conclude(it *item) error {
	err := it.outcome()
	if it.turn == nil || it.turn.prev == nil || errors.Is(err, errCalledBack) {
		return err
	}
	// Also after a failure: the previous message must be redelivered first.
	if turned := b.awaitTurn(it); turned != nil {
		return turned
	}
	return err
}

// Close handles all open batches at once and waits until all batches are done.
// After CloseTimeout it cancels the handlers' contexts, fails the batches that have
// not started, and waits one more second. It returns ErrCloseTimeout if handlers
// still run then, otherwise nil. Messages that arrive after Close was called fail
// with ErrClosed: close the Router first.
//
// Close may be called several times and concurrently; each call waits for the end
// and returns the same error.
func (b *Batching) Close() error {
	return b.ended.Do(func() error {
		b.shut()
		return b.drain()
	})
}

// drain waits for the batches, after shut.
func (b *Batching) drain() error {
	defer b.cancel(ErrClosed) // frees the context; handlers that still run have had their cause already
	if !closing.Within(b.closeTimeout, b.idle) {
		b.cancel(ErrCloseTimeout)
		if !closing.Within(closeGrace, b.idle) {
			batches, settling := b.unfinishedWork()
			return fmt.Errorf("%w: %d batches are not done and %d messages not settled after %v", ErrCloseTimeout, batches, settling, b.closeTimeout+closeGrace)
		}
	}
	b.runs.Wait()
	return nil
}
