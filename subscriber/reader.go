package subscriber

import (
	"fmt"
	"time"

	"github.com/aliyun/aliyun-tablestore-go-sdk/tunnel"
	"github.com/cenkalti/backoff/v4"

	"github.com/watermill-ots/watermill-ots/ack"
)

// When the service does not say whether more records are there, a page counts as
// full above these bounds, as in the SDK [facts 4.6].
const (
	fullPageRecords = 500
	fullPageBytes   = 900 << 10
)

// minPoll is the shortest pause after a page that was not full.
const minPoll = 5 * time.Millisecond

// throttlePause is the least pause when the service says that it is asked too often.
const throttlePause = time.Second

// read reads pages from token on and gives them to the tracker, as long as the
// window has room. It ends at the finish token, with readCtx, or
// when the channel is lost or of no use.
func (r *channelRun) read(token string) {
	decoder := &pageDecoder{origin: Record{
		Instance: r.sub.cfg.Instance, Table: r.sub.table, Tunnel: r.sub.tunnel, Channel: r.conn.id, Attempt: 1,
	}}
	first := true
	poll := poller{longest: r.sub.cfg.MaxPollInterval, since: time.Now()}
	var pauses backoff.BackOff // nil while reads succeed
	for {
		if !r.awaitRoom() {
			return
		}
		p, err := r.readPage(decoder, token)
		if err != nil {
			if pauses == nil {
				pauses = r.sub.cfg.ReadBackoff()
			}
			if !r.readFailed(err, pauses) {
				return
			}
			continue
		}
		pauses = nil
		if first {
			first = false
			r.session.readable(r.conn.id)
		}
		finish := p.next == tunnel.FinishTag
		pause := poll.after(p, time.Now())
		r.countPage(p, pause)
		r.tracker.Add(ack.Page{Token: p.next, Keys: p.keys, Bytes: int64(p.size), Value: p, Finish: finish})
		r.status.readUpTo(p, pause)
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
func (r *channelRun) readPage(decoder *pageDecoder, token string) (*page, error) {
	asked := time.Now()
	body, err := r.sub.endpoint.read(r.ctx, &tunnel.ReadRecordRequest{
		TunnelId: r.sub.tunnelID, ClientId: r.conn.clientID, ChannelId: r.conn.id, Token: token,
	})
	if err != nil {
		return nil, r.channelError("readrecords", err)
	}
	p, err := decoder.decode(body)
	if err != nil {
		return nil, r.channelError("decode", fmt.Errorf("page at token %s: %w", token, err))
	}
	p.asked = asked
	return p, nil
}

// readFailed reports whether the read is to be tried again, after a pause.
func (r *channelRun) readFailed(err error, pauses backoff.BackOff) bool {
	pause := nextPause(pauses)
	r.noteError("readrecords", err)
	switch classify(err) {
	case cancelled:
		return false
	case lost:
		r.lost(err)
		return false
	case fatal:
		// The tunnel is gone or expired, or the token is refused. The next heartbeat tells
		// the first two; the channel is given back either way.
		r.logger.Error("Channel cannot be read any more", err, nil)
		r.session.transport.poke()
		r.failed <- err
		return false
	case throttled:
		pause = max(pause, throttlePause)
	}
	if r.readCtx.Err() != nil {
		return false
	}
	r.logger.Error("Read failed; it is tried again", err, nil)
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

// poller decides the pause after a page: none while there is more to read, and
// a share of the time since the last record when there is not. So a record
// that follows others is seen soon, and an idle channel is asked ever
// less often, down to once in the longest interval.
type poller struct {
	longest time.Duration
	since   time.Time // of the last record seen
}

// pollShare: the pause is 1/pollShare of the time that the channel has been idle.
const pollShare = 8

func (p *poller) after(pg *page, now time.Time) time.Duration {
	if len(pg.rows) > 0 {
		p.since = now
	}
	full := len(pg.rows) > fullPageRecords || pg.size > fullPageBytes
	if pg.more != nil {
		full = *pg.more
	}
	if (full || pg.base) && len(pg.rows) > 0 { // a scan of base data has more until it says finished
		return 0
	}
	return min(p.longest, max(minPoll, now.Sub(p.since)/pollShare))
}
