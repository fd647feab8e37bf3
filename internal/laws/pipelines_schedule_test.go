package laws

import (
	"cmp"
	"fmt"
	"math/rand/v2"
	"slices"
	"time"

	"github.com/aliyun/aliyun-tablestore-go-sdk/tunnel"

	"github.com/watermill-ots/watermill-ots/emulator"
)

// troubleEvent is one fault of a seed's schedule.
type troubleEvent struct {
	at   time.Duration // since the start
	what string
	do   func(*pipelinesWorld)
}

const (
	// workerSlots is how many workers run at once, without those that still
	// drain.
	workerSlots = 2
	// leaseTime is the workers' heartbeat timeout: whole seconds, and longer
	// than heartbeats may be late on a busy machine.
	leaseTime = 2 * time.Second
	// spellGap is the shortest healthy time of the sink between two faults:
	// longer than the longest pause between two attempts, so that everything
	// that waits is retried.
	spellGap = 700 * time.Millisecond
)

// scheduleOf returns a seed's faults in order, for the given duration.
func scheduleOf(seed uint64, length time.Duration) []troubleEvent {
	random := rand.New(rand.NewPCG(seed, 2))
	events := slices.Concat(spells(random, length), workerTrouble(random, length), serviceTrouble(random, length))
	slices.SortStableFunc(events, func(a, b troubleEvent) int { return cmp.Compare(a.at, b.at) })
	return events
}

func between(random *rand.Rand, from, to time.Duration) time.Duration {
	return from + time.Duration(random.Int64N(int64(to-from)))
}

// spells are the periods in which doors of the sink are faulty: an outage of
// all of them, one of a door, and a slow period, repeatedly.
func spells(random *rand.Rand, length time.Duration) (events []troubleEvent) {
	for at := between(random, 100*time.Millisecond, 800*time.Millisecond); at < length-time.Second; {
		var some []troubleEvent
		some, at = threeSpells(random, at)
		events = append(events, some...)
	}
	return events
}

// threeSpells are an outage of all doors, one of a door and a slow period, in
// any order, one at a time, starting at at. It also returns when the next
// period may begin.
func threeSpells(random *rand.Rand, at time.Duration) (events []troubleEvent, next time.Duration) {
	outage := func() behaviour { return []behaviour{refused, refused, busy, hanging, losing}[random.IntN(5)] }
	all := []string{batchedPipe.name, behindDoor, plainPipe.name, forwardPipe.name, lettersDoor}
	kinds := []struct {
		doors     []string
		behaviour behaviour
		length    time.Duration
	}{
		{all, outage(), between(random, 2*time.Second, 3200*time.Millisecond)},
		{all[random.IntN(len(all)):][:1], outage(), between(random, 700*time.Millisecond, 1500*time.Millisecond)},
		{all, slow, between(random, 300*time.Millisecond, 900*time.Millisecond)},
	}
	random.Shuffle(len(kinds), func(i, j int) { kinds[i], kinds[j] = kinds[j], kinds[i] })
	for _, k := range kinds {
		events = append(events,
			troubleEvent{at, fmt.Sprintf("%v turn %s", k.doors, k.behaviour), func(w *pipelinesWorld) { w.turn(k.behaviour, k.doors...) }},
			troubleEvent{at + k.length, fmt.Sprintf("%v turn %s", k.doors, open), func(w *pipelinesWorld) { w.turn(open, k.doors...) }})
		at += k.length + between(random, spellGap, spellGap+300*time.Millisecond)
	}
	return events, at
}

// workerTrouble kills, ends and stops workers, and starts others.
func workerTrouble(random *rand.Rand, length time.Duration) (events []troubleEvent) {
	for at := between(random, 200*time.Millisecond, time.Second); at < length; at += between(random, 400*time.Millisecond, 1300*time.Millisecond) {
		slot := random.IntN(workerSlots)
		start := troubleEvent{at + between(random, 0, 400*time.Millisecond), fmt.Sprintf("start worker %d", slot), func(w *pipelinesWorld) { w.start(slot) }}
		switch n := random.IntN(10); {
		case n < 4:
			events = append(events, troubleEvent{at, fmt.Sprintf("kill worker %d", slot), func(w *pipelinesWorld) { w.kill(slot) }}, start)
		case n < 7:
			events = append(events, troubleEvent{at, fmt.Sprintf("end worker %d", slot), func(w *pipelinesWorld) { w.end(slot) }}, start)
		default:
			events = append(events,
				troubleEvent{at, fmt.Sprintf("stop worker %d", slot), func(w *pipelinesWorld) { w.stop(slot) }},
				troubleEvent{at + leaseTime + between(random, 0, 800*time.Millisecond), fmt.Sprintf("continue worker %d", slot), func(w *pipelinesWorld) { w.resume(slot) }})
		}
	}
	return events
}

