package subscriber

import (
	"cmp"
	"slices"
	"sync"
	"time"

	"github.com/cenkalti/backoff/v4"

	"github.com/watermill-ots/watermill-ots/internal/ledger"
)

// failures is the record of one channel's failures: which of its records failed and are not
// acked, how often, and how long each waits for its next attempt. Safe for concurrent use.
//
// Invariant: a record is in here from its first nack until it is acked, and at most once.
type failures struct {
	newPauses func() backoff.BackOff // Config.NackBackoff

	mu sync.Mutex
	by map[uint64]*failure // by Attempt.ID
}

// failure is what is known of one record that failed and is not acked.
type failure struct {
	pauses      backoff.BackOff
	longest     time.Duration  // pause so far
	attempt     ledger.Attempt // the last one that failed
	first, last time.Time
	err         error // nil until the failure is noted
}

func newFailures(newPauses func() backoff.BackOff) *failures {
	return &failures{newPauses: newPauses, by: make(map[uint64]*failure)}
}

// pause returns the pause before the next attempt of a record. The BackOff and what made
// it are the user's, so they are not called under mu. That is safe: a record has one
// attempt at a time, the next one only when this one is nacked.
func (f *failures) pause(id uint64) time.Duration {
	f.mu.Lock()
	record := f.by[id]
	f.mu.Unlock()
	if record == nil {
		record = &failure{pauses: f.newPauses()}
		f.mu.Lock()
		f.by[id] = record
		f.mu.Unlock()
	}
	pause := record.pauses.NextBackOff()
	f.mu.Lock()
	defer f.mu.Unlock()
	if pause == backoff.Stop {
		pause = cmp.Or(record.longest, stoppedPause)
	}
	record.longest = max(record.longest, pause)
	return pause
}

// note notes a nack that counted. The record may have been acked since.
func (f *failures) note(a ledger.Attempt, cause error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	record := f.by[a.ID()]
	if record == nil || a.Number() <= record.attempt.Number() {
		return
	}
	record.last = time.Now()
	if record.first.IsZero() {
		record.first = record.last
	}
	record.attempt, record.err = a, cause
}

// acked forgets a record that was acked.
func (f *failures) acked(a ledger.Attempt) {
	if a.Failures() > 0 {
		f.forget(a.ID())
	}
}

// forget forgets a record.
func (f *failures) forget(id uint64) {
	f.mu.Lock()
	defer f.mu.Unlock()
	delete(f.by, id)
}

// worst returns the channel's records that failed and are not acked, those with the
// most attempts first and at most MaxFailing, and how many there are.
func (f *failures) worst(channelID string) (worst []FailingRecord, total int) {
	f.mu.Lock()
	noted := make([]failure, 0, len(f.by))
	for _, record := range f.by {
		if record.err != nil {
			noted = append(noted, *record)
		}
	}
	f.mu.Unlock()
	slices.SortFunc(noted, func(a, b failure) int {
		return cmp.Or(cmp.Compare(b.attempt.Number(), a.attempt.Number()), a.first.Compare(b.first))
	})
	for _, n := range noted[:min(len(noted), MaxFailing)] {
		rec := n.attempt.Page().(*page).record(n.attempt.Index())
		worst = append(worst, FailingRecord{
			Channel: channelID, Key: rec.KeyText(), Type: rec.Type.String(), Sequence: rec.Sequence.String(),
			Attempts: n.attempt.Number(), First: n.first, Last: n.last, Error: n.err.Error(),
		})
	}
	return worst, len(noted)
}
