package letters

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/ThreeDotsLabs/watermill/message"
	"github.com/aliyun/aliyun-tablestore-go-sdk/tablestore"

	"github.com/watermill-ots/watermill-ots/internal/testbed"
	"github.com/watermill-ots/watermill-ots/internal/testsize"
)

// handled notes the letters that were handled, in order.
type handled struct {
	mu  sync.Mutex
	ids []string
	err func(id string) error
}

func (h *handled) process(msg *message.Message) error {
	h.mu.Lock()
	h.ids = append(h.ids, msg.UUID)
	failure := h.err
	h.mu.Unlock()
	if failure != nil {
		return failure(msg.UUID)
	}
	return nil
}

// take returns what was handled since the last take.
func (h *handled) take() []string {
	h.mu.Lock()
	defer h.mu.Unlock()
	ids := h.ids
	h.ids = nil
	return ids
}

func replayed(t *testing.T, rp *replay, want Count) {
	t.Helper()
	if err := rp.run(context.Background()); err != nil || rp.count != want {
		t.Errorf("replayed %+v, %v; want %+v", rp.count, err, want)
	}
}

// Of two Replays at once, only one handles a letter, and the letters of one key stay in order.
func TestReplay_two_at_once_handle_each_letter_once(t *testing.T) {
	h := &handled{err: func(string) error { time.Sleep(2 * time.Millisecond); return nil }}
	b := newBed(t, h.process)
	const keys, versions = 15, 20
	for v := 1; v <= versions; v++ {
		for k := range keys {
			b.put(t, letterOfRow(testbed.Key(k), v))
		}
	}
	first, _ := b.replay(t)
	second, _ := b.replay(t)
	var wg sync.WaitGroup
	for _, rp := range []*replay{first, second} {
		wg.Go(func() {
			if err := rp.run(context.Background()); err != nil {
				t.Error(err)
			}
		})
	}
	wg.Wait()
	done := first.count.Succeeded + second.count.Succeeded
	left, _ := b.rows(t)
	if done == 0 || done+len(left) != keys*versions {
		t.Errorf("%d letters were handled, %d are left of %d", done, len(left), keys*versions)
	}
	last, _ := b.replay(t)
	replayed(t, last, Count{Succeeded: len(left)}) // nothing is left claimed
	ids := h.take()
	if len(ids) != keys*versions {
		t.Errorf("%d letters were handled in %d calls", keys*versions, len(ids))
	}
	next := make(map[string]int)
	for _, id := range ids {
		at := strings.LastIndexByte(id, '-')
		next[id[:at]]++
		if id[at+1:] != fmt.Sprint(next[id[:at]]) {
			t.Fatalf("%s was handled as number %d of its key", id, next[id[:at]])
		}
	}
}

// A Replay skips the letters that another one works on, and later letters of the same key. The claims
// of a Replay that crashed end by themselves.
func TestReplay_claims_end_with_their_lease(t *testing.T) {
	h := new(handled)
	b := newBed(t, h.process)
	a1, a2, c1 := letterOfRow("a", 1), letterOfRow("a", 2), letterOfRow("c", 1)
	b.put(t, a1, a2, c1)
	b.set(t, b.table.key(a1), map[string]any{columnClaim: "other", columnClaimedUntil: time.Now().Add(time.Hour).UnixMilli()})
	rp, _ := b.replay(t)
	replayed(t, rp, Count{Succeeded: 1, Skipped: 2})
	if ids := h.take(); !slices.Equal(ids, []string{"c-1"}) {
		t.Errorf("handled %v", ids)
	}
	b.set(t, b.table.key(a1), map[string]any{columnClaimedUntil: time.Now().Add(-time.Millisecond).UnixMilli()})
	rp, _ = b.replay(t)
	replayed(t, rp, Count{Succeeded: 2})
	if ids := h.take(); !slices.Equal(ids, []string{"a-1", "a-2"}) {
		t.Errorf("handled %v", ids)
	}
}

