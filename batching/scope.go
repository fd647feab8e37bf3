package batching

import "math/rand/v2"

// Scopes of a batcher (Config.Scope). A scope is a batcher value. The first message that
// joins creates it, and it is removed with its last message, so the number of scopes is
// bounded by the messages in flight. State that outlives messages is in shared: counters,
// the outage, the partitions. Without Config.Scope there is one scope, which is never
// removed.
//
// Batching.mu guards all state in this file.

func newShared(name string, c Batcher, scoped bool) *shared {
	s := &shared{Batcher: c, name: name, scopes: make(map[string]*batcher), partitions: c.Concurrency}
	s.whole = newBatcher(s, "")
	if !scoped {
		s.scopes[""] = s.whole
	}
	for p := c.Concurrency - 1; p >= 0; p-- {
		s.free = append(s.free, p)
	}
	return s
}

func newBatcher(s *shared, scope string) *batcher {
	return &batcher{shared: s, scope: scope, open: make(map[string]*openBatch)}
}

// in returns the batcher in a scope, for a message that joins.
func (s *shared) in(scope string) *batcher {
	bt := s.scopes[scope]
	if bt == nil {
		bt = newBatcher(s, scope)
		s.scopes[scope] = bt
	}
	return bt
}

// dismiss subtracts messages that have left, or whose batch is done.
func (bt *batcher) dismiss(messages int) {
	bt.items -= messages
	bt.forget()
}

// forget removes the scope if it has no messages and no batch with a partition. A batch
// keeps its partition until it is done, even when all its messages have left.
func (bt *batcher) forget() {
	if bt.items == 0 && bt.running == 0 && bt != bt.whole {
		delete(bt.scopes, bt.scope)
	}
}

// hasRoom reports whether one more batch may run in the scope.
func (bt *batcher) hasRoom() bool { return bt.running < bt.Concurrency }

// takePartition returns a partition in which no batch of any scope runs. Partitions are
// numbered over all scopes, because handlers keep state by these numbers.
func (bt *batcher) takePartition() int {
	bt.running++
	if n := len(bt.free) - 1; n >= 0 {
		p := bt.free[n]
		bt.free = bt.free[:n]
		return p
	}
	bt.partitions++
	return bt.partitions - 1
}

func (bt *batcher) givePartition(p int) {
	bt.running--
	bt.free = append(bt.free, p)
	bt.forget()
}

// dispatchAll is dispatch for all scopes.
func (b *Batching) dispatchAll(s *shared) {
	if s.down != nil {
		b.dispatchDown(s)
		return
	}
	for _, bt := range s.scopes {
		b.dispatch(bt)
	}
}

// hasReady reports whether a scope has anything in ready.
func (s *shared) hasReady() bool {
	for _, bt := range s.scopes {
		if len(bt.ready) > 0 {
			return true
		}
	}
	return false
}

// readyBatches returns how many batches of all scopes are ready.
func (s *shared) readyBatches() int {
	n := 0
	for _, bt := range s.scopes {
		for _, ob := range bt.ready {
			if ob.phase != done {
				n++
			}
		}
	}
	return n
}

// toProbe returns the scope of the batch that the next probe is taken from, nil if none is
// ready and may run. Each ready batch of these scopes has the same chance.
func (s *shared) toProbe() *batcher {
	var from *batcher
	n := 0
	for _, bt := range s.scopes {
		if len(bt.ready) == 0 || !bt.hasRoom() {
			continue
		}
		n += len(bt.ready)
		if rand.IntN(n) < len(bt.ready) {
			from = bt
		}
	}
	return from
}
