package behind_test

import (
	"context"
	"crypto/rand"
	"encoding/hex"
	"slices"
	"strconv"
	"sync"
	"testing"
	"time"

	"github.com/ThreeDotsLabs/watermill/message"

	"github.com/watermill-ots/watermill-ots/batching"
	behind "github.com/watermill-ots/watermill-ots/examples/batches-behind"
)

// newName returns a name for an object that a test creates on a server and
// deletes at its end.
func newName() string {
	random := make([]byte, 4)
	rand.Read(random)
	return "behind_" + hex.EncodeToString(random)
}

// messages returns n messages whose UUIDs are numbers, starting at 0.
func messages(n int) []*message.Message {
	all := make([]*message.Message, n)
	for i := range all {
		all[i] = message.NewMessage(strconv.Itoa(i), []byte("{}"))
	}
	return all
}

// must returns v, or ends the test if err is set.
func must[T any](v T, err error) func(*testing.T) T {
	return func(t *testing.T) T {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
		return v
	}
}

// atEnd registers the clean-up of something that a test created.
func atEnd(t *testing.T, what string, end func() error) {
	t.Cleanup(func() {
		if err := end(); err != nil {
			t.Errorf("%s: %v", what, err)
		}
	})
}

// oneAtATime measures five batches and fails unless each has one message
// although many are waiting.
func oneAtATime(t *testing.T, subscriptions ...behind.Subscription) {
	t.Helper()
	f, err := behind.Measure(t.Context(), batching.Batcher{Size: 100, Timeout: 100 * time.Millisecond},
		func(f behind.Figures) bool { return f.Batches == 5 }, subscriptions...)
	if err != nil {
		t.Fatal(err, f)
	}
	t.Log(f)
	if f.InFlight != 1 || f.Largest != 1 {
		t.Errorf("it has more than one in flight: %s", f)
	}
}

// upTo measures until a batch has size messages, and fails if more than
// inFlight messages are in flight.
func upTo(t *testing.T, size, inFlight int, subscriptions ...behind.Subscription) {
	t.Helper()
	f, err := behind.Measure(t.Context(), batching.Batcher{Size: 100, Timeout: 500 * time.Millisecond},
		func(f behind.Figures) bool { return f.Largest >= size }, subscriptions...)
	if err != nil {
		t.Fatal(err, f)
	}
	t.Log(f)
	if f.Largest != size || f.InFlight > inFlight {
		t.Errorf("want %d in flight and a batch of %d: %s", inFlight, size, f)
	}
}

// isRedelivered acks a message while the Router ends, once for each of the
// ways, and fails unless the next subscriber receives it again. open creates a
// topic with one message.
func isRedelivered(t *testing.T, open func(*testing.T) func() behind.Subscription, ways ...behind.Way) {
	t.Helper()
	for _, way := range ways {
		t.Run(string(way), func(t *testing.T) {
			t.Parallel()
			subscription := open(t)
			held, err := behind.AckWhileClosing(t.Context(), way, 0, subscription())
			if err != nil {
				t.Fatal(err)
			}
			came := func(uuids []string) bool { return slices.Contains(uuids, held.UUID) }
			uuids, err := behind.Delivered(t.Context(), subscription(), came, 30*time.Second)
			if err != nil {
				t.Fatal(err)
			}
			t.Logf("context ended before the ack: %t; redelivered: %t", held.ContextEnded, came(uuids))
			if !held.ContextEnded || !came(uuids) {
				t.Errorf("context ended %t; message %s is not among %q", held.ContextEnded, held.UUID, uuids)
			}
		})
	}
}

// wantDelivered fails unless the subscription delivers these messages, in this
// order, and no others soon after.
func wantDelivered(t *testing.T, want []string, s behind.Subscription) {
	t.Helper()
	ctx, enough := context.WithCancel(t.Context())
	defer enough()
	all := sync.OnceFunc(func() { time.AfterFunc(2*time.Second, enough) }) // further messages would arrive within this time
	uuids, err := behind.Delivered(ctx, s, func(uuids []string) bool {
		if len(uuids) >= len(want) {
			all()
		}
		return false
	}, 30*time.Second)
	if err != nil {
		t.Fatal(err)
	}
	t.Logf("delivered: %q", uuids)
	if !slices.Equal(uuids, want) {
		t.Errorf("want %q, got %q", want, uuids)
	}
}
