package laws

import (
	"flag"
	"fmt"
	"math"
	"testing"
	"time"
)

var (
	pipelinesSeeds = flag.Int("pipelines.seeds", 0, "how many seeds the chaos test of pipelines runs; 0: 20 in the full form of tests, 2 otherwise and with -race, none with -short")
	pipelinesSeed  = flag.Uint64("pipelines.seed", 0, "run this seed only")
	pipelinesTime  = flag.Duration("pipelines.time", 7*time.Second, "how long a seed of the chaos test of pipelines has faults")
)

// TestLaws_of_pipelines_under_chaos runs processes with pipelines from a YAML
// file through a seeded schedule of faults: of the processes, of the service
// and of the sink. It checks the laws on what a user would see: the sink's own
// log and the dead letters.
func TestLaws_of_pipelines_under_chaos(t *testing.T) {
	t.Parallel() // it waits in real time
	needsSignals(t)
	if testing.Short() && *pipelinesSeed == 0 {
		t.Skip("takes some ten seconds a seed; -short leaves it out")
	}
	seeds := make([]uint64, seedsOf(*pipelinesSeeds, 20))
	first := uint64(time.Now().UnixNano())
	for i := range seeds {
		seeds[i] = first + uint64(i)
	}
	if *pipelinesSeed != 0 {
		seeds = []uint64{*pipelinesSeed}
	}
	for _, seed := range seeds {
		t.Run(fmt.Sprintf("seed_%d", seed), func(t *testing.T) {
			t.Parallel()
			worlds <- struct{}{}
			defer func() { <-worlds }()
			w := newPipelinesWorld(t, seed)
			w.run()
			w.check()
		})
	}
}

// pipelinesStall is the longest time without any arrival once all faults have
// ended and changes are missing.
const pipelinesStall = 90 * time.Second // bad rows alone are probed once a second, and each needs its attempts

// run causes faults while changes are written, ends the faults, waits until
// everything has arrived, and stops the workers.
func (w *pipelinesWorld) run() {
	changes := w.write()
	defer changes.stop()
	for slot := range workerSlots {
		w.start(slot)
	}
	began := time.Now()
	for _, e := range scheduleOf(w.seed, *pipelinesTime) {
		pause := time.NewTimer(time.Until(began.Add(e.at)))
		<-pause.C
		w.tell("%s", e.what)
		e.do(w)
		w.revive()
		w.sample()
	}
	w.heal()
	w.await(false)
	changes.stop()
	w.await(true)
	w.must(changes.err)
	w.awaitQuiet()
	for slot := range w.slots {
		w.end(slot)
	}
	for _, p := range w.draining {
		w.reap(p)
	}
	w.tell("all have ended")
	w.sample()
}

// await waits until everything that was written has arrived, and fails if
// nothing arrives for a long time.
func (w *pipelinesWorld) await(withTicks bool) {
	w.Helper()
	least, since := math.MaxInt, time.Now()
	for {
		done, missing := w.settled(withTicks)
		if done {
			return
		}
		if missing < least {
			least, since = missing, time.Now()
		} else if time.Since(since) > pipelinesStall {
			w.check() // reports what else is wrong
			w.Fatalf("L1: %d changes have not arrived %v after the faults, without progress", missing, pipelinesStall)
		}
		time.Sleep(50 * time.Millisecond)
		w.revive()
		w.sample()
	}
}

// awaitQuiet waits until the sink has been idle for longer than the longest pause between two
// attempts. A record in the sink may be retried because the answer was lost, and a drain that
// begins during its pause leaves it uncommitted, which is correct.
func (w *pipelinesWorld) awaitQuiet() {
	for effects, since := w.sink.effects(), time.Now(); time.Since(since) < spellGap; time.Sleep(20 * time.Millisecond) {
		if n := w.sink.effects(); n != effects {
			effects, since = n, time.Now()
		}
	}
}

// heal ends all faults.
func (w *pipelinesWorld) heal() {
	w.tell("heal")
	w.emulator.ClearFaults()
	for name := range w.sink.doors {
		w.turn(open, name)
	}
	for slot := range w.slots {
		w.resume(slot)
		w.start(slot)
	}
}

// revive starts another worker in place of one that found no service at its
// start.
func (w *pipelinesWorld) revive() {
	w.Helper()
	for slot, p := range w.slots {
		if p == nil || !p.hasEnded() {
			continue
		}
		w.slots[slot] = nil
		if code := p.ProcessState.ExitCode(); code != exitNoService {
			w.Fatalf("process %d ended by itself: %v\n%s", p.number, p.ProcessState, p.output)
		}
		w.tell("process %d did not start: %s", p.number, p.output)
		w.start(slot)
	}
}
