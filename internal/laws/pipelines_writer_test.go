package laws

import (
	"errors"
	"time"
)

// tickEvery is the number of rounds between two ticks.
const tickEvery = 12

// changing is the writer of the tables.
type changing struct {
	quit, ended chan struct{}
	stopped     bool
	err         error // valid once ended is closed
}

// stop stops the writer and waits for it.
func (c *changing) stop() {
	if !c.stopped {
		close(c.quit)
		c.stopped = true
	}
	<-c.ended
}

// write writes changes to the tables, in rounds, for about as long as there are
// faults, and then ticks until it is stopped.
func (w *pipelinesWorld) write() *changing {
	rounds := int((*pipelinesTime - time.Second) / changePause)
	c := &changing{quit: make(chan struct{}), ended: make(chan struct{})}
	go func() { // ends with stop, which waits for it
		defer close(c.ended)
		pause := time.NewTicker(changePause)
		defer pause.Stop()
		for round := 0; c.err == nil; round++ {
			for _, name := range []string{ordersTable, stockTable} {
				t := w.tables[name]
				if round < rounds {
					c.err = errors.Join(c.err, t.round())
				}
				if round%tickEvery == 0 {
					c.err = errors.Join(c.err, t.tick())
				}
			}
			select {
			case <-c.quit:
				return
			case <-pause.C:
			}
		}
	}()
	return c
}
