package router_test

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/ThreeDotsLabs/watermill/message"
	"github.com/ThreeDotsLabs/watermill/pubsub/gochannel"
	"github.com/aliyun/aliyun-tablestore-go-sdk/tablestore"

	"github.com/watermill-ots/watermill-ots/ack"
	"github.com/watermill-ots/watermill-ots/batching"
	"github.com/watermill-ots/watermill-ots/emulator"
	"github.com/watermill-ots/watermill-ots/internal/testbed"
	"github.com/watermill-ots/watermill-ots/ots"
	"github.com/watermill-ots/watermill-ots/router"
	"github.com/watermill-ots/watermill-ots/subscriber"
)

// journal notes what was handled, in order.
type journal struct {
	mu   sync.Mutex
	keys map[string][]int64 // versions by key
}

func newJournal() *journal { return &journal{keys: make(map[string][]int64)} }

func (j *journal) add(msg *message.Message) {
	j.mu.Lock()
	defer j.mu.Unlock()
	k := msg.Metadata.Get(subscriber.MetadataKey)
	j.keys[k] = append(j.keys[k], version(msg))
}

func (j *journal) count() (n int) {
	j.mu.Lock()
	defer j.mu.Unlock()
	for _, v := range j.keys {
		n += len(v)
	}
	return n
}

func (j *journal) of(key string) []int64 {
	j.mu.Lock()
	defer j.mu.Unlock()
	return append([]int64(nil), j.keys[`["`+key+`"]`]...)
}

func equal(a, b []int64) bool {
	if len(a) != len(b) {
		return false
	}
	for i := range a {
		if a[i] != b[i] {
			return false
		}
	}
	return true
}

// poisoned says whether the message is the one that the tests make fail.
func poisoned(msg *message.Message) bool {
	return msg.Metadata.Get(subscriber.MetadataKey) == `["`+testbed.Key(1)+`"]` && version(msg) == 2
}

var errPoison = errors.New("poison")

// steady is the key of a row that changes all the time and succeeds, without
// which a message that fails has no witness against it.
const steady = "steady"

// traffic changes the row steady until it is stopped, at the latest by the end of the test.
func traffic(t *testing.T, bed *testbed.Bed) (stop func()) {
	t.Helper()
	ctx, cancel := context.WithCancel(context.Background())
	var wg sync.WaitGroup
	wg.Go(func() { // ends with ctx
		for v := 1; ctx.Err() == nil; v++ {
			if err := bed.Put(steady, v); err != nil && ctx.Err() == nil {
				t.Errorf("put %s: %v", steady, err)
				return
			}
			time.Sleep(5 * time.Millisecond)
		}
	})
	stop = func() { cancel(); wg.Wait() }
	t.Cleanup(stop)
	return stop
}

func TestDeadLetterTopic(t *testing.T) {
	bed := testbed.New(t, emulator.Options{})
	r := build(t, fileFor(bed, `
    batchers: {default: {batch_timeout: 20ms}}
    failure:
      attempts: 3
      backoff_initial: 10ms
      dead_letter: {publisher: letters, topic: dead}
`))
	pub := gochannel.NewGoChannel(gochannel.Config{OutputChannelBuffer: 10}, nil)
	defer pub.Close()
	dead, err := pub.Subscribe(context.Background(), "dead")
	if err != nil {
		t.Fatal(err)
	}
	if err := r.RegisterPublisher("letters", pub); err != nil {
		t.Fatal(err)
	}
	j := newJournal()
	var mu sync.Mutex
	failures := 0
	err = r.Handle("numbers", router.Handlers{
		Batches: batchHandlers{"default": func(_ context.Context, b *batching.Batch) error {
			for _, m := range b.Messages {
				if poisoned(m) {
					b.Fail(m, errPoison)
				} else if m.Context().Err() == nil {
					j.add(m)
				}
			}
			return nil
		}},
		Failed: func(_ *message.Message, err error) {
			mu.Lock()
			defer mu.Unlock()
			if !errors.Is(err, errPoison) {
				t.Errorf("Failed was called with %v", err)
			}
			failures++
		},
	})
	if err != nil {
		t.Fatal(err)
	}
	start(t, r)
	bed.PutAll(5, 4)
	letter := receive(t, dead)
	letter.Ack()
	l, err := router.ParseDeadLetter(letter.Payload)
	if err != nil {
		t.Fatal(err)
	}
	if l.Pipeline != "numbers" || l.ID != letter.UUID || l.Table != testbed.Table || l.Tunnel != testbed.Tunnel || l.Channel == "" ||
		l.Type != "put" || l.Key != `["`+testbed.Key(1)+`"]` || l.Sequence == "" || l.Attempts != 3 || l.FailedAt.IsZero() {
		t.Errorf("letter %+v", l)
	}
	if l.Error != `batching: batcher "default": poison` {
		t.Errorf("error %q", l.Error)
	}
	again := l.Message()
	if rec, ok := ots.RecordFromMessage(again); !ok || rec.Sequence.String() != l.Sequence || version(again) != 2 {
		t.Errorf("the record does not survive: %+v", rec)
	}
	testbed.Eventually(t, 20*time.Second, "all other changes were handled", func() bool { return len(j.of(testbed.Key(1))) >= 3 && len(j.of(testbed.Key(4))) >= 4 })
	mu.Lock()
	defer mu.Unlock()
	if failures != 3 {
		t.Errorf("Failed was called %d times", failures)
	}
}

