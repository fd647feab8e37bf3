package batching

import (
	"fmt"
	"hash/maphash"
	"time"

	"github.com/watermill-ots/watermill-ots/ack"
)

// turn is a message's place among the messages of its ordering key. It begins
// when the message joins and lasts until the message is settled, which is after
// its handler has returned: what a Router publishes, or an outer middleware
// does, comes in between.
//
// The turns of a key form a chain in the order of joining. A message's handler
// returns only when the message before it is settled, so at most the first of a
// chain has returned. Messages that were called back are exempt: their
// outcome is ignored.
//
// A turn keeps channels of its message, not the message, so that a message that
// is done can be freed while the next one of its key is still looked for.
//
// Batching.mu guards the fields, except that the channels are not changed and
// that the message's own goroutine may read prev once its batch is done: from
// then on only this goroutine writes it.
type turn struct {
	acked, nacked <-chan struct{} // the message's
	ended         <-chan struct{} // closed when the subscriber does not wait for the outcome any more
	exact         bool            // ended comes from the Delivery; else from the message's context
	delivered     bool            // by a subscriber that calls back itself

	item    *item // nil once its batch is done or it has left
	left    bool  // the item has left before its batch ran
	revoked bool  // an earlier message of the key failed, and no subscriber calls this one back

	prev, next *turn
	row        *row // nil while the turn is alone
}

// row is what the turns of one key share once there are two.
type row struct{ head *turn }

// turns are the latest turns of all ordering keys. Batching.mu guards it.
//
// Keys are hashed: a key may be a view of a whole page, and equal hashes of two
// keys only order their messages unnecessarily.
type turns struct {
	seed    maphash.Seed
	latest  map[uint64]*turn
	sweepAt int // how many there may be before the settled ones are dropped
}

// minSweep is how many turns are not worth a sweep.
const minSweep = 256

func newTurns() turns {
	return turns{seed: maphash.MakeSeed(), latest: make(map[uint64]*turn), sweepAt: minSweep}
}

// settled reports whether the message was acked or nacked, or will not be.
func (t *turn) settled() bool {
	return closed(t.acked) || closed(t.nacked) || t.known()
}

// known reports whether the subscriber knows that the message is settled. Then
// it has taken back the later messages of the key if it had to.
func (t *turn) known() bool { return t.exact && closed(t.ended) }

// over reports whether the turn, the latest of its key, matters to none that
// comes later. One that has left its batch still stands for those ahead of it.
// So does one that is nacked until its subscriber has seen that: a message that
// was delivered just before is to be taken back.
func (t *turn) over() bool {
	if t.item != nil || !t.settled() || t.ahead() != nil {
		return false
	}
	return !t.delivered || closed(t.acked) || closed(t.ended)
}

// again reports whether the chain that ends in t begins with a message that has
// returned and now joins once more, as with Retry outside: acked is its channel.
func (t *turn) again(acked <-chan struct{}) bool {
	head := t
	if t.row != nil {
		head = t.row.head
	}
	return head.item == nil && head.acked == acked
}

// hash returns what the turns of an ordering key are found by.
func (ts *turns) hash(key string) uint64 { return maphash.String(ts.seed, key) }

// take gives the item the last place of its key, whose hash is h.
func (ts *turns) take(it *item, h uint64) {
	t := &turn{acked: it.msg.Acked(), nacked: it.msg.Nacked(), ended: it.ended, exact: it.exact, delivered: it.delivery != nil, item: it}
	it.turn = t
	if last := ts.latest[h]; last != nil && !last.over() {
		if last.row == nil {
			last.row = &row{head: last}
		}
		t.row = last.row
		t.prev, last.next = last, t
	}
	ts.latest[h] = t
	if len(ts.latest) >= ts.sweepAt {
		ts.sweep()
	}
}

// sweep drops turns that are over, and those that will never be seen settled,
// because a middleware has handed on a copy of the message.
func (ts *turns) sweep() {
	for h, t := range ts.latest {
		if t.over() || t.item == nil && closed(t.ended) && t.ahead() == nil {
			delete(ts.latest, h)
		}
	}
	ts.sweepAt = max(minSweep, 2*len(ts.latest))
}

