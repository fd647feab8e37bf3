package subscriber

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/aliyun/aliyun-tablestore-go-sdk/tunnel"
	"github.com/cenkalti/backoff/v4"

	"github.com/watermill-ots/watermill-ots/internal/ledger"
	"github.com/watermill-ots/watermill-ots/ots"
)

// idlePosition is how often the position of a channel without records is stored. More
// often would be of no use: a restart reads again from the last record, and finds
// nothing. But the position must not get older than what the table's stream keeps, an
// hour at least, or the service takes the tunnel for expired.
const idlePosition = 10 * time.Minute

// reader reads the pages of one channel and gives them to the tracker, as long as the
// window has room. It pauses between reads as poller says, and after failed reads as
// Config.ReadBackoff says. Its fields belong to the goroutine of read, but for those that
// do not change.
//
// Invariants:
//   - No read begins once reading has ended.
//   - Each page is given to the tracker in the order of their tokens, at most once.
type reader struct {
	*ownership
	lane  *ledger.Lane
	polls *pollBudget
	rows  *lookup     // nil unless rows are looked up
	fail  func(error) // ends the subscription

	reading context.Context // ends when reading stops: with the ownership, and when it drains
	stop    context.CancelFunc
	failed  chan error // capacity 1: reading is given up, because the channel cannot be read

	decoder  pageDecoder
	poll     *poller
	patience patience
	pauses   backoff.BackOff // nil while reads succeed
	ever     bool            // a read has succeeded
	// placed is when the tracker was last given a page, and so a position to store. The first
	// page counts in any case: nothing says how old the stored position is, and a
	// consumer that never runs for idlePosition would never store one.
	placed time.Time
}

func newReader(own *ownership, lane *ledger.Lane, polls *pollBudget, fail func(error)) *reader {
	r := &reader{
		ownership: own, lane: lane, polls: polls, fail: fail, failed: make(chan error, 1),
		decoder: pageDecoder{origin: ots.Record{Instance: own.cfg.Instance, Table: own.table, Tunnel: own.tunnel, Channel: own.id, Attempt: 1}},
	}
	r.reading, r.stop = context.WithCancel(own.ctx)
	return r
}

// read reads pages, beginning at token. It ends at the finish token, when reading stops, or
// when the channel is fenced or cannot be read.
func (r *reader) read(token string) {
	r.poll = newPoller(r.polls, &r.cfg, time.Now())
	defer r.poll.rest()
	for r.awaitRoom() {
		p, err := r.readPage(token)
		if err != nil {
			r.poll.rest()
			if !r.readFailed(err) {
				return
			}
			continue
		}
		r.readSucceeded()
		pause := r.place(p, token)
		if p.next == tunnel.FinishTag || !r.pause(pause) {
			return
		}
		token = p.next
	}
}

// awaitPhase waits for the call of OnPhase that reports the open channel, because OnPhase may
// prepare what handlers need. It returns false if reading must stop.
func (r *reader) awaitPhase(told <-chan struct{}) bool {
	late, cancel := context.WithTimeout(r.reading, r.cfg.StuckAfter)
	defer cancel()
	select {
	case <-told:
		return true
	case <-late.Done():
	}
	if r.reading.Err() != nil {
		return false
	}
	r.logger.Error("Config.OnPhase does not return; the channel is not read before it does", errors.New("called StuckAfter ago, or waiting for earlier calls"), nil)
	select {
	case <-told:
		return true
	case <-r.reading.Done():
		return false
	}
}

// awaitRoom waits until the window admits one more page.
func (r *reader) awaitRoom() bool {
	defer r.metrics.blocked.Store(false)
	for !r.lane.Admit() {
		r.metrics.blocked.Store(true)
		select {
		case <-r.lane.Wake():
		case <-r.reading.Done():
			return false
		}
	}
	return r.reading.Err() == nil
}

// readPage makes one read. It is not broken off when reading is to stop, only when the ownership
// ends: a request that is given up takes its connection with it, which the last commit could have had.
func (r *reader) readPage(token string) (*page, error) {
	asked, timeout := time.Now(), r.patience.timeout(r.endpoint.Timeout)
	defer r.metrics.calls.begins(asked)()
	body, err := r.endpoint.Read(r.ctx, timeout, &tunnel.ReadRecordRequest{
		TunnelId: r.tunnelID, ClientId: r.clientID, ChannelId: r.id, Token: token,
	})
	r.patience.note(time.Since(asked), timeout)
	if err != nil {
		return nil, r.channelError("readrecords", err)
	}
	p, err := r.decoder.decode(body)
	if err != nil {
		return nil, r.channelError("decode", fmt.Errorf("page at token %s: %w", token, err))
	}
	p.asked, p.came = asked, time.Now()
	return p, nil
}

// place gives a page, which was read at token, to the tracker. It returns the pause before the next read.
func (r *reader) place(p *page, token string) (pause time.Duration) {
	finish := p.next == tunnel.FinishTag
	now := time.Now()
	pause, more := r.poll.after(p, token, now)
	r.metrics.pageRead(p, pause)
	if len(p.rows) > 0 || finish || now.Sub(r.placed) >= idlePosition {
		withheld := r.rows != nil && r.rows.prepare(p)
		placed := r.tracker.Add(ledger.Page{Token: p.next, Keys: p.keys, Bytes: int64(p.size + len(p.lookups)*sizeOfLookedUpRow), Value: p, Finish: finish, Withheld: withheld})
		if withheld {
			r.rows.add(p, placed)
		}
		r.placed = now
	}
	r.metrics.readUpTo(p, pause, more)
	return pause
}

// pause waits; false when reading is to stop.
func (r *reader) pause(d time.Duration) bool {
	if d <= 0 {
		return r.reading.Err() == nil
	}
	return sleep(r.reading, d)
}
