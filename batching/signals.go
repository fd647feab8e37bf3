package batching

// signals are the channels of subscribers (ack.Delivery's Hurry, ack.Drainer's Draining)
// that concern deferred items: these have no goroutine that could wait for them. One
// goroutine waits for each channel, until it is closed or the Batching is shut.
// Batching.mu guards it.
type signals struct {
	watched map[<-chan struct{}]struct{}
	over    chan struct{} // closed when the Batching is shut: then all batches are due
}

func newSignals() signals {
	return signals{watched: make(map[<-chan struct{}]struct{}), over: make(chan struct{})}
}

// watch has a goroutine wait for a channel, unless one does or the channel is nil or closed.
func (b *Batching) watchSignal(c <-chan struct{}) {
	if c == nil || b.closed {
		return
	}
	if _, watched := b.signals.watched[c]; watched || closed(c) {
		return
	}
	b.signals.watched[c] = struct{}{}
	b.runs.Go(func() { // ends with the channel, at the latest when the Batching is shut
		select {
		case <-c:
			b.signalled(c)
		case <-b.signals.over:
		}
	})
}

// signalled makes the batches of all deferred items due that a channel concerns.
func (b *Batching) signalled(c <-chan struct{}) {
	b.mu.Lock()
	defer b.mu.Unlock()
	delete(b.signals.watched, c)
	for _, s := range b.batchers {
		for _, bt := range s.scopes {
			for _, ob := range bt.open {
				if ob.concernedBy(c) {
					b.makeDue(ob, TriggerDrain)
				}
			}
		}
		if s.down != nil {
			b.dispatchDown(s) // those of a subscriber that drains are given back
		}
	}
	for it := range b.parked {
		if it.concernedBy(c) {
			b.hurryParked(it)
		}
	}
}

// concernedBy reports whether one of the batch's items listens to c.
func (ob *openBatch) concernedBy(c <-chan struct{}) bool {
	for _, it := range ob.items {
		if !it.left && it.concernedBy(c) {
			return true
		}
	}
	return false
}

func (it *item) concernedBy(c <-chan struct{}) bool {
	return it.deferred != nil && (it.deferred.hurry == c || it.draining == c)
}
