package laws

import (
	"encoding/json"
	"fmt"
	"math/rand/v2"
	"net/http"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/watermill-ots/watermill-ots/router"
)

// recordingSink is what the pipelines write to: a service in the test's
// process, which survives the workers. It keeps a log of its effects, in order.
//
// Each door is a separate server, so that one may be shut while others are
// open.
type recordingSink struct {
	names bool // the batch door names the rows that it refuses and accepts the others
	doors map[string]*door

	mu      sync.Mutex // guards the following
	random  *rand.Rand // decides about single faults
	entries []entry
	seen    map[string]map[ident]bool // by door: what is in entries
	letters []letter                  // those that arrived by topic
	fenced  []fencing
	gone    map[string]bool // requests that their workers have given up
	dead    map[int]bool    // processes that were killed, or will be at once
	hit     map[string]bool // door and UUID that met a single fault
	count   map[string]int  // single faults by kind
}

// requestHeader contains an id that is unique for each request.
const requestHeader = "Request-Id"

// entry is one effect: a row that the sink has accepted.
type entry struct {
	row
	door    string
	process int
	at      time.Time
}

// ident identifies a record: its key, and its position in the stream, empty for
// base data.
type ident struct{ key, sequence string }

func (r row) ident() ident {
	if r.Sequence.IsZero() {
		return ident{key: r.Key}
	}
	return ident{r.Key, r.Sequence.String()}
}

// letter is the part of a dead letter that the checks need.
type letter struct {
	ident
	pipeline, channel, uuid, text string
	attempts                      int
	at                            time.Time
}

func newRecordingSink(t *testing.T, seed uint64, doors ...string) *recordingSink {
	t.Helper()
	s := &recordingSink{
		names: seed%3 == 0, doors: make(map[string]*door), random: rand.New(rand.NewPCG(seed, 3)),
		seen: make(map[string]map[ident]bool), hit: make(map[string]bool), gone: make(map[string]bool), dead: make(map[int]bool), count: make(map[string]int),
	}
	for _, name := range doors {
		d := &door{sink: s, name: name, addr: freeAddr(t), behaviour: open, changed: make(chan struct{})}
		s.doors[name], s.seen[name] = d, make(map[ident]bool)
		if err := d.listen(); err != nil {
			t.Fatal(err)
		}
	}
	t.Cleanup(func() {
		for _, d := range s.doors {
			if err := d.turn(refused); err != nil {
				t.Errorf("closing the sink: %v", err)
			}
		}
	})
	return s
}

// urls returns the URLs of the doors.
func (s *recordingSink) urls() map[string]string {
	urls := make(map[string]string)
	for name, d := range s.doors {
		urls[name] = "http://" + d.addr
	}
	return urls
}

// pause returns how long a request takes in a slow period.
func (s *recordingSink) pause() time.Duration {
	s.mu.Lock()
	defer s.mu.Unlock()
	return time.Duration(s.random.Int64N(int64(slowest)))
}

// take executes a request, unless its worker has disconnected.
func (s *recordingSink) take(r *http.Request, door string, body []byte) (status int, answer []byte, lost bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if r.Context().Err() != nil || s.gone[r.Header.Get(requestHeader)] {
		return 0, nil, true
	}
	var err error
	switch door {
	case abandonedDoor:
		s.gone[string(body)] = true
	case fencedDoor:
		var f fencing
		if err = json.Unmarshal(body, &f); err == nil {
			s.fenced = append(s.fenced, f)
		}
	case lettersDoor:
		var l *router.DeadLetter
		if l, err = router.ParseDeadLetter(body); err == nil {
			s.letters = append(s.letters, letterFrom(l))
		}
	default:
		var req request
		if err = json.Unmarshal(body, &req); err == nil {
			return s.takeRows(door, req)
		}
	}
	if err != nil {
		return http.StatusBadRequest, []byte(err.Error()), false
	}
	return http.StatusOK, nil, false
}

func letterFrom(l *router.DeadLetter) letter {
	return letter{
		ident: ident{l.Key, l.Sequence}, pipeline: l.Pipeline, channel: l.Channel, uuid: l.ID,
		text: l.Error, attempts: l.Attempts, at: l.FailedAt,
	}
}