func receive(t *testing.T, messages <-chan *message.Message) *message.Message {
	t.Helper()
	select {
	case m := <-messages:
		return m
	case <-time.After(20 * time.Second):
		t.Fatal("no message came")
		return nil
	}
}

// letter makes a published dead letter of pipeline numbers.
func letter(t *testing.T, key string, v int64) *message.Message {
	t.Helper()
	l := &router.DeadLetter{Pipeline: "numbers", ID: fmt.Sprintf("%s-%d", key, v), Record: row(key, v)}
	b, err := l.MarshalJSON()
	if err != nil {
		t.Fatal(err)
	}
	return message.NewMessage(l.ID, b)
}

func TestReplayMessage(t *testing.T) {
	t.Parallel() // it waits in real time

	r := build(t, offline("    batchers: {default: {batch_timeout: 1h}}\n")) // for which it does not wait
	var got []int64
	err := r.Handle("numbers", router.Handlers{Batches: batchHandlers{"default": func(_ context.Context, b *batching.Batch) error {
		got = append(got, version(b.Messages[0]))
		if version(b.Messages[0]) == 1 {
			return errPoison
		}
		return nil
	}}})
	if err != nil {
		t.Fatal(err)
	}
	if err := r.ReplayMessage(letter(t, "a", 1)); !errors.Is(err, errPoison) {
		t.Errorf("got %v", err)
	}
	if err := r.ReplayMessage(letter(t, "a", 2)); err != nil {
		t.Error(err)
	}
	if !equal(got, []int64{1, 2}) {
		t.Errorf("handled %v", got)
	}
	if err := r.ReplayMessage(message.NewMessage("x", []byte(`{"some":"thing"}`))); err == nil {
		t.Error("any JSON was taken for a dead letter")
	}
	if err := r.Close(); err != nil {
		t.Fatal(err)
	}
	if err := r.ReplayMessage(letter(t, "a", 2)); !errors.Is(err, batching.ErrClosed) {
		t.Errorf("after Close: %v", err)
	}
}

