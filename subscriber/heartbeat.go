package subscriber

import (
	"context"
	"fmt"
	"net/http"
	"time"

	"github.com/ThreeDotsLabs/watermill"

	"github.com/watermill-ots/watermill-ots/internal/tunnelapi"
)

// heartbeat answers a tick: with the service's last answer, or by a real heartbeat.
func (t *workerTransport) heartbeat(req *http.Request) (*http.Response, error) {
	report, err := reportOf(req)
	if err != nil {
		return nil, &tunnelapi.CallError{Err: err}
	}
	t.mu.Lock()
	b := t.beat
	t.mu.Unlock()

	now := time.Now()
	due := t.due.Swap(false)
	switch {
	case t.ctx.Err() != nil: // or the worker would continue to tick until the deadline
		return resourceGone(req, context.Cause(t.ctx).Error()), nil
	case t.lease.over(now):
		return resourceGone(req, t.lapsed().Error()), nil
	case b.err != nil && now.Before(b.retryAt):
		return nil, &tunnelapi.CallError{Err: b.err}
	case b.err == nil && b.answer != nil && report == b.report && now.Before(b.next) && !due:
		return answer(req, http.StatusOK, b.answer), nil
	}
	before := b
	resp, err := t.pass(req, min(t.longest, t.lease.left(now)))
	b.note(now, report, resp, err, t.interval, t.longest)
	t.count(err == nil && tunnelapi.Success(resp), err)
	if t.ctx.Err() == nil {
		t.sayHeartbeat(before, b, err)
	}
	t.mu.Lock()
	t.beat = b
	t.mu.Unlock()
	if b.ok.Equal(now) {
		t.lease.renew(now, t.timeout)
	}
	t.renewCredentials()
	return resp, err
}

// sayHeartbeat logs when heartbeats begin to fail and when they succeed again. In
// between, each failure is in the log at Debug.
func (t *workerTransport) sayHeartbeat(before, after beat, err error) {
	switch {
	case err != nil:
		fields := watermill.LogFields{"err": tunnelapi.FromSDK("heartbeat", err).Error(), "failures": after.failures, "lost_at": before.ok.Add(t.timeout)}
		if before.failures == 0 {
			t.logger.Info("Heartbeat failed", fields)
		} else {
			t.logger.Debug("Heartbeat failed again", fields)
		}
	case before.failures > 0 && after.failures == 0:
		t.logger.Info("Heartbeats succeed again", watermill.LogFields{"failures": before.failures, "lasted": after.ok.Sub(before.failing).Round(time.Millisecond).String()})
	}
}

// lapsed is why the lease is over.
func (t *workerTransport) lapsed() error {
	return fmt.Errorf("no heartbeat was answered for %v", t.timeout)
}

// count counts a heartbeat. One that the service refuses ends the session, whose
// end tells of it.
func (t *workerTransport) count(ok bool, err error) {
	if ok {
		t.counts.inc(countHeartbeats)
		return
	}
	t.counts.inc(countHeartbeatsFailed)
	if err != nil && t.noteError != nil && t.ctx.Err() == nil {
		t.noteError("heartbeat", tunnelapi.FromSDK("heartbeat", err))
	}
}

// renewCredentials is for the next heartbeat, as the SDK signs before it calls
// the transport. A provider that takes its time holds up no heartbeat.
func (t *workerTransport) renewCredentials() {
	if t.creds.Fresh() || !t.renewing.CompareAndSwap(false, true) {
		return
	}
	t.background.Go(func() { // ends with the provider's answer or with t.ctx
		defer t.renewing.Store(false)
		if _, err := t.creds.Get(t.ctx); err != nil && t.ctx.Err() == nil {
			t.logger.Error("Heartbeats cannot be signed", err, nil)
		}
	})
}
