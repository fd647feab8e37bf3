package closing_test

import (
	"errors"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"go.uber.org/goleak"

	"github.com/watermill-ots/watermill-ots/internal/closing"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

func TestOnce_calls_end_once_and_returns_its_error_to_all(t *testing.T) {
	var once closing.Once
	ended := errors.New("ended")
	calls := 0
	var wg sync.WaitGroup
	for range 10 {
		wg.Go(func() {
			if err := once.Do(func() error { calls++; return ended }); err != ended {
				t.Errorf("Do returned %v", err)
			}
		})
	}
	wg.Wait()
	if err := once.Do(func() error { return nil }); err != ended || calls != 1 {
		t.Errorf("another Do returned %v after %d calls", err, calls)
	}
}

// Calls that wait do not hold a lock, so that time passes for them in a bubble.
func TestOnce_lets_time_pass_in_a_bubble(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var once closing.Once
		begun := time.Now()
		var wg sync.WaitGroup
		for range 3 {
			wg.Go(func() { _ = once.Do(func() error { time.Sleep(time.Hour); return nil }) })
		}
		wg.Wait()
		if took := time.Since(begun); took != time.Hour {
			t.Errorf("it took %v", took)
		}
	})
}

func TestUses_end_before_the_channel_of_Close_is_closed(t *testing.T) {
	isClosed := func(c <-chan struct{}) bool {
		select {
		case <-c:
			return true
		default:
			return false
		}
	}
	var uses closing.Uses
	if uses.Closed() || !uses.Begin() || !uses.Begin() {
		t.Fatal("uses do not begin")
	}
	uses.End()
	unused := uses.Close()
	if !uses.Closed() || uses.Begin() || isClosed(unused) {
		t.Fatal("a use begins after Close, or Close does not wait for the one before")
	}
	if uses.Close() != unused {
		t.Error("another Close waits for something else")
	}
	uses.End()
	if !isClosed(unused) {
		t.Error("unused is not closed after the last use")
	}
	if fresh := new(closing.Uses); !isClosed(fresh.Close()) {
		t.Error("what was never used is in use")
	}
}

func TestWithin(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		done := make(chan struct{})
		begun := time.Now()
		if closing.Within(time.Second, done) || time.Since(begun) != time.Second {
			t.Errorf("returned after %v", time.Since(begun))
		}
		time.AfterFunc(time.Second, func() { close(done) })
		if !closing.Within(time.Minute, done) || time.Since(begun) != 2*time.Second {
			t.Errorf("returned after %v", time.Since(begun))
		}
	})
}
