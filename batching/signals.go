package batching

// signals are the channels of subscribers (ack.Delivery's Hurry, ack.Drainer's Draining)
// that concern deferred items: these have no goroutine that could wait for them. One
// goroutine waits for each channel, as long as an item listens to it, and until the
// Batching is shut. Batching.mu guards it.
type signals struct {
	byChannel map[<-chan struct{}]*signal
	over      chan struct{} // closed when the Batching is shut: then all batches are due
}

// signal is a channel that a goroutine waits for.
type signal struct {
	channel <-chan struct{}
	items   int           // that listen
	unheard chan struct{} // closed when there are none
}

func newSignals() signals {
	return signals{byChannel: make(map[<-chan struct{}]*signal), over: make(chan struct{})}
}

// listen adds an item to those that a channel concerns. It returns nil if there is nothing
// to wait for: the channel is nil or closed, or the Batching is shut.
func (b *Batching) listen(c <-chan struct{}) *signal {
	if c == nil || b.closed {
		return nil
	}
	s := b.signals.byChannel[c]
	if s == nil {
		if closed(c) {
			return nil
		}
		s = &signal{channel: c, unheard: make(chan struct{})}
		b.signals.byChannel[c] = s
		b.runs.Go(func() { // ends with the channel or its last item, at the latest when the Batching is shut
			select {
			case <-c:
				b.signalled(c)
			case <-s.unheard:
			case <-b.signals.over:
			}
		})
	}
	s.items++
	return s
}

// unlisten removes an item. s may be nil.
func (b *Batching) unlisten(s *signal) {
	if s == nil {
		return
	}
	if s.items--; s.items > 0 {
		return
	}
	close(s.unheard)
	if b.signals.byChannel[s.channel] == s {
		delete(b.signals.byChannel, s.channel)
	}
}

// signalled makes the batches of all deferred items due that a channel concerns.
func (b *Batching) signalled(c <-chan struct{}) {
	b.mu.Lock()
	defer b.mu.Unlock()
	delete(b.signals.byChannel, c)
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
