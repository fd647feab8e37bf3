package ledger_test

import (
	"fmt"
	"time"

	"github.com/watermill-ots/watermill-ots/internal/ledger"
)

func ExampleTracker() {
	window := ledger.NewWindow(4096, 64<<20)
	lane := window.Open()
	defer lane.Close()
	tracker := ledger.New(ledger.ByKey, "channel-1", lane)

	// The reader.
	if lane.Admit() {
		tracker.Add(ledger.Page{Token: "token-1", Keys: []string{"alice", "bob", "alice"}, Bytes: 300})
	}

	// The deliverer. The second record of alice waits for the first.
	now := time.Now()
	alice, _, _ := tracker.Next(now)
	bob, _, _ := tracker.Next(now)
	_, _, ok := tracker.Next(now)
	fmt.Println(alice.Key(), bob.Key(), ok)

	// The outcomes, in any order. Alice fails and is redelivered after a second.
	tracker.Ack(bob)
	tracker.Nack(alice, now.Add(time.Second))
	_, retryAt, _ := tracker.Next(now)
	fmt.Println("retry in", retryAt.Sub(now))

	for a, _, ok := tracker.Next(retryAt); ok; a, _, ok = tracker.Next(retryAt) {
		fmt.Println("record", a.ID(), "attempt", a.Number())
		tracker.Ack(a)
	}

	// The committer.
	token, position, _ := tracker.Committable()
	fmt.Println("commit", token)
	tracker.Committed(position)

	// Output:
	// alice bob false
	// retry in 1s
	// record 1 attempt 2
	// record 3 attempt 1
	// commit token-1
}
