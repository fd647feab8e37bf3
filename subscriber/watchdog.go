package subscriber

import (
	"bytes"
	"context"
	"fmt"
	"net/http"
	"runtime"
	"time"

	"github.com/ThreeDotsLabs/watermill"
	"github.com/aliyun/aliyun-tablestore-go-sdk/tablestore"
)

// watchdog looks at one channel every now and then and raises alarms. It
// belongs to channelRun.main.
//
// Invariant: an alarm that goes on is raised again each time its age has grown
// by StuckAfter, not at each look.
type watchdog struct {
	run *channelRun

	output    time.Time // when the last alarm about the output was raised
	retention time.Time
}

// looksPerStuck is how often the watchdog looks within StuckAfter.
const looksPerStuck = 4

func (w *watchdog) look(now time.Time) {
	w.handlers(now)
	w.waiting(now)
	w.age(now)
}

// handlers finds messages that are with their handlers for too long.
func (w *watchdog) handlers(now time.Time) {
	limit := w.run.sub.cfg.StuckAfter
	stacks := ""
	offered := w.run.offered.Load() // is with no handler yet
	for _, v := range w.run.tracker.Live() {
		d := v.(*delivery)
		age := now.Sub(d.since())
		if d == offered || !d.alarmed(age, limit) {
			continue
		}
		if stacks == "" {
			stacks = handlerStacks()
		}
		w.raise(&Alarm{Kind: HandlerStuck, Key: d.recordOf().KeyText(), Attempt: d.attempt.Number(), Age: age, Stacks: stacks})
	}
}

// alarmed reports whether it is time for an alarm at this age, and notes that there is one.
func (d *delivery) alarmed(age, limit time.Duration) bool {
	if age < limit { // most of them
		return false
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	t := d.troubled()
	if age < limit*time.Duration(t.alarms+1) {
		return false
	}
	t.alarms = int(age / limit)
	return true
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

// retentionMargin is the part of the retention in which the alarm is raised: its last tenth.
const retentionMargin = 10

// age finds that the oldest record in flight will soon be older than the log.
func (w *watchdog) age(now time.Time) {
	retention := time.Duration(w.run.sub.retention.Load())
	if retention <= 0 || now.Sub(w.retention) < w.run.sub.cfg.StuckAfter {
		return
	}
	oldest := w.run.tracker.Stats().Oldest
	p, ok := oldest.Page.(*page)
	if !ok {
		return
	}
	rec := p.record(oldest.Index)
	if rec.Sequence.IsZero() { // base data is not in the log
		return
	}
	age := now.Sub(time.UnixMicro(rec.Sequence.Timestamp))
	if age < retention-retention/retentionMargin {
		return
	}
	w.retention = now
	w.raise(&Alarm{Kind: RetentionNear, Key: rec.KeyText(), Attempt: oldest.Attempts, Age: age, Retention: retention})
}

func (w *watchdog) raise(a *Alarm) {
	a.Topic, a.Channel = w.run.sub.topic, w.run.conn.id
	fields := watermill.LogFields{"key": a.Key, "attempt": a.Attempt, "age": a.Age.String()}
	if a.Stacks != "" {
		fields["stacks"] = a.Stacks
	}
	w.run.logger.Error("Alarm: "+a.Kind.String(), a, fields)
	if f := w.run.sub.cfg.OnAlarm; f != nil {
		f(*a)
	}
}

// handlerStacks returns the stacks of goroutines that run a Watermill
// handler. A message does not know its goroutine, so they are all there.
func handlerStacks() string {
	const most = 64 << 10
	all := make([]byte, 4<<20)
	all = all[:runtime.Stack(all, true)]
	var handlers []byte
	for _, stack := range bytes.Split(all, []byte("\n\n")) {
		if bytes.Contains(stack, []byte("watermill/message.(*handler).handleMessage(")) {
			handlers = append(append(handlers, stack...), "\n\n"...)
		}
		if len(handlers) > most {
			return string(handlers[:most])
		}
	}
	return string(handlers)
}

// readRetention asks the service how long the table's stream keeps records. It
// is only for an alarm: when the key may not describe the table, there is none.
func (s *subscription) readRetention(ctx context.Context) {
	retention, err := s.endpoint.streamRetention(ctx, s.table)
	if err != nil {
		if ctx.Err() == nil {
			s.logger.Info("Cannot find out how long the stream keeps records; there will be no alarm when they get too old", watermill.LogFields{"err": err.Error()})
		}
		return
	}
	s.retention.Store(int64(retention))
}

// streamRetention returns the retention of a table's stream, zero if it has none.
func (e *endpoint) streamRetention(ctx context.Context, table string) (retention time.Duration, err error) {
	defer func() { // the SDK dereferences fields of the answer that may be missing
		if v := recover(); v != nil {
			err = fmt.Errorf("describing table %s: the answer is incomplete: %w", table, asError(v))
		}
	}()
	cred, err := e.creds.get(ctx)
	if err != nil {
		return 0, err
	}
	conf := tablestore.NewDefaultTableStoreConfig()
	conf.Transport = tableTransport{base: e.base, ctx: ctx, timeout: e.timeout}
	client := tablestore.NewClientWithConfig(e.url, e.instance, cred.AccessKeyID, cred.AccessKeySecret, cred.SecurityToken, conf)
	resp, err := client.DescribeTable(&tablestore.DescribeTableRequest{TableName: table})
	if err != nil {
		return 0, fmt.Errorf("describing table %s: %w", table, err)
	}
	if resp.StreamDetails == nil || !resp.StreamDetails.EnableStream {
		return 0, nil
	}
	return time.Duration(resp.StreamDetails.ExpirationTime) * time.Hour, nil
}

// tableTransport ties a call of the SDK's table client to a context. The
// client's own retries end with it: their pauses are at most 320 ms.
type tableTransport struct {
	base    http.RoundTripper
	ctx     context.Context
	timeout time.Duration
}

// RoundTrip implements http.RoundTripper.
func (t tableTransport) RoundTrip(req *http.Request) (*http.Response, error) {
	resp, body, err := exchange(t.ctx, t.base, req, t.timeout)
	if err != nil {
		return nil, err
	}
	return answer(req, resp.StatusCode, body), nil
}
