package laws

import (
	"flag"
	"fmt"
	"math"
	"testing"
	"time"
)

var (
	pipelinesSeeds = flag.Int("pipelines.seeds", 4, "how many seeds the chaos test of pipelines runs; 2 with -race, none with -short")
	pipelinesSeed  = flag.Uint64("pipelines.seed", 0, "run this seed only")
	pipelinesTime  = flag.Duration("pipelines.time", 7*time.Second, "how long a seed of the chaos test of pipelines has trouble")
)

// TestLaws_of_pipelines_under_chaos runs processes with pipelines of a YAML
// file through a seeded schedule of trouble: of the processes, of the service and of
// the sink. It checks the laws on what a user would see: the sink's own log and
// the dead letters.
func TestLaws_of_pipelines_under_chaos(t *testing.T) {
	needsSignals(t)
	if testing.Short() && *pipelinesSeed == 0 {
		t.Skip("takes some ten seconds a seed; -short leaves it out")
	}
	seeds := make([]uint64, *pipelinesSeeds)
	if raceEnabled {
		seeds = seeds[:min(2, len(seeds))]
	}
	first := uint64(time.Now().UnixNano())
	for i := range seeds {
		seeds[i] = first + uint64(i)
	}
	if *pipelinesSeed != 0 {
		seeds = []uint64{*pipelinesSeed}
	}
	gate := make(chan struct{}, 2) // two worlds at a time
	for _, seed := range seeds {
		t.Run(fmt.Sprintf("seed_%d", seed), func(t *testing.T) {
			t.Parallel()
			gate <- struct{}{}
			defer func() { <-gate }()
			w := newPipelinesWorld(t, seed)
			w.run()
			w.check()
		})
	}
}

// pipelinesStall is how long nothing may arrive when all is well again but not everything is there.
const pipelinesStall = 90 * time.Second // bad rows alone are probed once a second, and each needs its attempts

// run lets trouble happen while changes are written, heals the world, waits until
// everything has arrived, and ends the workers.
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
	for slot := range w.slots {
		w.end(slot)
	}
	for _, p := range w.draining {
		w.reap(p)
	}
	w.tell("all have ended")
	w.sample()
}

// await waits until everything that was written is there, and fails if nothing arrives for a long time.
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
			w.check() // says what is wrong with the rest
			w.Fatalf("L1: %d changes have not arrived %v after the trouble, and no more of them arrive", missing, pipelinesStall)
		}
		time.Sleep(50 * time.Millisecond)
		w.revive()
		w.sample()
	}
}

// heal ends all trouble.
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

// revive starts another worker where one found no service at its start.
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
