package laws

import (
	"context"
	"math/rand/v2"
	"sync"
	"testing"
	"time"

	"github.com/aliyun/aliyun-tablestore-go-sdk/tunnel"

	"github.com/watermill-ots/watermill-ots/emulator"
	"github.com/watermill-ots/watermill-ots/internal/testbed"
)

// TestL1_L2_L3_consumer_killed_ten_times kills a consumer process with SIGKILL
// at random moments, every other one with the subscriber's own loop. From the
// consumer's log and the service's checkpoints it checks:
//
//   - L1: in the end every record was handled, so nothing was committed
//     unhandled: it would not have been redelivered;
//   - L2: nothing at or before a stored checkpoint is redelivered, and the same
//     record has the same UUID in every process;
//   - L3: versions of a key are handled in order, each only after the previous
//     one was handled.
func TestL1_L2_L3_consumer_killed_ten_times(t *testing.T) {
	if testing.Short() {
		t.Skip("it kills processes, for ten seconds; -short leaves it out")
	}
	needsSignals(t)
	t.Parallel() // it waits in real time
	const keys, kills = 40, 10
	seed := uint64(time.Now().UnixNano())
	t.Logf("seed %d", seed)
	random := rand.New(rand.NewPCG(seed, 0))

	b := testbed.New(t, emulator.Options{DataDir: t.TempDir()})
	if err := b.Emulator.Split(testbed.Table); err != nil {
		t.Fatal(err)
	}
	id := b.CreateTunnel(tunnel.TunnelTypeStream)
	log := newLog(t)
	var all []handled
	read := func() []handled {
		log.next(func(h handled) { all = append(all, h) })
		return all
	}

	ctx, stop := context.WithCancel(t.Context())
	versions := make(chan int, 1)
	go func() { // writes while consumers are killed, so that each has something to do
		v := 0
		defer func() { versions <- v }()
		for ctx.Err() == nil {
			for k := range keys {
				if err := b.Put(testbed.Key(k), v+1); err != nil {
					t.Error(err)
					return
				}
			}
			v++
			time.Sleep(20 * time.Millisecond)
		}
	}()
	written := sync.OnceValue(func() int { stop(); return <-versions * keys })
	defer written()

	committed := make([]map[string]time.Time, kills+1) // by process: what was committed when it ended
	for n := range kills {
		p := consumer{number: n, endpoint: b.Emulator.Endpoint(), log: log.name, mode: plain, ownLoop: n%2 == 1}.start(t)
		testbed.Eventually(t, 20*time.Second, "the consumer handles records", func() bool { return handledBy(read(), n) })
		time.Sleep(time.Duration(random.IntN(400)) * time.Millisecond) // the random moment
		p.kill(t)
		committed[n] = b.Committed(id)
	}
	records := written()
	p := consumer{number: kills, endpoint: b.Emulator.Endpoint(), log: log.name, mode: plain, ownLoop: random.IntN(2) == 0}.start(t)
	testbed.Eventually(t, time.Minute, "every record was handled", func() bool { return distinct(read()) == records })
	p.terminate(t)

	read()
	checkOrder(t, all)
	checkDuplicates(t, all, committed)
	if got := distinct(all); got != records {
		t.Errorf("L1: %d of %d records were handled", got, records)
	}
	t.Logf("%d records, %d deliveries, %d of them duplicates after %d kills", records, len(all), len(all)-distinct(all), kills)
}

// checkDuplicates checks L2: what was committed when process n ended is not
// redelivered to the processes after it.
func checkDuplicates(t *testing.T, all []handled, committed []map[string]time.Time) {
	t.Helper()
	uuids := make(map[string]string)
	for _, h := range all {
		for n := range h.process {
			if at := committed[n][h.channel]; h.changed().Before(at) {
				t.Fatalf("L2: %s version %d (changed %v) was redelivered in process %d, although process %d had committed up to %v", h.key, h.version, h.changed(), h.process, n, at)
			}
		}
		name := h.key + "@" + h.sequence.String()
		if was, ok := uuids[name]; ok && was != h.uuid {
			t.Fatalf("L2: %s has the UUID %s and the UUID %s", name, was, h.uuid)
		}
		uuids[name] = h.uuid
	}
}

// checkOrder checks L3 on the log of processes that ran one at a time and whose
// handlers never failed.
func checkOrder(t *testing.T, all []handled) {
	t.Helper()
	newest := make(map[string]int) // by key, over all processes
	type place struct {
		process int
		key     string
	}
	last := make(map[place]int)
	for i, h := range all {
		if h.version > newest[h.key]+1 {
			t.Fatalf("L3: line %d: %s version %d was handled before version %d", i+1, h.key, h.version, newest[h.key]+1)
		}
		newest[h.key] = max(newest[h.key], h.version)
		at := place{h.process, h.key}
		if was, ok := last[at]; ok && h.version != was+1 {
			t.Fatalf("L3: line %d: process %d handled %s version %d after version %d", i+1, h.process, h.key, h.version, was)
		}
		last[at] = h.version
	}
}

func distinct(all []handled) int {
	seen := make(map[string]bool)
	for _, h := range all {
		seen[h.uuid] = true
	}
	return len(seen)
}

func handledBy(all []handled, process int) bool {
	return len(all) > 0 && all[len(all)-1].process == process
}
