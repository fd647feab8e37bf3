package subscriber

import (
	"fmt"
	"time"

	"github.com/aliyun/aliyun-tablestore-go-sdk/tunnel"
	"github.com/cenkalti/backoff/v4"

	"github.com/watermill-ots/watermill-ots/internal/ledger"
	"github.com/watermill-ots/watermill-ots/ots"
)

// idlePosition is how often the position of a channel without records is stored. More
// often would be of no use to anybody: a restart reads from the last record on and
// finds nothing again. But the position must not get older than what the table's
// stream keeps, an hour at least, or the service takes the tunnel for expired.
const idlePosition = 10 * time.Minute

// throttlePause is the least pause when the service says that it is asked too often.
const throttlePause = time.Second

// read reads pages from token on and gives them to the tracker, as long as the
// window has room. It ends at the finish token, with readCtx, or
// when the channel is lost or of no use.
func (r *channelRun) read(token string) {
	decoder := &pageDecoder{origin: ots.Record{
		Instance: r.sub.cfg.Instance, Table: r.sub.table, Tunnel: r.sub.tunnel, Channel: r.conn.id, Attempt: 1,
	}}
	first := true
	// placed is when the tracker was last given a page, and so a position to store. The first
	// page counts in any case: nothing tells how old the stored position is, and a
	// consumer that never runs for idlePosition would never store one.
	var placed time.Time
	poll := newPoller(&r.sub.polls, &r.sub.cfg, time.Now())
	defer poll.rest()
	var pauses backoff.BackOff // nil while reads succeed
	var patience patience
	for {
		if !r.awaitRoom() {
			return
		}
		p, err := r.readPage(decoder, &patience, token)
		if err != nil {
			poll.rest()
			if pauses == nil {
				pauses = r.sub.cfg.ReadBackoff()
			}
			if !r.readFailed(err, pauses) {
				return
			}
			continue
		}
		if first || pauses != nil {
			r.sub.callSucceeded(r.conn.id, "readrecords")
		}
		pauses = nil
		if first {
			first = false
			r.session.recovered(r.conn.id, "readrecords")
		}
		finish := p.next == tunnel.FinishTag
		now := time.Now()
		pause, more := poll.after(p, token, now)
		r.countPage(p, pause)
		if len(p.rows) > 0 || finish || now.Sub(placed) >= idlePosition {
			r.tracker.Add(ledger.Page{Token: p.next, Keys: p.keys, Bytes: int64(p.size), Value: p, Finish: finish})
			placed = now
		}
		r.status.readUpTo(p, pause, more)
		if finish {
			return
		}
		token = p.next
		if !r.pause(pause) {
			return
		}
	}
}

// awaitRoom waits until the window admits one more page.
func (r *channelRun) awaitRoom() bool {
	defer r.status.blocked.Store(false)
	for !r.lane.Admit() {
		r.status.blocked.Store(true)
		select {
		case <-r.lane.Wake():
		case <-r.readCtx.Done():
			return false
		}
	}
	return r.readCtx.Err() == nil
}

// readPage makes one read. It is not broken off when reading is to stop, only when the run
// ends: a request that is given up takes its connection with it, which the last commit could have had.
func (r *channelRun) readPage(decoder *pageDecoder, patience *patience, token string) (*page, error) {
	asked, timeout := time.Now(), patience.timeout(r.sub.endpoint.timeout)
	defer r.status.calls.begins(asked)()
	body, err := r.sub.endpoint.read(r.ctx, timeout, &tunnel.ReadRecordRequest{
		TunnelId: r.sub.tunnelID, ClientId: r.conn.clientID, ChannelId: r.conn.id, Token: token,
	})
	patience.note(time.Since(asked), timeout)
	if err != nil {
		return nil, r.channelError("readrecords", err)
	}
	p, err := decoder.decode(body)
	if err != nil {
		return nil, r.channelError("decode", fmt.Errorf("page at token %s: %w", token, err))
	}
	p.asked, p.came = asked, time.Now()
	return p, nil
}

// readFailed reports whether the read is to be tried again, after a pause.
func (r *channelRun) readFailed(err error, pauses backoff.BackOff) bool {
	if r.ctx.Err() != nil { // the read was given up, or does not matter any more
		return false
	}
	pause := nextPause(pauses)
	r.noteError("readrecords", err)
	switch classify(err) {
	case lost:
		r.lost("readrecords", err)
		return false
	case fatal:
		// The tunnel is gone or expired, or the token is refused. The next heartbeat tells
		// the first two; the channel is given back either way.
		if r.sub.callFailed(r.conn.id, "readrecords", err) {
			r.logger.Error("Channel cannot be read any more", err, callFields("readrecords", err))
		} else {
			r.logger.Debug("Channel cannot be read any more", callDetail("readrecords", err))
		}
		r.session.transport.poke()
		r.failed <- err
		return false
	case gap:
		r.gap(err)
		return false
	case throttled:
		pause = max(pause, throttlePause)
	}
	if r.readCtx.Err() != nil || r.sub.stopping.Err() != nil {
		return false
	}
	if r.sub.callFailed(r.conn.id, "readrecords", err) {
		r.logger.Error("Read failed; it is tried again", err, callFields("readrecords", err))
	} else {
		r.logger.Debug("Read failed; it is tried again", callDetail("readrecords", err))
	}
	return r.pause(pause)
}

// pause waits; false when reading is to stop.
func (r *channelRun) pause(d time.Duration) bool {
	if d <= 0 {
		return r.readCtx.Err() == nil
	}
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-timer.C:
		return true
	case <-r.readCtx.Done():
		return false
	}
}
