package batching

import (
	"fmt"
	"hash/maphash"
	"time"

	"github.com/watermill-ots/watermill-ots/ack"
)

// turn is a message's place among the messages of its ordering key. It begins when
// the message joins and lasts until the message is settled. That is later than the
// return of its handler: the Router still publishes, and outer middlewares still run.
//
// The turns of a key form a chain in the order of joining. A message's handler
// returns only when the previous message is settled, so at most the first message of
// a chain has returned. Messages that were called back are exempt: their outcome is
// ignored.
//
// A turn keeps its message's channels, not the message, so that a finished message
// can be freed before the next one of its key arrives.
//
// Batching.mu guards the fields, with two exceptions: the channels do not change,
// and the goroutine of a message that waits may read prev once its batch is done, because
// then only this goroutine writes it.
type turn struct {
	acked, nacked <-chan struct{} // the message's
	ended         <-chan struct{} // closed when the subscriber no longer waits for the outcome
	exact         bool            // ended comes from the Delivery; else from the message's context
	delivered     bool            // the message has a Delivery: its subscriber calls back

	item      *item  // nil once its batch is done or it has left
	hash      uint64 // of the key
	left      bool   // the item has left before its batch ran
	revoked   bool   // an earlier message of the key failed, and the subscriber cannot call this one back
	deferred  bool   // the item is
	concluded bool   // of a deferred item: as known

	prev, next *turn
	row        *row // nil for the only turn of its key
}

// row is shared by the turns of one key once there are two.
type row struct{ head *turn }

// turns are the latest turns of all ordering keys. Batching.mu guards it.
//
// Keys are hashed: a key may be a view that keeps a whole page in memory. If two keys
// have the same hash, their messages are ordered without need, which is harmless.
type turns struct {
	seed    maphash.Seed
	latest  map[uint64]*turn
	sweepAt int // the number of turns at which sweep drops the settled ones
}

// minSweep is the least number of turns for a sweep.
const minSweep = 256

func newTurns() turns {
	return turns{seed: maphash.MakeSeed(), latest: make(map[uint64]*turn), sweepAt: minSweep}
}

// settled reports whether the message was acked or nacked, or will not be.
func (t *turn) settled() bool {
	return t.known() || closed(t.acked) || closed(t.nacked)
}

// known reports whether the subscriber knows that the message is settled. In that
// case it has already taken back the later messages of the key if the message failed.
func (t *turn) known() bool { return t.concluded || t.exact && closed(t.ended) }

// over reports whether the turn, the latest of its key, no longer affects later
// messages. A turn that has left its batch still does while earlier ones are ahead
// of it. So does a nacked turn until its subscriber has seen the nack: a message that
// was delivered just before that must be taken back.
func (t *turn) over() bool {
	if t.item != nil || !t.settled() || t.ahead() != nil {
		return false
	}
	return !t.delivered || t.concluded || closed(t.acked) || closed(t.ended)
}

// again reports whether the chain that ends in t begins with the message whose acked
// channel is given: its handler returned, and it joins a second time, as with Retry
// outside.
func (t *turn) again(acked <-chan struct{}) bool {
	head := t
	if t.row != nil {
		head = t.row.head
	}
	return head.item == nil && head.acked == acked
}

// hash returns the key of latest for an ordering key.
func (ts *turns) hash(key string) uint64 { return maphash.String(ts.seed, key) }

// take appends the item to the chain of its key, whose hash is h.
func (ts *turns) take(it *item, h uint64) {
	var t *turn
	if it.deferred != nil {
		t = &it.deferred.place // one allocation less
	} else {
		t = new(turn)
	}
	*t = turn{acked: it.msg.Acked(), nacked: it.msg.Nacked(), ended: it.ended, exact: it.exact, delivered: it.delivery != nil, item: it, hash: h, deferred: it.deferred != nil}
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

// unlink removes a turn that no longer affects others from the chain of its key.
func (ts *turns) unlink(t *turn) {
	switch {
	case t.next != nil:
		t.next.prev = t.prev
	case ts.latest[t.hash] != t:
	case t.prev != nil:
		ts.latest[t.hash] = t.prev
	default:
		delete(ts.latest, t.hash)
	}
	if t.prev != nil {
		t.prev.next = t.next
	}
	if t.row != nil && t.row.head == t {
		t.row.head = t.next
	}
	t.prev, t.next = nil, nil // or a key that always has messages would keep all of its items
}

// sweep drops turns that are over. It also drops turns of messages that have ended
// but never become settled, because a middleware passed on a copy.
func (ts *turns) sweep() {
	for h, t := range ts.latest {
		if t.over() || t.item == nil && closed(t.ended) && t.ahead() == nil {
			delete(ts.latest, h)
		}
	}
	ts.sweepAt = max(minSweep, 2*len(ts.latest))
}

// ahead returns the nearest earlier message of the key that is parked or whose
// batch is not done, or nil.
func (t *turn) ahead() *item {
	for p := t.prev; p != nil; p = p.prev {
		if p.left {
			continue
		}
		return p.item // nil: its batch is done, and so are those before it
	}
	return nil
}

// rejoins reports whether the item is a message that joins a second time although it
// is not settled. In that case it revokes the messages behind it, which must be
// redelivered after it.
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

// revoke takes back t and the messages behind it if their subscriber does not do so
// itself. Those whose batch has not started are not handled.
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

// errRevoked is the outcome of a message behind a failed one whose subscriber cannot
// call it back: the message is nacked.
var errRevoked = fmt.Errorf("batching: not completely handled: %w", ack.ErrCalledBack)

// settleGrace is how long a message waits for the previous one to be settled after
// the previous one's context has ended. A context that a middleware such as Timeout
// created ends before the message is settled.
const settleGrace = time.Second

// awaitTurn waits until the previous message of the item's key is settled. It
// returns an error if the item's own outcome does not count, because an earlier
// message of its key failed.
func (b *Batching) awaitTurn(it *item) error {
	ended := it.ended
	for {
		p, revoked := b.before(it.turn)
		if p == nil {
			switch {
			case revoked:
				return errRevoked
			case it.calledBack(): // by the previous message, of which only the end was seen
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
			// subscriber stops. The order still holds.
			ended = nil
		}
	}
}

// before returns the turn that t waits for, or nil when it is t's turn. It also
// reports whether t is revoked.
func (b *Batching) before(t *turn) (p *turn, revoked bool) {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.previous(t)
}

// previous is before; Batching.mu must be held.
func (b *Batching) previous(t *turn) (p *turn, revoked bool) {
	for ; t.prev != nil; t.prev = t.prev.prev {
		p := t.prev
		switch {
		case p.acked == t.acked, p.left, p.revoked: // the same message, or one whose outcome is ignored
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

// pass lets the messages behind p continue although p was never seen settled.
func (b *Batching) pass(p *turn) {
	b.mu.Lock()
	defer b.mu.Unlock()
	p.left = true
}

// failedBefore takes the item back because the previous message was nacked after its
// batch had succeeded. Without a Delivery the item and those behind it are revoked
// and still wait for their turns.
func (b *Batching) failedBefore(it *item) error {
	if it.delivery == nil {
		b.mu.Lock()
		defer b.mu.Unlock()
		b.revoke(it.turn)
		return nil
	}
	// The nack makes the subscriber call this message back.
	timer := time.NewTimer(settleGrace)
	defer timer.Stop()
	select {
	case <-it.ended:
		return it.goneError()
	case <-timer.C:
		return errRevoked
	}
}

// settledWithin waits at most d for the message to be acked or nacked, and reports
// whether it was.
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
