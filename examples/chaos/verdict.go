package chaos

import (
	"encoding/json"
	"fmt"
	"strings"
	"sync"
	"time"

	"github.com/ThreeDotsLabs/watermill/message"

	"github.com/watermill-ots/watermill-ots/router"
)

// letters is a publisher that collects the dead letters.
type letters struct {
	mu  sync.Mutex
	all []*router.DeadLetter
	bad error
}

// Publish implements message.Publisher.
func (l *letters) Publish(_ string, msgs ...*message.Message) error {
	l.mu.Lock()
	defer l.mu.Unlock()
	for _, msg := range msgs {
		letter, err := router.ParseDeadLetter(msg.Payload)
		if err != nil {
			l.bad = err
			return err
		}
		l.all = append(l.all, letter)
	}
	return nil
}

// Close implements message.Publisher.
func (*letters) Close() error { return nil }

// got records what a consumer has found: the subscriber's default JSON.
func (t *trial) got(payload []byte) {
	var p struct {
		Key     struct{ K string }
		Columns struct{ V int }
	}
	if err := json.Unmarshal(payload, &p); err != nil || p.Key.K == "" {
		t.Errorf("a message on the server is %q: %v", payload, err)
		return
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	seen := false
	for _, v := range t.arrived[p.Key.K] {
		seen = seen || v == p.Columns.V
	}
	t.arrived[p.Key.K] = append(t.arrived[p.Key.K], p.Columns.V)
	if !seen {
		t.first[p.Key.K]++
		t.count++
	}
	select {
	case t.changed <- struct{}{}:
	default:
	}
}

func (t *trial) arrivals() int {
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.count
}

// lost returns the number of messages that were given up.
func (l *letters) lost() int {
	l.mu.Lock()
	defer l.mu.Unlock()
	return len(l.all)
}

// await waits until everything has arrived or was given up.
func (t *trial) await() {
	t.Helper()
	late := time.NewTimer(stall)
	defer late.Stop()
	for t.arrivals()+t.letters.lost() < keys*versions {
		select {
		case <-t.changed:
			late.Reset(stall)
		case <-late.C:
			t.Errorf("L1: %d of %d versions have arrived, and no more for %v", t.arrivals(), keys*versions, stall)
			return
		}
	}
}

// check checks that all versions arrived, in order, and that nothing was given
// up.
func (t *trial) check() {
	t.Helper()
	t.letters.mu.Lock()
	defer t.letters.mu.Unlock()
	if t.letters.bad != nil {
		t.Error(t.letters.bad)
	}
	for i, l := range t.letters.all {
		if i < 3 {
			t.Errorf("L9: %s %s is a letter after %d attempts: %.200s", l.Key, l.Sequence, l.Attempts, l.Error)
		}
	}
	if n := len(t.letters.all); n > 0 {
		t.Errorf("L9: %d letters, although no row was bad", n)
	}
	if t.proxy.idle() {
		t.Error("the proxy cut no connection, or lost no response: the trial proves too little")
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	total, faults := 0, []string(nil)
	for k := range keys {
		key := fmt.Sprintf("key-%02d", k)
		total += len(t.arrived[key])
		if fault := checkKey(t.arrived[key], !t.sink.Unordered); fault != "" {
			faults = append(faults, key+": "+fault)
		}
	}
	if len(faults) > 0 {
		t.Errorf("%d keys are not as written:\n%s", len(faults), strings.Join(faults[:min(5, len(faults))], "\n"))
	}
	t.Logf("%d versions, %d messages; %v", keys*versions, total, t.proxy)
}

// checkKey returns what is wrong with the versions of a key in the order of
// their arrival.
func checkKey(arrived []int, ordered bool) string {
	have, highest := make(map[int]bool), 0
	for n, v := range arrived {
		if !have[v] && v < highest && ordered {
			return fmt.Sprintf("L3: version %d arrived first as message %d, after version %d", v, n, highest)
		}
		have[v], highest = true, max(highest, v)
	}
	for v := 1; v <= versions; v++ {
		if !have[v] {
			return fmt.Sprintf("L1: version %d of %d is missing", v, versions)
		}
	}
	return ""
}