// A claim is taken only from the letter as it was read.
func TestClaims_are_lost_to_a_faster_process(t *testing.T) {
	t.Parallel() // it waits in real time
	for name, meanwhile := range map[string]func(t *testing.T, b *bed, l *Letter){
		"claimed": func(t *testing.T, b *bed, l *Letter) {
			b.set(t, b.table.key(l), map[string]any{columnClaim: "other", columnClaimedUntil: time.Now().Add(time.Hour).UnixMilli()})
		},
		"renewed by its owner": func(t *testing.T, b *bed, l *Letter) {
			b.set(t, b.table.key(l), map[string]any{columnClaimedUntil: time.Now().Add(time.Hour).UnixMilli()})
		},
		"failed again": func(t *testing.T, b *bed, l *Letter) {
			b.set(t, b.table.key(l), map[string]any{columnFailedAt: l.FailedAt.UnixMilli() + 1, columnClaim: nil})
		},
		"written again": func(t *testing.T, b *bed, l *Letter) { b.put(t, l) },
		"removed": func(t *testing.T, b *bed, l *Letter) {
			if err := b.table.deleteRows(context.Background(), []*tablestore.PrimaryKey{b.table.key(l)}); err != nil {
				t.Fatal(err)
			}
		},
	} {
		t.Run(name, func(t *testing.T) {
			b := newBed(t, func(*message.Message) error { return nil })
			l := letterOfRow("a", 1, blob(1, 3<<20))
			b.put(t, l)
			if name == "renewed by its owner" {
				b.set(t, b.table.key(l), map[string]any{columnClaim: "other", columnClaimedUntil: time.Now().Add(-time.Second).UnixMilli()})
			}
			read := b.letters(t)
			meanwhile(t, b, l)
			rp, _ := b.replay(t)
			lost, err := rp.claims.take(context.Background(), read)
			if err != nil || !lost[read[0]] {
				t.Errorf("lost %v, %v", lost, err)
			}
			if name == "removed" {
				if letters, _ := b.rows(t); len(letters) != 0 {
					t.Errorf("the claim made the row %v", letters)
				}
			}
		})
	}
}

// Behind a letter that another process claimed first, the later ones of its key are
// released, and others are not.
func TestReplay_keeps_the_order_of_a_key_behind_a_lost_claim(t *testing.T) {
	b := newBed(t, func(*message.Message) error { return nil })
	a1, a2, c1 := letterOfRow("a", 1), letterOfRow("a", 2), letterOfRow("c", 3)
	b.put(t, a1, a2, c1)
	read := b.letters(t)
	b.set(t, b.table.key(a1), map[string]any{columnClaim: "other", columnClaimedUntil: time.Now().Add(time.Hour).UnixMilli()})
	rp, _ := b.replay(t)
	held, err := rp.claim(context.Background(), read)
	if err != nil || len(held) != 1 || held[0].ID != "c-3" || rp.count != (Count{Skipped: 2}) {
		t.Errorf("%d letters are held, %+v, %v", len(held), rp.count, err)
	}
	for i, want := range []string{"other", "", rp.claims.id} {
		if got := b.letters(t)[i]; got.claim != want {
			t.Errorf("letter %s is claimed by %q, want %q", got.ID, got.claim, want)
		}
	}
}

// A lost answer changes nothing: the Replay finds out that the write was done.
func TestReplay_survives_lost_answers(t *testing.T) {
	h := &handled{err: func(id string) error {
		if id == "bad-1" {
			return errors.New("still bad")
		}
		return nil
	}}
	b := newBed(t, h.process)
	b.put(t, letterOfRow("good", 1, blob(1, 3<<20)), letterOfRow("bad", 1))
	rp, w := b.replay(t)
	for _, operation := range []string{"BatchWriteRow", "DeleteRow", "UpdateRow"} {
		w.loseAnswers(operation, 1)
	}
	replayed(t, rp, Count{Succeeded: 1, Failed: 1})
	got := b.letters(t)
	if len(got) != 1 || got[0].ID != "bad-1" || got[0].Attempts != 6 || got[0].Error != "still bad" || got[0].claim != "" {
		t.Errorf("left: %+v", got)
	}
	if _, parts := b.rows(t); len(parts) != 0 {
		t.Errorf("parts %v are left", parts)
	}
}

// Wherever the end of a Replay is cut off, no letter is lost and none is incomplete.
func TestReplay_a_cut_end_loses_no_letter(t *testing.T) {
	if !testsize.Full() {
		t.Skip("it cuts a replay of large letters at each call: only in the full form, " + testsize.Variable + "=1")
	}
	h := new(handled)
	b := newBed(t, h.process)
	l := letterOfRow("a", 1, blob(1, 3<<20))
	for n := 0; ; n++ {
		if n > 50 {
			t.Fatal("parts pile up: the Replay needs ever more requests")
		}
		b.put(t, l)
		rp, w := b.replay(t)
		w.cutAfter(n)
		err := rp.run(context.Background())
		done := len(h.take()) > 0
		got := b.letters(t)
		if len(got) == 0 && !done {
			t.Fatalf("after %d requests the letter is gone and was not handled", n)
		}
		if len(got) == 1 {
			same(t, got[0], l)
		}
		if err == nil {
			if n < 5 || len(got) != 0 {
				t.Errorf("the Replay needed %d requests and left %d letters", n, len(got))
			}
			break
		}
	}
}