// serviceTrouble is what fails in the service.
func serviceTrouble(random *rand.Rand, length time.Duration) (events []troubleEvent) {
	for at := between(random, 100*time.Millisecond, 500*time.Millisecond); at < length; at += between(random, 150*time.Millisecond, 700*time.Millisecond) {
		switch n := random.IntN(100); {
		case n < 12:
			pipe, client := pipes[random.IntN(len(pipes))], random.Int()
			events = append(events, troubleEvent{at, "expire a client of " + pipe.name, func(w *pipelinesWorld) { w.expire(pipe, client) }})
		case n < 20:
			ahead := between(random, -1500*time.Millisecond, 1500*time.Millisecond)
			events = append(events, troubleEvent{at, fmt.Sprintf("skew the clock by %v", ahead), func(w *pipelinesWorld) { w.skew(ahead) }})
		case n < 26:
			table := []string{ordersTable, stockTable}[random.IntN(2)]
			events = append(events, troubleEvent{at, "split " + table, func(w *pipelinesWorld) { w.tell("split: %v", w.emulator.Split(table)) }})
		case n < 32:
			pipe := pipes[random.IntN(len(pipes))]
			events = append(events, troubleEvent{at, "rebalance " + pipe.name, func(w *pipelinesWorld) { w.tell("rebalance: %v", w.emulator.Rebalance(pipe.table, pipe.name)) }})
		case n < 45:
			f := []emulator.Fault{
				{Code: "OTSServerBusy"}, {Code: "OTSTimeout", Status: 503}, {Break: emulator.BeforeRequest}, {Break: emulator.BeforeAnswer}, {Delay: 300 * time.Millisecond},
			}[random.IntN(5)]
			f.Operation, f.Times = "PutRow", 1+random.IntN(3) // of letters: changes are written in another way
			events = append(events, faultEvent(at, f))
		default:
			events = append(events, faultEvent(at, tunnelFault(random)))
		}
	}
	return events
}

func faultEvent(at time.Duration, f emulator.Fault) troubleEvent {
	return troubleEvent{at, fmt.Sprintf("fault %+v", f), func(w *pipelinesWorld) {
		if f.Operation == opHeartbeat || f.Code == "OTSResourceGone" {
			w.losses = append(w.losses, time.Now())
		}
		w.emulator.Inject(f)
	}}
}

const opHeartbeat = "tunnel/heartbeat"

// tunnelFault is a fault of the tunnel API. Corrupt responses are left out: the
// service's checksums do not cover sequences (docs/guarantees.md), and a record
// with another sequence is another record to every observer.
func tunnelFault(random *rand.Rand) emulator.Fault {
	f := []emulator.Fault{
		{Code: "OTSServerBusy"},
		{Code: "OTSTunnelServerUnavailable"},
		{Code: "OTSInternalServerError"},
		{Code: "OTSResourceGone"},
		{Delay: 300 * time.Millisecond},
		{Hang: true},
		{Break: emulator.BeforeRequest},
		{Break: emulator.BeforeAnswer},
		{Break: emulator.MidAnswer},
		{Duplicate: true},
	}[random.IntN(10)]
	ops := []string{"tunnel/readrecords", "tunnel/readrecords", "tunnel/checkpoint", "tunnel/checkpoint", opHeartbeat, "tunnel/getcheckpoint", "tunnel/connect", "tunnel/shutdown"}
	f.Operation, f.Times = ops[random.IntN(len(ops))], 1+random.IntN(3)
	return f
}

// turn changes the behaviour of doors.
func (w *pipelinesWorld) turn(to behaviour, doors ...string) {
	for _, name := range doors {
		if err := w.sink.doors[name].turn(to); err != nil {
			w.Fatal(err)
		}
	}
}

// expire makes the service drop a client of the pipeline without notifying it.
// For a while both its worker and the next one may have records of its
// channels.
func (w *pipelinesWorld) expire(p pipe, n int) {
	resp, err := w.tunnels.DescribeTunnel(&tunnel.DescribeTunnelRequest{TableName: p.table, TunnelName: p.name})
	if err != nil {
		w.tell("no client to expire: %v", err)
		return
	}
	var clients []string
	for _, c := range resp.Channels {
		if c.ClientId != "" {
			clients = append(clients, c.ClientId)
		}
	}
	if len(clients) == 0 {
		w.tell("no client to expire")
		return
	}
	slices.Sort(clients)
	gone := clients[n%len(clients)]
	for _, c := range resp.Channels {
		if c.ClientId == gone {
			w.unsure = append(w.unsure, unsure{channel: c.ChannelId, stop: stop{time.Now(), time.Now()}})
		}
	}
	w.tell("expired %s: %v", gone, w.emulator.ExpireClient(p.table, p.name, gone))
}

// skew sets the service's clock. A step forward may end leases before their
// holders expect it.
func (w *pipelinesWorld) skew(ahead time.Duration) {
	w.unsure = append(w.unsure, unsure{stop: stop{time.Now(), time.Now()}})
	w.emulator.SkewClock(ahead)
}

// start starts a worker in a slot, unless it has one.
func (w *pipelinesWorld) start(slot int) {
	if w.slots[slot] != nil {
		return
	}
	p := w.startWorker()
	w.slots[slot] = p
	w.tell("worker %d is process %d", slot, p.number)
}

// kill kills a worker.
func (w *pipelinesWorld) kill(slot int) {
	p := w.take(slot)
	if p == nil {
		return
	}
	p.killed = true
	w.sink.bury(p.number)
	_ = p.Process.Kill() // it may have ended by itself, which reap finds
	w.reap(p)
}

// end stops a worker with a signal; it drains while its successor runs.
func (w *pipelinesWorld) end(slot int) {
	p := w.take(slot)
	if p == nil {
		return
	}
	w.askToEnd(p)
	w.draining = append(w.draining, p)
}

// take empties a slot; a worker stopped by SIGSTOP is continued first.
func (w *pipelinesWorld) take(slot int) *pipelineProcess {
	p := w.slots[slot]
	if p != nil {
		w.resume(slot)
		w.slots[slot] = nil
	}
	return p
}

func (w *pipelinesWorld) stop(slot int) {
	p := w.slots[slot]
	if p == nil || !p.paused.IsZero() || p.hasEnded() {
		return
	}
	p.paused = time.Now()
	p.signal(w.T, stopSignal)
}

func (w *pipelinesWorld) resume(slot int) {
	p := w.slots[slot]
	if p == nil || p.paused.IsZero() {
		return
	}
	p.signal(w.T, continueSignal)
	w.unsure = append(w.unsure, unsure{process: p.number, isProcess: true, stop: stop{p.paused, time.Now()}})
	p.paused = time.Time{}
}
