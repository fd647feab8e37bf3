package subscriber

import (
	"runtime"
	"slices"
	"strconv"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/ThreeDotsLabs/watermill/message"
	"github.com/aliyun/aliyun-tablestore-go-sdk/tunnel/protocol"

	"github.com/watermill-ots/watermill-ots/internal/ledger"
	"github.com/watermill-ots/watermill-ots/ots"
)

// leadRun is a channel whose records, one for each key, go to h. In the bubble
// handlers take no time, and so all are quick from the first on.
func leadRun(t *testing.T, keys int, h func(key string)) (end func()) {
	return leadRunTelling(t, nil, keys, h)
}

// leadRunTelling is leadRun with a Config.OnAck.
func leadRunTelling(t *testing.T, onAck func(Acked), keys int, h func(key string)) (end func()) {
	s := sessionOf(subscriptionOf(new(fakeService), Config{Unmarshaler: None{}, OnAck: onAck}, func(msg *message.Message) error {
		r, _ := ots.RecordFromMessage(msg)
		h(r.PrimaryKey[0].Value.String())
		return nil
	}))
	r := openRun(s)
	wire := make([]*protocol.Record, keys)
	for i := range wire {
		wire[i] = someRecord(int64(i))
	}
	p := mustDecode(t, wirePage("t", nil, wire...))
	r.tracker.Add(ledger.Page{Token: "t", Keys: p.keys, Bytes: 1, Value: p})
	ended := make(chan struct{})
	leader := r.deliverer.(*toHandler)
	leader.pace.aside = 0
	leader.start(func() { close(ended) })
	return func() {
		t.Helper()
		r.cancel(errSessionOver)
		select {
		case <-ended:
		case <-time.After(time.Second):
			t.Error("the leader or its monitor continues after the channel's end")
		}
		s.channels.dest.handlers.Wait()
	}
}

func TestLeader_calls_quick_handlers_one_after_the_other_in_one_goroutine(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var seen []string // not guarded: the race detector would tell
		end := leadRun(t, 100, func(key string) { seen = append(seen, key) })
		synctest.Wait()
		end()
		if len(seen) != 100 || !slices.IsSortedFunc(seen, func(a, b string) int { x, _ := strconv.Atoi(a); y, _ := strconv.Atoi(b); return x - y }) {
			t.Errorf("called with %v", seen)
		}
	})
}

// TestLeader_tells_how_long_each_handling_took: one at a time, each since its own turn.
func TestLeader_tells_how_long_each_handling_took(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		const takes, records = slowHandler / 2, checkEvery // acks are reported together, when that many have come
		var took []time.Duration                           // not guarded: the race detector would tell
		end := leadRunTelling(t, func(a Acked) { took = append(took, a.Handling) }, records, func(string) { time.Sleep(takes) })
		time.Sleep(time.Second)
		end()
		want := make([]time.Duration, records)
		for i := range want {
			want[i] = time.Duration(records-i) * takes
		}
		if !slices.Equal(took, want) {
			t.Errorf("handling took %v, want %v", took, want)
		}
	})
}

func TestLeader_is_relieved_when_a_handler_turns_slow(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var mu sync.Mutex
		var seen []string
		release := make(chan struct{})
		started := time.Now()
		var others time.Duration
		end := leadRun(t, 100, func(key string) {
			if key == "7" {
				<-release
			}
			mu.Lock()
			defer mu.Unlock()
			seen = append(seen, key)
			others = time.Since(started)
		})
		time.Sleep(time.Second)
		mu.Lock()
		if len(seen) != 99 || others > 2*monitorInterval {
			t.Errorf("%d records were handled beside the slow one, the last after %v", len(seen), others)
		}
		mu.Unlock()
		close(release)
		synctest.Wait()
		end()
		if len(seen) != 100 {
			t.Errorf("%d records were handled", len(seen))
		}
	})
}

func TestLeader_that_a_handler_ends_is_relieved(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var mu sync.Mutex
		seen := make(map[string]int)
		end := leadRun(t, 100, func(key string) {
			mu.Lock()
			seen[key]++
			first := seen[key] == 1
			mu.Unlock()
			if key == "7" && first {
				runtime.Goexit()
			}
		})
		time.Sleep(time.Minute)
		end()
		if len(seen) != 100 || seen["7"] != 2 {
			t.Errorf("%d records were handled, the one whose handler exited %d times", len(seen), seen["7"])
		}
	})
}

func TestLeader_in_a_handler_that_never_returns_ends_with_its_channel(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		release := make(chan struct{})
		end := leadRun(t, 1, func(string) { <-release })
		time.Sleep(time.Second)
		time.AfterFunc(10*time.Second, func() { close(release) })
		end()
	})
}
