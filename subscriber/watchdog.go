package subscriber

import (
	"cmp"
	"context"
	"fmt"
	"slices"
	"sync"
	"time"

	"github.com/ThreeDotsLabs/watermill"
	"github.com/aliyun/aliyun-tablestore-go-sdk/tablestore"

	"github.com/watermill-ots/watermill-ots/internal/service"
)

// watchdog looks at one channel every now and then and raises alarms. It
// belongs to the goroutine of watch.
//
// Invariants:
//   - An alarm that goes on is raised again each time its age has grown
//     by StuckAfter, not at each look.
//   - A look raises one alarm of a kind for its channel, however many messages are stuck.
type watchdog struct {
	run    *channelRun
	logger watermill.LoggerAdapter // with the channel's fields

	output time.Time // when the last alarm about the output was raised
}

const (
	// looksPerStuck is how often the watchdog looks within StuckAfter.
	looksPerStuck = 4
	// alarmKeys is how many keys an alarm names.
	alarmKeys = 5
)

// watch is the goroutine that looks at all channels of a subscription. It ends with
// ctx. Dumping stacks, and logging and telling of alarms, may take long: neither commits nor
// drains wait for it.
func (s *subscription) watch(ctx context.Context) {
	looks := time.NewTicker(max(s.cfg.StuckAfter/looksPerStuck, time.Millisecond))
	defer looks.Stop()
	dogs := make(map[*channelRun]*watchdog)
	for {
		select {
		case <-looks.C:
		case <-ctx.Done():
			return
		}
		before := dogs
		dogs = make(map[*channelRun]*watchdog, len(before))
		stacks := sync.OnceValue(handlerStacks) // one dump for all alarms of a look
		for _, r := range s.openRuns() {
			dog := before[r]
			if dog == nil {
				dog = &watchdog{run: r, logger: s.logger.With(watermill.LogFields{"channel_id": r.conn.id, "client_id": r.conn.clientID})}
			}
			dogs[r] = dog
			dog.look(time.Now(), stacks)
		}
	}
}

func (w *watchdog) look(now time.Time, stacks func() string) {
	w.handlers(now, stacks)
	w.waiting(now)
}

// stuck is a message that is with its handler for too long.
type stuck struct {
	d   *delivery
	age time.Duration
}

// handlers finds messages that are with their handlers for too long.
func (w *watchdog) handlers(now time.Time, stacks func() string) {
	limit := w.run.sub.cfg.StuckAfter
	offered := w.run.offered.Load() // is with no handler yet
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

// alarmed returns how long the message is with its handler, zero when it waits for
// something else. It reports whether it is time for an alarm at this age, and notes that there is one.
func (d *delivery) alarmed(now time.Time, limit time.Duration) (age time.Duration, due bool) {
	age = now.Sub(d.since())
	if age < limit { // most of them
		return age, false
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	t := d.troubled()
	if t.parked {
		return 0, false
	}
	age = min(age, now.Sub(d.run.sub.started)-t.resumed)
	if age < limit*time.Duration(t.alarms+1) {
		return age, false
	}
	t.alarms = int(age / limit)
	return age, true
}

// waiting finds that nobody takes the next message.
func (w *watchdog) waiting(now time.Time) {
	offered := w.run.offered.Load()
	limit := w.run.sub.cfg.StuckAfter
	if offered == nil || now.Sub(offered.since()) < limit || now.Sub(w.output) < limit {
		return
	}
	w.output = now
	w.raise(&Alarm{Kind: OutputStuck, Key: offered.recordOf().KeyText(), Attempt: offered.attempt.Number(), Age: now.Sub(offered.since())})
}

// raise logs an alarm of the watched channel and tells OnAlarm.
func (w *watchdog) raise(a *Alarm) {
	a.Topic, a.Channel = w.run.sub.topic, w.run.conn.id
	w.run.sub.raise(w.logger, a)
}

// raise logs an alarm and has OnAlarm called.
func (s *subscription) raise(logger watermill.LoggerAdapter, a *Alarm) {
	if a.Count == 0 {
		a.Count = 1
	}
	if a.Keys == nil && a.Key != "" {
		a.Keys = []string{a.Key}
	}
	fields := watermill.LogFields{"key": a.Key, "attempt": a.Attempt, "age": a.Age.String(), "count": a.Count, "keys": a.Keys}
	if a.Stacks != "" {
		fields["stacks"] = a.Stacks
	}
	logger.Error("Alarm: "+a.Kind.String(), a, fields)
	f := s.cfg.OnAlarm
	if f == nil {
		return
	}
	told := *a
	if _, ok := s.alarms.enqueue(logger, "Config.OnAlarm", func() { f(told) }); !ok {
		logger.Error("A callback of the configuration does not return: it is not told of this", a, watermill.LogFields{"callback": "Config.OnAlarm"})
	}
}

// streamRetention returns the retention of a table's stream, zero if it has none.
func (e *endpoint) streamRetention(ctx context.Context, table string) (retention time.Duration, err error) {
	client := service.TableClient{Endpoint: e.url, Instance: e.instance, Region: e.region, Transport: e.base, Credentials: e.creds, Timeout: e.timeout}
	err = client.Call(ctx, "DescribeTable", func(sdk *tablestore.TableStoreClient) error {
		resp, err := sdk.DescribeTable(&tablestore.DescribeTableRequest{TableName: table})
		if err != nil {
			return err
		}
		if stream := resp.StreamDetails; stream != nil && stream.EnableStream {
			retention = time.Duration(stream.ExpirationTime) * time.Hour
		}
		return nil
	})
	if err != nil {
		return 0, fmt.Errorf("describing table %s: %w", table, err)
	}
	return retention, nil
}
