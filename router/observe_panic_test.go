package router_test

import (
	"context"
	"errors"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/watermill-ots/watermill-ots/ack"
	"github.com/watermill-ots/watermill-ots/batching"
	"github.com/watermill-ots/watermill-ots/emulator"
	"github.com/watermill-ots/watermill-ots/internal/testbed"
	"github.com/watermill-ots/watermill-ots/router"
	"github.com/watermill-ots/watermill-ots/subscriber"
)

// expectPanic checks that err is a panic's and that its stack is logged but not in its text.
func expectPanic(t *testing.T, err error, in string, log logLines) {
	t.Helper()
	var panicked *ack.PanicError
	if !errors.As(err, &panicked) || panicked.In != in || panicked.Value != "boom" {
		t.Fatalf("the error is %v", err)
	}
	if strings.Contains(err.Error(), "observe_panic_test.go") {
		t.Errorf("the error shows the stack: %v", err)
	}
	if text := log.text(); strings.Count(text, in+" panicked") < 1 || !strings.Contains(text, "observe_panic_test.go") {
		t.Errorf("the log has no stack:\n%s", text)
	}
}

func TestObserve_a_panic_of_Start_ends_Run(t *testing.T) {
	for _, asked := range []bool{false, true} {
		log := logLines{all: new(lockedLines)}
		r := buildLogging(t, offline(""), log)
		if asked {
			r.Watermill()
		}
		if err := r.Handle("numbers", router.Handlers{Process: noProcess}); err != nil {
			t.Fatal(err)
		}
		if err := r.Observe(router.Observers{Start: func([]router.Observed) error { panic("boom") }}); err != nil {
			t.Fatal(err)
		}
		err := r.Run(context.Background())
		expectPanic(t, err, "Observers.Start", log)
		if !strings.HasPrefix(err.Error(), "starting the observers: ") {
			t.Errorf("Run returned %v", err)
		}
		if closed := r.Close(); !errors.Is(closed, err) { // it does not hang
			t.Errorf("Close returned %v", closed)
		}
	}
}

func TestObserve_a_panic_of_OnBatch_is_its_error(t *testing.T) {
	log := logLines{all: new(lockedLines)}
	r := buildLogging(t, offline("    batchers: {default: {batch_size: 2}}\n"), log)
	err := r.Observe(router.Observers{OnBatch: func(string) func(batching.Handled) { panic("boom") }})
	expectPanic(t, err, "Observers.OnBatch", log)
	if !strings.HasPrefix(err.Error(), "observing the batches of tunnels.numbers: ") {
		t.Errorf("Observe returned %v", err)
	}
	if err := r.Observe(router.Observers{}); err != nil {
		t.Errorf("after it Observe returned %v", err)
	}
}

func TestObserve_panics_of_OnAck_change_nothing_and_are_logged_once(t *testing.T) {
	bed := testbed.New(t, emulator.Options{})
	log := logLines{all: new(lockedLines)}
	r := buildLogging(t, fileFor(bed, ""), log)
	if err := r.Handle("numbers", router.Handlers{Process: noProcess}); err != nil {
		t.Fatal(err)
	}
	var acked atomic.Int64
	if err := r.Observe(router.Observers{OnAck: func(subscriber.Acked) { acked.Add(1); panic("boom") }}); err != nil {
		t.Fatal(err)
	}
	start(t, r)
	bed.PutAll(5, 4)
	testbed.Eventually(t, 20*time.Second, "all is acked", func() bool { return acked.Load() == 20 })
	sub, _ := r.Subscriber("numbers")
	testbed.Eventually(t, 20*time.Second, "all is settled", func() bool {
		st := sub.Status().Subscriptions[0]
		return st.Totals.Acked == 20 && st.InFlight == 0
	})
	if totals := sub.Status().Subscriptions[0].Totals; totals.Nacked != 0 || totals.Redelivered != 0 {
		t.Errorf("totals %+v", totals)
	}
	if err := r.Close(); err != nil {
		t.Errorf("Close returned %v", err)
	}
	if text := log.text(); strings.Count(text, "Observer panicked: Observers.OnAck panicked: boom") != 1 || !strings.Contains(text, "observe_panic_test.go") {
		t.Errorf("the log is\n%s", text)
	}
}

func TestPanicLog_logs_one_a_minute_and_how_many_it_did_not(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		log := logLines{all: new(lockedLines)}
		var panics router.PanicLog
		callback := func(fail bool) {
			defer panics.Contain(log, "callback")
			if fail {
				panic("boom")
			}
		}
		logged := func(want int, last string) {
			t.Helper()
			lines := log.all.lines
			if len(lines) != want || want > 0 && !strings.Contains(lines[want-1], last) {
				t.Errorf("%d lines, want %d with %s at the end:\n%s", len(lines), want, last, log.text())
			}
		}
		callback(false)
		logged(0, "")
		for range 5 {
			callback(true)
			callback(false)
		}
		logged(1, "not_logged:0")
		time.Sleep(time.Minute - 1)
		callback(true)
		logged(1, "not_logged:0")
		time.Sleep(time.Nanosecond)
		callback(true)
		logged(2, "not_logged:5")
		time.Sleep(time.Hour)
		callback(true)
		logged(3, "not_logged:0")
	})
}
