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

// recordingSink is what the pipelines write to: a service in the process of the test,
// which survives the workers. It keeps a log of what it did, in its order.
//
// Each door is a server of its own, so that one may be shut while others are open.
type recordingSink struct {
	names bool // the batch door names the rows that it refuses and takes the others
	doors map[string]*door

	mu      sync.Mutex // guards the following
	random  *rand.Rand // decides about single faults
	entries []entry
	seen    map[string]map[ident]bool // by door: what is in entries
	letters []letter                  // that came by topic
	fenced  []fencing
	gone    map[string]bool // requests that their workers have given up
	dead    map[int]bool    // processes that are killed
	hit     map[string]bool // door and UUID that met a single fault
	count   map[string]int  // single faults by kind
}

// requestHeader has what tells a request from all others.
const requestHeader = "Request-Id"

// entry is one effect: a row that the sink took.
type entry struct {
	row
	door    string
	process int
	at      time.Time
}

// ident names a record: its key, and its place in the stream, empty for base data.
type ident struct{ key, sequence string }

func (r row) ident() ident {
	if r.Sequence.IsZero() {
		return ident{key: r.Key}
	}
	return ident{r.Key, r.Sequence.String()}
}

// letter is what counts of a dead letter.
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
		d := &door{sink: s, name: name, addr: freeAddr(t), mood: open, changed: make(chan struct{})}
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

// urls returns where the doors are.
func (s *recordingSink) urls() map[string]string {
	urls := make(map[string]string)
	for name, d := range s.doors {
		urls[name] = "http://" + d.addr
	}
	return urls
}

// pause is how long a request takes in a slow spell.
func (s *recordingSink) pause() time.Duration {
	s.mu.Lock()
	defer s.mu.Unlock()
	return time.Duration(s.random.Int64N(int64(slowest)))
}

// take does what a request asks for, unless its worker is gone.
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

// bury has the sink do nothing any more of what a process has sent that is about to be killed:
// a request that waits here for its turn would be done beside those of the next owner.
func (s *recordingSink) bury(process int) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.dead[process] = true
}

// takeRows needs mu. It logs the rows, all or none of them, unless it names those that it refuses.
func (s *recordingSink) takeRows(door string, req request) (status int, answer []byte, lost bool) {
	if s.dead[req.Process] {
		return 0, nil, true
	}
	fault := s.singleFault(door, req.Rows)
	if fault == "error" {
		return http.StatusInternalServerError, []byte("made up"), false
	}
	isBad := func(r row) bool { return r.Bad == badAtSink }
	var refused []string
	if slices.ContainsFunc(req.Rows, isBad) {
		if !s.names || door != batchedPipe.name {
			return http.StatusUnprocessableEntity, []byte("bad row"), false
		}
	}
	left := make(map[string]bool) // keys of which a row was refused: what follows it is not done
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

// singleFault needs mu. It decides whether a request meets a fault of its own.
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

// String says how much the sink took.
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

// arrived counts the changes that a door took or that are letters.
func (s *recordingSink) arrived(door string, letters []letter, withTicks bool) (n int) {
	s.mu.Lock()
	defer s.mu.Unlock()
	counts := func(id ident) bool { return id.sequence != "" && (withTicks || !isTick(id.key)) }
	for id := range s.seen[door] {
		if counts(id) {
			n++
		}
	}
	only := make(map[ident]bool) // letters that the door did not take
	for _, l := range letters {
		if counts(l.ident) && !s.seen[door][l.ident] {
			only[l.ident] = true
		}
	}
	return n + len(only)
}

// lettersOf returns the letters of a pipeline that came by topic.
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