// bury makes the sink ignore all requests of a process that is about to be killed:
// one that waits for its turn here could be executed at the same time as those of
// the next owner.
func (s *recordingSink) bury(process int) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.dead[process] = true
}

// takeRows logs the rows, all or none of them, unless it names those that it
// refuses. mu is held.
func (s *recordingSink) takeRows(door string, req request) (status int, answer []byte, lost bool) {
	if s.dead[req.Process] {
		return 0, nil, true
	}
	fault := s.singleFault(door, req.Rows)
	if fault == "error" {
		return http.StatusInternalServerError, []byte("simulated"), false
	}
	isBad := func(r row) bool { return r.Bad == badAtSink }
	var refused []string
	if slices.ContainsFunc(req.Rows, isBad) {
		if !s.names || door != batchedPipe.name {
			return http.StatusUnprocessableEntity, []byte("bad row"), false
		}
	}
	left := make(map[string]bool) // keys with a refused row: their later rows are not accepted
	for _, r := range req.Rows {
		if isBad(r) && !left[r.Key] {
			refused = append(refused, r.UUID)
		}
		if left[r.Key] = left[r.Key] || isBad(r); left[r.Key] {
			continue
		}
		s.entries = append(s.entries, entry{row: r, door: door, process: req.Process, at: time.Now()})
		s.seen[door][r.ident()] = true
	}
	if len(refused) > 0 {
		answer, _ = json.Marshal(refused) // strings always have a JSON form
	}
	return http.StatusOK, answer, fault == "lost"
}

// singleFault decides whether a request fails separately. mu is held.
func (s *recordingSink) singleFault(door string, rows []row) (kind string) {
	if s.random.IntN(1000) >= singleFaults {
		return ""
	}
	if slices.ContainsFunc(rows, func(r row) bool { return s.hit[door+r.UUID] }) {
		return ""
	}
	for _, r := range rows {
		s.hit[door+r.UUID] = true
	}
	kind = []string{"error", "lost"}[s.random.IntN(2)]
	s.count[kind]++
	return kind
}

// String says how much the sink has accepted.
func (s *recordingSink) String() string {
	s.mu.Lock()
	defer s.mu.Unlock()
	var text strings.Builder
	for name := range s.seen {
		if n := len(s.seen[name]); n > 0 {
			fmt.Fprintf(&text, "%s %d records, ", name, n)
		}
	}
	fmt.Fprintf(&text, "%d effects, %d fenced, single faults %v", len(s.entries), len(s.fenced), s.count)
	return text.String()
}

// effects returns how many rows the sink has taken.
func (s *recordingSink) effects() int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return len(s.entries)
}

// log returns the entries of a door.
func (s *recordingSink) log(door string) []entry {
	s.mu.Lock()
	defer s.mu.Unlock()
	var entries []entry
	for _, x := range s.entries {
		if x.door == door {
			entries = append(entries, x)
		}
	}
	return entries
}

// arrived counts the changes that a door has accepted or that are letters.
func (s *recordingSink) arrived(door string, letters []letter, withTicks bool) (n int) {
	s.mu.Lock()
	defer s.mu.Unlock()
	counts := func(id ident) bool { return id.sequence != "" && (withTicks || !isTick(id.key)) }
	for id := range s.seen[door] {
		if counts(id) {
			n++
		}
	}
	only := make(map[ident]bool) // letters that the door has not accepted
	for _, l := range letters {
		if counts(l.ident) && !s.seen[door][l.ident] {
			only[l.ident] = true
		}
	}
	return n + len(only)
}

// lettersOf returns the letters of a pipeline that arrived by topic.
func (s *recordingSink) lettersOf(pipeline string) []letter {
	s.mu.Lock()
	defer s.mu.Unlock()
	var letters []letter
	for _, l := range s.letters {
		if l.pipeline == pipeline {
			letters = append(letters, l)
		}
	}
	return letters
}

func (s *recordingSink) fencings() []fencing {
	s.mu.Lock()
	defer s.mu.Unlock()
	return slices.Clone(s.fenced)
}