func TestReplayMessages(t *testing.T) {
	t.Parallel() // it waits in real time
	r := build(t, offline("    batchers: {default: {batch_timeout: 1h}}\n"))
	var mu sync.Mutex
	var got []string
	batches := 0
	err := r.Handle("numbers", router.Handlers{Batches: batchHandlers{"default": func(_ context.Context, b *batching.Batch) error {
		mu.Lock()
		defer mu.Unlock()
		batches++
		for _, msg := range b.Messages {
			got = append(got, msg.UUID)
			if msg.UUID == "bad-1" {
				b.Fail(msg, errPoison)
			}
		}
		return nil
	}}})
	if err != nil {
		t.Fatal(err)
	}
	old := letter(t, "good", 1)
	ctx, cancel := context.WithCancel(context.Background())
	cancel()
	old.SetContext(ctx) // as many subscribers leave it after the ack
	letters := []*message.Message{old, letter(t, "bad", 1), message.NewMessage("x", []byte(`{"some":"thing"}`)), letter(t, "bad", 2), letter(t, "good", 2), letter(t, "good", 3)}
	errs := r.ReplayMessages(context.Background(), letters...)
	for i, want := range []func(error) bool{isNil, is(errPoison), says("not a dead letter"), is(ack.ErrCalledBack), isNil, isNil} {
		if !want(errs[i]) {
			t.Errorf("letter %s: %v", letters[i].UUID, errs[i])
		}
	}
	var good []string
	for _, id := range got {
		if strings.HasPrefix(id, "good") {
			good = append(good, id)
		}
	}
	if strings.Join(good, " ") != "good-1 good-2 good-3" {
		t.Errorf("handled in the order %v", got)
	}
	if batches > 2 {
		t.Errorf("%d letters went through %d batches", len(got), batches)
	}
	if err := r.Close(); err != nil {
		t.Fatal(err)
	}
	if errs := r.ReplayMessages(context.Background(), letters[0]); !errors.Is(errs[0], router.ErrClosed) {
		t.Errorf("after Close: %v", errs[0])
	}
}

func isNil(err error) bool { return err == nil }

func is(target error) func(error) bool {
	return func(err error) bool { return errors.Is(err, target) }
}

func says(text string) func(error) bool {
	return func(err error) bool { return err != nil && strings.Contains(err.Error(), text) }
}

// letterRows reads the dead-letter table past the router.
func letterRows(t *testing.T, bed *testbed.Bed, table string) []*tablestore.Row {
	t.Helper()
	from, to := new(tablestore.PrimaryKey), new(tablestore.PrimaryKey)
	for _, name := range []string{"pipeline", "sequence", "id"} {
		from.AddPrimaryKeyColumnWithMinValue(name)
		to.AddPrimaryKeyColumnWithMaxValue(name)
	}
	resp, err := bed.Client.GetRange(&tablestore.GetRangeRequest{RangeRowQueryCriteria: &tablestore.RangeRowQueryCriteria{
		TableName: table, StartPrimaryKey: from, EndPrimaryKey: to, Direction: tablestore.FORWARD, MaxVersion: 1, Limit: 1000,
	}})
	if err != nil {
		t.Fatal(err)
	}
	return resp.Rows
}

func TestDeadLetterTableAndReplay(t *testing.T) {
	bed := testbed.New(t, emulator.Options{})
	const more = `
    failure:
      attempts: 2
      backoff_initial: 10ms
      dead_letter: {table: dead}
`
	j := newJournal()
	var mu sync.Mutex
	broken := map[string]bool{testbed.Key(0): true, testbed.Key(1): true} // keys that fail
	handlers := router.Handlers{Process: func(msg *message.Message) error {
		mu.Lock()
		defer mu.Unlock()
		for key := range broken {
			if msg.Metadata.Get(subscriber.MetadataKey) == `["`+key+`"]` {
				return errPoison
			}
		}
		if msg.Metadata.Get(subscriber.MetadataKey) != `["`+steady+`"]` {
			j.add(msg)
		}
		return nil
	}}
	r := build(t, fileFor(bed, more))
	if err := r.Handle("numbers", handlers); err != nil {
		t.Fatal(err)
	}
	start(t, r)
	stopTraffic := traffic(t, bed)
	bed.PutAll(4, 3)
	testbed.Eventually(t, 20*time.Second, "all changes of the broken keys are dead letters", func() bool { return len(letterRows(t, bed, "dead")) == 6 })
	testbed.Eventually(t, 20*time.Second, "all other changes were handled", func() bool { return j.count() == 6 })

	stopTraffic()
	mu.Lock()
	delete(broken, testbed.Key(0)) // the cause of one is repaired
	mu.Unlock()
	got, err := r.Replay(context.Background(), "numbers")
	if want := (router.Replayed{Succeeded: 3, Failed: 1, Skipped: 2}); err != nil || got != want {
		t.Errorf("replayed %+v, %v; want %+v", got, err, want)
	}
	if v := j.of(testbed.Key(0)); !equal(v, []int64{1, 2, 3}) {
		t.Errorf("replayed in the order %v", v)
	}
	left := letterRows(t, bed, "dead")
	if len(left) != 3 {
		t.Fatalf("%d letters are left", len(left))
	}
	attempts := columnsOf(left[0])["attempts"]
	if attempts != int64(3) {
		t.Errorf("the letter that failed again has %v attempts", attempts)
	}
	if err := r.Close(); err != nil {
		t.Fatal(err)
	}

	// A program of its own, which never runs the pipeline, replays the rest.
	delete(broken, testbed.Key(1))
	other := build(t, fileFor(bed, more))
	if err := other.Handle("numbers", handlers); err != nil {
		t.Fatal(err)
	}
	got, err = other.Replay(context.Background(), "numbers")
	if want := (router.Replayed{Succeeded: 3}); err != nil || got != want {
		t.Errorf("replayed %+v, %v; want %+v", got, err, want)
	}
	if v := j.of(testbed.Key(1)); !equal(v, []int64{1, 2, 3}) {
		t.Errorf("replayed in the order %v", v)
	}
	if left := letterRows(t, bed, "dead"); len(left) != 0 {
		t.Errorf("%d letters are left", len(left))
	}
	if err := other.Close(); err != nil {
		t.Fatal(err)
	}
	if _, err := other.Replay(context.Background(), "numbers"); !errors.Is(err, router.ErrClosed) {
		t.Errorf("Replay after Close: %v", err)
	}
}

