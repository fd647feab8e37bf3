package subscriber

import (
	"context"
	"errors"
	"sync"
	"time"

	"github.com/ThreeDotsLabs/watermill"
)

// observer is what the parts of a subscription tell what they see: calls that fail and
// succeed, records that fail, phases and alarms. It decides what is logged, counts
// failed calls for Status, and calls Config.OnPhase and Config.OnAlarm. It knows none of those parts.
// Each of its fields guards itself.
type observer struct {
	logger   watermill.LoggerAdapter
	stopping context.Context // of the subscription
	onPhase  func(Phase)
	onAlarm  func(Alarm)

	calls     failedCalls
	outages   outages
	records   failureLogs
	unsettled unsettled

	phases, alarms callbacks
	streamStarted  sync.Once
}

func newObserver(cfg *Config, logger watermill.LoggerAdapter, stopping context.Context) *observer {
	return &observer{
		logger: logger, stopping: stopping, onPhase: cfg.OnPhase, onAlarm: cfg.OnAlarm,
		records: failureLogs{logger: logger},
	}
}

// isStopping reports whether the subscription stops.
func (o *observer) isStopping() bool { return o.stopping.Err() != nil }

// callFailed notes a failed call of a caller: a channel or a tunnel client. It logs when an
// outage continues, and reports whether one begins: then the caller logs the failure at
// Error, and otherwise at Debug.
func (o *observer) callFailed(caller, op string, err error) (begins bool) {
	begins, line := o.outages.failed(failedCallOf(op, err), caller, time.Now())
	switch {
	case line != nil && o.isStopping():
		o.logger.Error("Calls still fail while the subscription ends", err, line.fields())
	case line != nil:
		o.logger.Error("Calls still fail; retrying", err, line.fields())
	}
	return begins
}

// callSucceeded notes that the caller's calls succeed, and logs what that ends.
func (o *observer) callSucceeded(caller string, ops ...string) {
	for _, line := range o.outages.succeeded(caller, time.Now(), ops...) {
		o.logger.Info("Calls succeed again", line.fields())
	}
}

// phase has OnPhase called in its turn. told is closed when it has returned. The
// logger is the channel's.
func (o *observer) phase(logger watermill.LoggerAdapter, p Phase) (told <-chan struct{}) {
	f := o.onPhase
	if f == nil {
		return closedChannel
	}
	told, ok := o.phases.enqueue(o.logger, "Config.OnPhase", func() { f(p) })
	if !ok {
		logger.Error("A callback of the configuration does not return; it is not called for this", errors.New("too many calls wait"), watermill.LogFields{"callback": "Config.OnPhase", "phase": p.Kind.String()})
		return closedChannel
	}
	return told
}

var closedChannel = func() <-chan struct{} { c := make(chan struct{}); close(c); return c }()

// alarm logs an alarm and has OnAlarm called.
func (o *observer) alarm(logger watermill.LoggerAdapter, a *Alarm) {
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
	f := o.onAlarm
	if f == nil {
		return
	}
	told := *a
	if _, ok := o.alarms.enqueue(logger, "Config.OnAlarm", func() { f(told) }); !ok {
		logger.Error("A callback of the configuration does not return; it is not called for this", a, watermill.LogFields{"callback": "Config.OnAlarm"})
	}
}

// heldBack notes messages that were unsettled when their channel was given up, if that was
// the subscription's end: at any other time they are redelivered, and that is all.
func (o *observer) heldBack(n int) {
	if n > 0 && o.isStopping() {
		o.unsettled.addHeld(n)
	}
}

// notCommitted notes acked messages whose checkpoint is not stored at the end of their
// channel, if that was the subscription's end.
func (o *observer) notCommitted(n int, cause error) {
	if n > 0 && o.isStopping() {
		o.unsettled.addUncommitted(n, cause)
	}
}
