package subscriber

import (
	"errors"
	"time"

	"github.com/watermill-ots/watermill-ots/internal/tunnelapi"
	"github.com/watermill-ots/watermill-ots/ots"
)

func (r *reader) readSucceeded() {
	first := !r.ever
	r.ever = true
	if first || r.pauses != nil {
		r.observer.callSucceeded(r.id, "readrecords")
	}
	r.pauses = nil
	if first {
		r.reopen.recovered(r.id, "readrecords")
	}
}

// readFailed reports whether to retry the read, after a pause.
func (r *reader) readFailed(err error) bool {
	if r.pauses == nil {
		r.pauses = r.cfg.ReadBackoff()
	}
	if r.ctx.Err() != nil { // the read was given up, or does not matter any more
		return false
	}
	pause := pauseAfter(r.pauses, err)
	r.metrics.callFailed("readrecords", err)
	switch tunnelapi.Classify(err) {
	case notOurs:
		r.refused("readrecords", err)
		return false
	case fatal:
		// The tunnel is gone or expired, or the token is refused. The next heartbeat tells
		// the first two; the channel is given back either way.
		if r.observer.callFailed(r.id, "readrecords", err) {
			r.logger.Error("Channel cannot be read any more", err, callFields("readrecords", err))
		} else {
			r.logger.Debug("Channel cannot be read any more", callDetail("readrecords", err))
		}
		r.client.heartbeat()
		r.failed <- err
		return false
	case gap:
		r.foundGap(err)
		return false
	}
	if r.reading.Err() != nil || r.observer.isStopping() {
		return false
	}
	if r.observer.callFailed(r.id, "readrecords", err) {
		r.logger.Error("Read failed; retrying", err, callFields("readrecords", err))
	} else {
		r.logger.Debug("Read failed; retrying", callDetail("readrecords", err))
	}
	return r.pause(pause)
}

// foundGap ends the subscription of a channel whose log was trimmed, or has it continue with another
// tunnel. What is in flight is still handled and committed.
func (r *reader) foundGap(err error) {
	var answer *ots.ServiceError
	if errors.As(err, &answer) {
		err = answer
	}
	g := &GapError{Table: r.table, Tunnel: r.tunnel, Channel: r.id, Err: err, recreates: r.cfg.OnGap == OnGapRecreate}
	if position, _ := r.metrics.position(r.tracker); position != 0 {
		g.Position = time.Unix(0, position)
	}
	r.observer.alarm(r.logger, &Alarm{Kind: Gap, Topic: r.topic, Channel: r.id})
	r.fail(g)
}