func columnsOf(row *tablestore.Row) map[string]any {
	out := make(map[string]any)
	for _, c := range row.Columns {
		out[c.ColumnName] = c.Value
	}
	return out
}

func TestReplayNeedsATable(t *testing.T) {
	r := handle(t, "", router.Handlers{Process: noProcess})
	_, err := r.Replay(context.Background(), "numbers")
	if want := "test.yaml:4: tunnels.numbers.failure: Replay reads a dead-letter table, but dead_letter has none; give it a table, or use ReplayMessage for a topic"; err == nil || err.Error() != want {
		t.Errorf("got %v", err)
	}
}

// A failure while the router stops is not a failed attempt, and the message is redelivered.
func TestShutdownMakesNoDeadLetters(t *testing.T) {
	bed := testbed.New(t, emulator.Options{})
	const more = `
    failure: {attempts: 1, dead_letter: {table: dead}}
`
	entered, release := make(chan struct{}, 1), make(chan struct{})
	r := build(t, fileFor(bed, more))
	err := r.Handle("numbers", router.Handlers{Process: func(*message.Message) error {
		entered <- struct{}{}
		<-release
		return errPoison
	}})
	if err != nil {
		t.Fatal(err)
	}
	start(t, r)
	bed.PutAll(1, 1)
	<-entered
	closed := make(chan error, 1)
	go func() { closed <- r.Close() }() // ends with the drain
	// Close has begun when Replay is refused.
	testbed.Eventually(t, 10*time.Second, "the router is closing", func() bool {
		_, err := r.Replay(context.Background(), "numbers")
		return errors.Is(err, router.ErrClosed)
	})
	// It stops right after that; the message fails in the drain.
	testbed.Eventually(t, 10*time.Second, "the router stops", func() bool { return router.Stopping(r) })
	close(release)
	if err := <-closed; err != nil {
		t.Fatal(err)
	}
	if left := letterRows(t, bed, "dead"); len(left) != 0 {
		t.Errorf("%d dead letters were made", len(left))
	}

	handled := make(chan int64, 10)
	again := build(t, fileFor(bed, more))
	if err := again.Handle("numbers", router.Handlers{Process: func(msg *message.Message) error { handled <- version(msg); return nil }}); err != nil {
		t.Fatal(err)
	}
	start(t, again)
	select {
	case v := <-handled:
		if v != 1 {
			t.Errorf("version %d was redelivered", v)
		}
	case <-time.After(20 * time.Second):
		t.Error("the message was lost")
	}
}

// collectInto is a batch handler that notes all messages.
func collectInto(j *journal) func(context.Context, *batching.Batch) error {
	return func(_ context.Context, b *batching.Batch) error {
		for _, m := range b.Messages {
			j.add(m)
		}
		return nil
	}
}
