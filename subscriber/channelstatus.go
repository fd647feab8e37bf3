package subscriber

import "time"

func (r *channelRun) channelStatus(now time.Time) ChannelStatus {
	m := r.metrics
	position, held := m.position(r.tracker)
	c := ChannelStatus{
		ID: r.id, ClientID: r.clientID, State: r.state(), Base: m.base.Load(), Opened: m.opened,
		InFlight: held.InFlight, InFlightBytes: held.Bytes, WithHandlers: held.Live, Retrying: held.Retrying,
		WindowFull: m.blocked.Load(), PollInterval: time.Duration(m.poll.Load()),
		Acked: m.counts[countAcked].Load(), Read: m.counts[countRecords].Load(),
		LastError: m.lastError.Load(),
	}
	if at := m.committed.Load(); at != 0 {
		c.CheckpointAge = max(0, now.Sub(time.Unix(0, at)))
	}
	if p, ok := held.Oldest.Page.(*page); ok {
		rec := p.record(held.Oldest.Index)
		c.Oldest = &OldestRecord{
			Key: rec.KeyText(), Attempts: held.Oldest.Attempts, Failures: held.Oldest.Failures,
			Age: max(0, now.Sub(p.came)),
		}
	}
	c.FailingSince, c.CommitFailingSince = m.calls.failing(now)
	switch {
	case c.Base:
	case position == 0:
		c.Lag = now.Sub(m.since())
	default:
		c.Position = time.Unix(0, position)
		c.Lag = max(0, now.Sub(c.Position))
	}
	return c
}

// state tells where the run stands.
func (r *channelRun) state() ChannelState {
	select {
	case <-r.ctx.Done():
		return ChannelEnding
	default:
	}
	if r.metrics.reopening.Load() {
		return ChannelFailing
	}
	select {
	case <-r.draining:
		return ChannelDraining
	default:
	}
	if !r.metrics.begun.Load() {
		return ChannelOpening
	}
	return ChannelOpen
}
