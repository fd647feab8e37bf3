package subscriber

import (
	"context"
	"time"

	"github.com/ThreeDotsLabs/watermill"
	"github.com/aliyun/aliyun-tablestore-go-sdk/tunnel"
	"github.com/cenkalti/backoff/v4"
)

// openCheckpoint reads the channel's stored token and sequence number, for as
// long as it takes. It fails when the channel is lost or drains, at once then, or when
// the service does not know it.
func (r *channelRun) openCheckpoint() (token string, err error) {
	pauses := r.sub.cfg.ReadBackoff()
	for {
		token, r.sequence, err = r.getCheckpoint(r.readCtx)
		if err == nil {
			r.stored, r.commitFailing = token, true
			r.sub.callSucceeded(r.conn.id, "getcheckpoint")
			r.status.begins(isBase(token))
			return token, nil
		}
		if r.readCtx.Err() != nil {
			return "", err
		}
		switch classify(err) {
		case lost:
			r.noteError("getcheckpoint", err)
			r.lost("getcheckpoint", err)
			return "", err
		case fatal:
			r.report("getcheckpoint", err)
			return "", err
		}
		r.report("getcheckpoint", err)
		select {
		case <-r.readCtx.Done():
			return "", err
		case <-time.After(nextPause(pauses)):
		}
	}
}

func (r *channelRun) getCheckpoint(ctx context.Context) (token string, sequence int64, err error) {
	defer r.status.calls.begins(time.Now())()
	err = r.lifeCall(ctx, "getcheckpoint", func(api *tunnel.TunnelApi) (err error) {
		token, sequence, err = api.GetCheckpoint(r.sub.tunnelID, r.conn.clientID, r.conn.id)
		return err
	})
	return token, sequence, err
}

// lifeCall makes a call of the channel's life cycle. main waits for it, and for its
// answer no longer than such answers usually take.
func (r *channelRun) lifeCall(ctx context.Context, op string, f func(api *tunnel.TunnelApi) error) error {
	timeout := r.patience.timeout(r.sub.endpoint.timeout)
	if r.commitUntil.IsZero() {
		defer func(asked time.Time) { r.patience.note(time.Since(asked), timeout) }(time.Now())
	} else {
		timeout = max(0, min(timeout, time.Until(r.commitUntil)))
	}
	return r.sub.endpoint.callWithin(ctx, op, timeout, f)
}

// commit stores the newest token whose records are all acked (law L1), if it
// is not stored yet.
func (r *channelRun) commit() error {
	token, position, ok := r.tracker.Committable()
	if !ok {
		return nil
	}
	return r.store(token, position)
}

// store makes one checkpoint call. The service takes it only with the stored
// sequence number + 1 [docs/protocol.md, Checkpoints], so a checkpoint that was stored although its answer was lost
// makes the next one fail with a mismatch: reading it back tells which.
func (r *channelRun) store(token string, position uint64) error {
	if token == r.stored { // an idle channel's empty pages may all have one token
		r.tracker.Committed(position)
		return nil
	}
	if r.leaseOver(time.Now()) { // the process was suspended: it is for others to say what is committed
		r.session.expire()
	}
	if r.ctx.Err() != nil {
		return context.Cause(r.ctx)
	}
	err := r.lifeCall(r.ctx, "checkpoint", func(api *tunnel.TunnelApi) error {
		return api.Checkpoint(r.sub.tunnelID, r.conn.clientID, r.conn.id, token, r.sequence+1)
	})
	switch classify(err) {
	case mismatch:
		stored, sequence, readErr := r.getCheckpoint(r.ctx)
		if readErr != nil {
			return readErr
		}
		r.stored, r.sequence = stored, sequence
		if stored != token {
			return err
		}
	case lost:
		r.commitError = err
		r.noteError("checkpoint", err)
		r.lost("checkpoint", err)
		return err
	default:
		if err != nil {
			return err
		}
		r.stored = token
		r.sequence++
	}
	r.tracker.Committed(position)
	if r.commitFailing {
		r.commitFailing = false
		r.sub.callSucceeded(r.conn.id, "checkpoint", "getcheckpoint")
	}
	r.session.recovered(r.conn.id, "checkpoint")
	r.status.calls.commitSucceeded()
	r.counts.inc(countCheckpoints)
	r.logger.Trace("Checkpoint stored", watermill.LogFields{"position": position, "sequence_number": r.sequence})
	return nil
}

func (r *channelRun) commitFailed(err error) {
	r.commitError = err
	if r.ctx.Err() == nil {
		r.report("checkpoint", err)
	}
}

// commitPause returns the pause after a failed commit.
func commitPause(pauses backoff.BackOff, err error) time.Duration {
	pause := nextPause(pauses)
	if classify(err) == throttled {
		return max(pause, throttlePause)
	}
	return pause
}

// lost is called when the service says that the channel or the client is not
// ours: everything in flight is fenced, and a heartbeat finds out which. If it says
// that the channel is ours all the same, it is opened again after a pause: a refusal that
// lasts would make it go round at the speed of the ticks.
func (r *channelRun) lost(op string, err error) {
	r.lostOnce.Do(func() { r.session.reopenPause(r.conn.id, op) }) // the reader and main may both find it out
	r.logger.Info("Channel lost", watermill.LogFields{"err": err.Error()})
	r.fence(ErrChannelLost)
	r.session.transport.poke()
}

// report counts and logs a failed call of the channel's life cycle, which is tried again.
func (r *channelRun) report(op string, err error) {
	r.noteError(op, err)
	r.commitFailing = true
	told := r.channelError(op, err)
	begins := r.sub.callFailed(r.conn.id, op, told)
	switch over := closed(r.draining) || r.sub.stopping.Err() != nil; {
	case begins && over: // there may be no time for another try
		r.logger.Error("Channel call failed while the channel drains", told, callFields(op, err))
	case begins:
		r.logger.Error("Channel call failed; it is tried again", told, callFields(op, err))
	case over:
		r.logger.Debug("Channel call failed while the channel drains", callDetail(op, told))
	default:
		r.logger.Debug("Channel call failed; it is tried again", callDetail(op, told))
	}
}

func (r *channelRun) channelError(op string, err error) *ChannelError {
	return &ChannelError{Table: r.sub.table, Tunnel: r.sub.tunnel, Channel: r.conn.id, Op: op, Err: err}
}
