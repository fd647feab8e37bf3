package letters

import (
	"context"
	"errors"
	"strings"
	"testing"
	"time"

	"github.com/ThreeDotsLabs/watermill/message"
)

// A letter is kept from other Replays as long as its handler takes.
func TestReplay_renews_claims_while_handlers_work(t *testing.T) {
	t.Parallel() // it waits in real time
	entered, release := make(chan struct{}, 1), make(chan struct{})
	b := newBed(t, func(*message.Message) error { entered <- struct{}{}; <-release; return nil })
	b.put(t, letterOfRow("a", 1))
	slow, _ := b.replay(t)
	slow.claims.lease = 400 * time.Millisecond
	ended := make(chan error, 1)
	go func() { ended <- slow.run(context.Background()) }() // ends with release
	<-entered
	for begin := time.Now(); time.Since(begin) < 3*slow.claims.lease; time.Sleep(20 * time.Millisecond) {
		rp, _ := b.replay(t)
		replayed(t, rp, Count{Skipped: 1})
	}
	close(release)
	if err := <-ended; err != nil || slow.count != (Count{Succeeded: 1}) {
		t.Errorf("replayed %+v, %v", slow.count, err)
	}
}

// A handler's context ends when its letter can no longer be kept from other Replays.
func TestReplay_stops_handlers_whose_claims_lapse(t *testing.T) {
	t.Parallel() // it waits in real time
	entered := make(chan struct{}, 1)
	b := newBed(t, func(msg *message.Message) error {
		entered <- struct{}{}
		select {
		case <-msg.Context().Done():
			return context.Cause(msg.Context())
		case <-time.After(20 * time.Second):
			return nil
		}
	})
	b.put(t, letterOfRow("a", 1))
	rp, w := b.replay(t)
	rp.claims.lease = 400 * time.Millisecond
	ended := make(chan error, 1)
	go func() { ended <- rp.run(context.Background()) }() // ends with the lease
	<-entered
	w.cutAfter(0)
	err := <-ended
	if !errors.Is(err, errCut) || !strings.Contains(err.Error(), "could not be renewed") || rp.count != (Count{Skipped: 1}) {
		t.Errorf("replayed %+v, %v", rp.count, err)
	}
}

// A letter that is written again while it is handled stays: its latest failure was later.
func TestReplay_leaves_a_letter_that_was_written_meanwhile(t *testing.T) {
	for _, outcome := range []error{nil, errors.New("bad again")} {
		var b *bed
		again := letterOfRow("a", 1)
		again.Attempts, again.Error = 9, "another failure"
		b = newBed(t, func(*message.Message) error { b.put(t, again); return outcome })
		b.put(t, letterOfRow("a", 1))
		rp, _ := b.replay(t)
		want := Count{Succeeded: 1}
		if outcome != nil {
			want = Count{Failed: 1}
		}
		replayed(t, rp, want)
		if got := b.letters(t); len(got) == 1 {
			same(t, got[0], again)
		} else {
			t.Errorf("%d letters are left", len(got))
		}
	}
}
