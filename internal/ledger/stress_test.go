package ledger

import (
	"context"
	"fmt"
	"math/rand/v2"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"go.uber.org/goleak"
)

// TestStress runs readers, deliverers, handlers and committers of several channels on
// one small window at once. Half of the messages wait only for Hurry or their
// cancellation, so a missed stall, a lost wake-up or a lost Ready ends in a deadlock.
// Some channels drain or are fenced meanwhile.
//
// The real scheduler decides the interleaving; the seed only decides the actions of
// each goroutine. This test finds that something is wrong; use the model to find out
// what.
func TestStress(t *testing.T) {
	defer goleak.VerifyNone(t)
	rounds := 24
	if testing.Short() {
		rounds = 4
	}
	for round := range rounds {
		seed := uint64(time.Now().UnixNano())
		t.Run(fmt.Sprint("round", round), func(t *testing.T) {
			t.Logf("seed %d", seed)
			rng := rand.New(rand.NewPCG(seed, 0))
			// The deadline is for a deadlock; a round takes well under a second.
			ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
			defer cancel()
			w := NewWindow(1+rng.IntN(60), 1+rng.Int64N(200))
			var wg sync.WaitGroup
			for i := range 2 + rng.IntN(5) {
				s := &stressChannel{T: t, name: fmt.Sprint("channel", i), seed: rng.Uint64(), lane: w.Open()}
				s.Tracker = New([]Ordering{ByKey, ByChannel, Unordered}[i%3], s.name, s.lane)
				s.end = []string{"finish", "finish", "drain", "fence"}[rng.IntN(4)]
				wg.Go(func() { s.run(ctx) })
			}
			wg.Wait()
			if w.records.lent != 0 || w.bytes.lent != 0 || w.moving != 0 || w.waiting != 0 || w.woken != 0 || w.refused.Len() != 0 || len(w.lanes) != 0 {
				t.Errorf("L6: the window is not empty: %+v", w)
			}
		})
	}
}

const (
	stressPages   = 150
	stressPerPage = 8
)

type stressChannel struct {
	*testing.T
	*Tracker
	name string
	seed uint64
	end  string // finish, drain or fence
	lane *Lane

	handled  [stressPages*stressPerPage + 1]atomic.Bool // by ID: its handler said done
	counted  [stressPages*stressPerPage + 1]atomic.Bool // by ID: and the ack counted
	lastID   [stressPages]uint64                        // by page: ID of the last record up to it
	handlers sync.WaitGroup
	alone    [4]atomic.Int32 // running handlers, by key that is never handed off
}

func (s *stressChannel) run(ctx context.Context) {
	var wg sync.WaitGroup
	stop := make(chan struct{}) // closed by the reader when the channel drains or is fenced
	wg.Go(func() { s.reader(ctx, stop) })
	wg.Go(func() { s.deliverer(ctx, stop) })
	wg.Wait()
	s.handlers.Wait()
	s.commit()
	if s.end == "finish" {
		if !isClosed(s.Done()) {
			s.Errorf("liveness: %s stands still: %+v, lane %+v", s.name, s.Stats(), s.lane)
		}
		for id := 1; id <= int(s.lastID[stressPages-1]); id++ {
			if !s.counted[id].Load() {
				s.Errorf("L1 no loss: %s: record %d is done, but no ack of it counted", s.name, id)
			}
		}
	} else if !isClosed(s.Drained()) {
		s.Errorf("L4: %s is not drained: %+v", s.name, s.Stats())
	}
	if st := s.Stats(); st.InFlight != 0 || st.Bytes != 0 {
		s.Errorf("L6: %s keeps %+v", s.name, st)
	}
	s.lane.Close()
}

