package subscriber

import (
	"time"

	"github.com/ThreeDotsLabs/watermill"
	"github.com/aliyun/aliyun-tablestore-go-sdk/tunnel"
)

// openCheckpoint reads the channel's stored token and sequence number, for as
// long as it takes. It fails when the channel is lost or drains, or when
// the service does not know it.
func (r *channelRun) openCheckpoint() (token string, err error) {
	pauses := r.sub.cfg.ReadBackoff()
	for {
		token, r.sequence, err = r.getCheckpoint()
		if err == nil {
			r.stored = token
			r.status.begins(isBase(token))
			return token, nil
		}
		switch classify(err) {
		case cancelled:
			return "", err
		case lost:
			r.noteError("getcheckpoint", err)
			r.lost(err)
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

func (r *channelRun) getCheckpoint() (token string, sequence int64, err error) {
	err = r.sub.endpoint.call(r.ctx, "getcheckpoint", func(api *tunnel.TunnelApi) (err error) {
		token, sequence, err = api.GetCheckpoint(r.sub.tunnelID, r.conn.clientID, r.conn.id)
		return err
	})
	return token, sequence, err
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
// sequence number + 1 [facts 4.4], so a checkpoint that was stored although its answer was lost
// makes the next one fail with a mismatch: reading it back tells which.
func (r *channelRun) store(token string, position uint64) error {
	if token == r.stored { // an idle channel's empty pages may all have one token
		r.tracker.Committed(position)
		return nil
	}
	err := r.sub.endpoint.call(r.ctx, "checkpoint", func(api *tunnel.TunnelApi) error {
		return api.Checkpoint(r.sub.tunnelID, r.conn.clientID, r.conn.id, token, r.sequence+1)
	})
	switch classify(err) {
	case mismatch:
		stored, sequence, readErr := r.getCheckpoint()
		if readErr != nil {
			return readErr
		}
		r.stored, r.sequence = stored, sequence
		if stored != token {
			return err
		}
	case lost:
		r.noteError("checkpoint", err)
		r.lost(err)
		return err
	default:
		if err != nil {
			return err
		}
		r.stored = token
		r.sequence++
	}
	r.tracker.Committed(position)
	r.counts.inc(countCheckpoints)
	r.logger.Trace("Checkpoint stored", watermill.LogFields{"position": position, "sequence_number": r.sequence})
	return nil
}

func (r *channelRun) commitFailed(err error) {
	if r.ctx.Err() == nil {
		r.report("checkpoint", err)
	}
}

// lost is called when the service says that the channel or the client is not
// ours: everything in flight is fenced, and a heartbeat finds out which.
func (r *channelRun) lost(err error) {
	r.logger.Info("Channel lost", watermill.LogFields{"err": err.Error()})
	r.fence(ErrChannelLost)
	r.session.transport.poke()
}

// report logs a failure of the channel that is tried again.
func (r *channelRun) report(op string, err error) {
	r.noteError(op, err)
	r.logger.Error("Channel call failed; it is tried again", r.channelError(op, err), nil)
}

func (r *channelRun) channelError(op string, err error) *ChannelError {
	return &ChannelError{Table: r.sub.table, Tunnel: r.sub.tunnel, Channel: r.conn.id, Op: op, Err: err}
}
