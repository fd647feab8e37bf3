package subscriber

import (
	"time"

	"github.com/ThreeDotsLabs/watermill"
)

// drainTold is the time between two log lines about a drain that continues.
const drainTold = 5 * time.Second

// tellDrain logs that the subscription stops, every drainTold what it still waits for, and when
// all is settled. The function that it returns ends that, and waits for it.
func (s *subscription) tellDrain() (drained func()) {
	ended, told := make(chan struct{}), make(chan struct{})
	go func() { // ends with the function that is returned
		defer close(told)
		select {
		case <-s.stopping.Done():
		case <-ended:
			return
		}
		began := time.Now()
		fields := s.drainFields(began)
		delete(fields, "oldest_key")
		s.logger.Info("Drain began: nothing more is read or delivered", fields)
		every := time.NewTicker(drainTold)
		defer every.Stop()
		for {
			select {
			case <-every.C:
				s.logger.Info("Still draining", s.drainFields(began))
			case <-ended:
				held, _, _ := s.observer.unsettled.all()
				s.logger.Info("Drained", watermill.LogFields{"took": time.Since(began).Round(time.Millisecond).String(), "unsettled": held})
				return
			}
		}
	}()
	return func() {
		close(ended)
		<-told
	}
}

// drainFields says what a drain that began then still waits for.
func (s *subscription) drainFields(began time.Time) watermill.LogFields {
	st := s.status(time.Now())
	handlers, oldest := 0, (*OldestRecord)(nil)
	for _, c := range st.Channels {
		handlers += c.WithHandlers
		if c.Oldest != nil && (oldest == nil || c.Oldest.Age > oldest.Age) {
			oldest = c.Oldest
		}
	}
	f := watermill.LogFields{
		"with_handlers": handlers, "in_flight": st.InFlight, "channels": len(st.Channels),
		"time_left": max(0, s.cfg.CloseTimeout-time.Since(began)).Round(time.Millisecond).String(),
	}
	if oldest != nil {
		f["oldest_key"] = oldest.Key
	}
	return f
}