func (s *stressChannel) reader(ctx context.Context, stop chan struct{}) {
	defer close(stop)
	rng := rand.New(rand.NewPCG(s.seed, 1))
	id := uint64(0)
	for i := range stressPages {
		for !s.lane.Admit() {
			select {
			case <-s.lane.Wake():
			case <-ctx.Done():
				return
			}
		}
		keys := make([]string, rng.IntN(stressPerPage+1))
		for k := range keys {
			keys[k] = []string{"", "batch1", "batch2", "0", "1", "2", "3"}[rng.IntN(7)]
		}
		id += uint64(len(keys))
		s.lastID[i] = id
		s.Add(Page{Token: fmt.Sprint(i), Keys: keys, Bytes: rng.Int64N(20), Finish: i == stressPages-1 && s.end == "finish"})
		s.commit()
		if s.end != "finish" && i == stressPages/2 {
			return
		}
	}
}

// commit checks L1 against what handlers recorded before they acked.
func (s *stressChannel) commit() {
	token, position, ok := s.Committable()
	if !ok {
		return
	}
	if want := fmt.Sprint(position - 1); token != want {
		s.Errorf("L1: %s gives token %s for page %d", s.name, token, position)
	}
	for id := uint64(1); id <= s.lastID[position-1]; id++ {
		if !s.handled[id].Load() {
			s.Errorf("L1 no loss: %s: page %d is committable, record %d is not handled", s.name, position, id)
		}
	}
	s.Committed(position)
}

func (s *stressChannel) deliverer(ctx context.Context, stop <-chan struct{}) {
	rng := rand.New(rand.NewPCG(s.seed, 2))
	timer := time.NewTimer(time.Hour)
	defer timer.Stop()
	ended := s.Drained()
	for {
		a, retryAt, ok := s.Next(time.Now())
		if ok {
			s.deliver(ctx, a, rng.Uint64())
			continue
		}
		var retry <-chan time.Time
		if !retryAt.IsZero() {
			timer.Reset(time.Until(retryAt))
			retry = timer.C
		}
		select {
		case <-s.Ready():
		case <-retry:
		case <-stop:
			stop = nil
			switch s.end {
			case "drain":
				s.Drain()
			case "fence":
				for _, v := range s.Fence() {
					v.(context.CancelFunc)()
				}
			}
		case <-s.Done():
			return
		case <-ended:
			return
		case <-ctx.Done():
			return
		}
	}
}

func (s *stressChannel) deliver(ctx context.Context, a Attempt, seed uint64) {
	ctx, cancel := context.WithCancel(ctx)
	var alone *atomic.Int32
	if k := a.Key(); len(k) == 1 {
		alone = &s.alone[k[0]-'0']
		if n := alone.Add(1); n != 1 {
			s.Errorf("L3 order: %s: %d handlers have key %s", s.name, n, k)
		}
	}
	if !s.Bind(a, cancel) {
		if alone != nil {
			alone.Add(-1)
		}
		cancel()
		s.Nack(a, time.Time{})
		return
	}
	// Owned by run, which waits for it; ends on its own, or by Hurry or ctx.
	s.handlers.Go(func() {
		defer cancel()
		s.handle(ctx, a, alone, rand.New(rand.NewPCG(seed, 3)))
	})
}

func (s *stressChannel) handle(ctx context.Context, a Attempt, alone *atomic.Int32, rng *rand.Rand) {
	cancelAll := func(taken []any) {
		for _, v := range taken {
			v.(context.CancelFunc)()
		}
	}
	if alone == nil && rng.IntN(4) > 0 {
		hurry := s.Hurry()
		if rng.IntN(2) == 0 {
			s.HandOff(a)
			hurry = s.Hurry()
		} else {
			s.HandOff(a)
		}
		select {
		case <-hurry:
			s.Begin(a)
		case <-ctx.Done():
		}
	}
	if alone != nil {
		alone.Add(-1)
	}
	switch rng.IntN(10) {
	case 0:
		cancelAll(s.CallBack(a))
		fallthrough
	case 1:
		var at time.Time
		if rng.IntN(2) == 0 {
			at = time.Now().Add(time.Duration(rng.IntN(200)) * time.Microsecond)
		}
		taken, _ := s.Nack(a, at)
		cancelAll(taken)
	default:
		s.handled[a.ID()].Store(true)
		if s.Ack(a) && s.counted[a.ID()].Swap(true) {
			s.Errorf("L2: %s: two acks of record %d count", s.name, a.ID())
		}
	}
}
