package subscriber

import (
	"time"

	"github.com/ThreeDotsLabs/watermill"

	"github.com/watermill-ots/watermill-ots/internal/ledger"
	"github.com/watermill-ots/watermill-ots/ots"
)

// settler ends deliveries. It reports to the tracker whether a record is done or must be
// redelivered, and updates counters, callbacks and failures. Safe for concurrent use.
//
// Invariant: an outcome is counted, reported to OnAck or kept as a failure only if the
// tracker says that it counts: the first one of an attempt that was neither taken back nor fenced.
type settler struct {
	*ownership
	failures *failures
}

// settle ends a delivery: nil acks it.
func (s *settler) settle(d *delivery, failure error) {
	if failure != nil {
		// Before the context ends, which a batcher takes for a sign that the later
		// messages of the key are taken back, and before the record is redelivered.
		d.CallBack(failure)
		d.cancel(ErrSettled)
		s.nack(d.attempt, failure)
		return
	}
	s.acked(d, s.tracker.Ack(d.attempt))
	s.observer.records.handlersSucceeded(1)
}

// settleAll acks deliveries, with one call of the tracker. counted is memory for its answers.
func (s *settler) settleAll(deliveries []*delivery, attempts []ledger.Attempt, counted []bool) []bool {
	counted = s.tracker.AckAll(attempts, counted)
	for i, d := range deliveries {
		s.acked(d, counted[i])
	}
	s.observer.records.handlersSucceeded(len(deliveries))
	return counted
}

// acked does the rest once the tracker knows of an ack.
func (s *settler) acked(d *delivery, counted bool) {
	if counted {
		s.failures.acked(d.attempt)
		s.noteAcked(d)
	}
	d.cancel(ErrSettled)
}

// noteAcked counts an ack, and calls Config.OnAck.
func (s *settler) noteAcked(d *delivery) {
	s.metrics.counts.inc(countAcked)
	f := s.cfg.OnAck
	if f == nil {
		return
	}
	now := time.Now()
	a := Acked{Instance: s.cfg.Instance, Topic: s.topic, Attempt: d.attempt.Number(), Handling: now.Sub(d.since())}
	if d.changed != 0 {
		a.Changed = time.UnixMicro(d.changed)
		a.Delay = max(0, now.Sub(a.Changed))
	}
	f(a)
}

// nack schedules the redelivery of a record.
func (s *settler) nack(a ledger.Attempt, cause error) {
	pause := s.failures.pause(a.ID())
	s.takingBack.Lock()
	taken, counted := s.tracker.Nack(a, time.Now().Add(pause))
	cancelCalledBack(taken, cause)
	s.takingBack.Unlock()
	s.metrics.counts.add(countCalledBack, len(taken))
	if !counted && a.Failures() == 0 {
		s.failures.forget(a.ID()) // it was called back and has not failed itself
	}
	if counted {
		s.metrics.counts.inc(countNacked)
		s.failures.note(a, cause)
		s.logger.Debug("Message nacked; it is redelivered", recordFields(a.Page().(*page).record(a.Index()), a).Add(watermill.LogFields{"pause": pause.String()}))
	}
}

// skip ends an attempt whose record the Unmarshaler skips.
func (s *settler) skip(a ledger.Attempt) {
	if s.tracker.Ack(a) {
		s.failures.acked(a)
		s.metrics.counts.inc(countSkipped)
	}
}

// refuse ends an attempt whose record the Unmarshaler refuses.
func (s *settler) refuse(rec *ots.Record, a ledger.Attempt, cause error) {
	s.metrics.counts.inc(countRefused)
	s.observer.records.refused(failedRecord{record: rec, attempt: a, logger: s.logger}, cause)
	s.nack(a, cause)
}

// messageNacked logs that a message was nacked. One that was called back or fenced has not failed.
func (s *settler) messageNacked(d *delivery, uuid string, cause error) {
	if d.over() || isLogged(cause) {
		return
	}
	s.observer.records.messageNacked(s.failed(d, uuid), cause)
}

// handlerFailed logs that a handler (of Handle) failed.
func (s *settler) handlerFailed(d *delivery, uuid string, err error) {
	s.observer.records.handlerFailed(s.failed(d, uuid), err)
}

func (s *settler) failed(d *delivery, uuid string) failedRecord {
	return failedRecord{record: d.recordOf(), attempt: d.attempt, uuid: uuid, logger: s.logger}
}
