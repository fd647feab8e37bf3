package subscriber

import (
	"cmp"
	"context"
	"slices"
	"sync"
	"time"

	"github.com/ThreeDotsLabs/watermill"
)

// alarmWatch checks one channel every now and then and raises alarms. It
// belongs to the goroutine of watch.
//
// Invariants:
//   - An alarm whose cause lasts is raised again each time its age has grown
//     by StuckAfter, not at each check.
//   - A check raises one alarm of a kind for its channel, however many messages are stuck.
type alarmWatch struct {
	run    *channelRun
	logger watermill.LoggerAdapter // with the channel's fields

	output time.Time // when the last alarm about the output was raised
}

const (
	// checksPerStuck is how often it checks within StuckAfter.
	checksPerStuck = 4
	// alarmKeys is how many keys an alarm names.
	alarmKeys = 5
)

// watch is the goroutine that checks all channels of a subscription. It ends with
// ctx. Dumping stacks, and logging and telling of alarms, may take long: neither commits nor
// drains wait for it.
func (s *subscription) watch(ctx context.Context) {
	ticks := time.NewTicker(max(s.cfg.StuckAfter/checksPerStuck, time.Millisecond))
	defer ticks.Stop()
	watches := make(map[*channelRun]*alarmWatch)
	for {
		select {
		case <-ticks.C:
		case <-ctx.Done():
			return
		}
		before := watches
		watches = make(map[*channelRun]*alarmWatch, len(before))
		stacks := sync.OnceValue(handlerStacks) // one dump for all alarms of a check
		for _, r := range s.channels.all() {
			one := before[r]
			if one == nil {
				one = &alarmWatch{run: r, logger: s.logger.With(watermill.LogFields{"channel_id": r.id, "client_id": r.clientID})}
			}
			watches[r] = one
			one.check(time.Now(), stacks)
		}
	}
}

func (w *alarmWatch) check(now time.Time, stacks func() string) {
	w.handlers(now, stacks)
	w.waiting(now)
}

// stuck is a message that is with its handler for too long.
type stuck struct {
	d   *delivery
	age time.Duration
}

// handlers finds messages that are with their handlers for too long.
func (w *alarmWatch) handlers(now time.Time, stacks func() string) {
	limit := w.run.cfg.StuckAfter
	offered := w.run.taker.scope.offer.current.Load() // is with no handler yet
	var all []stuck
	due := false
	for _, v := range w.run.tracker.Live() {
		d := v.(*delivery)
		if d == offered {
			continue
		}
		if age, tell := d.alarmed(now, limit); age >= limit {
			all = append(all, stuck{d, age})
			due = due || tell
		}
	}
	if !due {
		return
	}
	slices.SortStableFunc(all, func(a, b stuck) int { return cmp.Compare(b.age, a.age) })
	a := &Alarm{Kind: HandlerStuck, Count: len(all), Stacks: stacks()}
	for _, m := range all[:min(len(all), alarmKeys)] {
		a.Keys = append(a.Keys, m.d.recordOf().KeyText())
	}
	a.Key, a.Attempt, a.Age = a.Keys[0], all[0].d.attempt.Number(), all[0].age
	w.raise(a)
}

// waiting finds that the next message is not taken.
func (w *alarmWatch) waiting(now time.Time) {
	offered := w.run.taker.scope.offer.current.Load()
	limit := w.run.cfg.StuckAfter
	if offered == nil || now.Sub(offered.since()) < limit || now.Sub(w.output) < limit {
		return
	}
	w.output = now
	w.raise(&Alarm{Kind: OutputStuck, Key: offered.recordOf().KeyText(), Attempt: offered.attempt.Number(), Age: now.Sub(offered.since())})
}

// raise logs an alarm of the watched channel and has OnAlarm called.
func (w *alarmWatch) raise(a *Alarm) {
	a.Topic, a.Channel = w.run.topic, w.run.id
	w.run.observer.alarm(w.logger, a)
}