// ahead returns the nearest earlier message of the key that is parked or whose
// batch is not done, nil if there is none.
func (t *turn) ahead() *item {
	for p := t.prev; p != nil; p = p.prev {
		if p.left {
			continue
		}
		return p.item // nil: its batch is done, and so are those before it
	}
	return nil
}

// rejoins prepares for a message that comes once more although it is not
// settled: the messages behind it must be redelivered behind it. It reports
// whether the item is such a message.
func (b *Batching) rejoins(it *item, h uint64) bool {
	last := b.latest[h]
	if last == nil || !last.again(it.msg.Acked()) {
		return false
	}
	if last.row != nil {
		b.revoke(last.row.head.next)
	}
	return true
}

// revoke takes back the messages from t on, of a subscriber that does not do so
// itself. Those whose batch does not run are not handled any more.
func (b *Batching) revoke(t *turn) {
	for ; t != nil; t = t.next {
		t.revoked = !t.delivered
	}
}

// revokeBehind takes back the messages behind the item, which has failed.
func (b *Batching) revokeBehind(it *item) {
	if it.turn == nil || it.turn.delivered {
		return
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	b.revoke(it.turn.next)
}

// errRevoked is the outcome of a message behind one that failed, with a
// subscriber that cannot call it back: the message is nacked.
var errRevoked = fmt.Errorf("batching: not handled to its end: %w", ack.ErrCalledBack)

// settleGrace is how long a message waits for the settlement of the one before
// it when only the context of that one has ended. A context ends before the
// settlement when a middleware such as Timeout made it.
const settleGrace = time.Second

// awaitTurn waits until the message before the item is settled. It returns an
// error when the item's own outcome does not count, because an earlier message
// of its key failed. It does nothing for a key that occurs once.
func (b *Batching) awaitTurn(it *item) error {
	if it.turn == nil || it.turn.prev == nil {
		return nil
	}
	ended := it.ended
	for {
		p, revoked := b.before(it.turn)
		if p == nil {
			switch {
			case revoked:
				return errRevoked
			case it.calledBack(): // by the message before, of which only its end was seen
				return errCalledBack
			}
			return nil
		}
		select {
		case <-p.acked:
		case <-p.nacked:
			if err := b.failedBefore(it); err != nil {
				return err
			}
		case <-p.ended:
			if !p.exact && !settledWithin(p, settleGrace) {
				b.pass(p)
			}
		case <-ended:
			if it.gone() {
				return it.goneError()
			}
			// Without a Delivery the end of the context only says that the
			// subscriber stops. The order holds all the same.
			ended = nil
		}
	}
}

// before returns the turn that t waits for, nil when its own has come, and
// whether t is revoked.
func (b *Batching) before(t *turn) (p *turn, revoked bool) {
	b.mu.Lock()
	defer b.mu.Unlock()
	for ; t.prev != nil; t.prev = t.prev.prev {
		p := t.prev
		switch {
		case p.acked == t.acked, p.left, p.revoked: // the same message once more, or one whose outcome is ignored
		case p.settled() && (t.revoked || p.known() || !closed(p.nacked)):
		default:
			return p, t.revoked
		}
	}
	if t.row != nil {
		t.row.head = t
	}
	return nil, t.revoked
}

// pass lets those behind p go although p was never seen settled.
func (b *Batching) pass(p *turn) {
	b.mu.Lock()
	defer b.mu.Unlock()
	p.left = true
}

// failedBefore takes the item back, because the message before it was nacked
// after its batch had succeeded. Without a Delivery the item and those behind it
// are revoked, and still wait for their turns.
func (b *Batching) failedBefore(it *item) error {
	if it.delivery == nil {
		b.mu.Lock()
		defer b.mu.Unlock()
		b.revoke(it.turn)
		return nil
	}
	// The nack has the subscriber call this message back.
	timer := time.NewTimer(settleGrace)
	defer timer.Stop()
	select {
	case <-it.ended:
		return it.goneError()
	case <-timer.C:
		return errRevoked
	}
}

// settledWithin waits for the message to be acked or nacked.
func settledWithin(t *turn, d time.Duration) bool {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-t.acked:
	case <-t.nacked:
	case <-timer.C:
		return false
	}
	return true
}

func closed(c <-chan struct{}) bool {
	select {
	case <-c:
		return true
	default:
		return false
	}
}
