package forward

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"slices"
	"sync"
	"time"

	"github.com/ThreeDotsLabs/watermill/message"

	"github.com/watermill-ots/watermill-ots/ots"
)

// ledger keeps what was written to the table and what was read from the broker.
// Its methods may be called concurrently.
type ledger struct {
	mu        sync.Mutex         // guards what follows
	written   map[int64][]change // by order, in the table's order
	writes    int                // number of changes in written
	payloads  map[string]string  // by UUID, as the subscriber delivered them
	forwarded map[string]bool    // UUIDs that were published and acked
	published int                // what the server accepted, repetitions included
	lost      int                // responses that were simulated to be lost
	failure   error              // the publisher's last own error
	arrived   []arrival          // what was read back, repetitions included
	distinct  map[string]bool    // UUIDs of arrived
	unread    map[string]bool    // UUIDs of forwarded that have not arrived
	changed   chan struct{}      // capacity 1: something was added
}

// arrival is a message that was read back.
type arrival struct{ uuid, payload string }

func newLedger() *ledger {
	return &ledger{
		written: make(map[int64][]change), payloads: make(map[string]string),
		forwarded: make(map[string]bool), distinct: make(map[string]bool), unread: make(map[string]bool),
		changed: make(chan struct{}, 1),
	}
}

// update runs f with mu held.
func (l *ledger) update(f func()) {
	l.mu.Lock()
	defer l.mu.Unlock()
	f()
	select {
	case l.changed <- struct{}{}:
	default:
	}
}

func (l *ledger) wrote(c change) {
	l.update(func() {
		l.written[c.Order] = append(l.written[c.Order], c)
		l.writes++
	})
}

// delivered is the Router's handler: it forwards each message unchanged.
func (l *ledger) delivered(msg *message.Message) ([]*message.Message, error) {
	l.update(func() { l.payloads[msg.UUID] = string(msg.Payload) })
	return []*message.Message{msg}, nil
}

func (l *ledger) got(uuid string, payload []byte) {
	l.update(func() {
		l.arrived = append(l.arrived, arrival{uuid, string(payload)})
		l.distinct[uuid] = true
		delete(l.unread, uuid)
	})
}

// counts are the ledger's figures at some moment.
type counts struct {
	written, forwarded, published, lost, arrived, distinct, unread int
	failure                                                        error
}

func (l *ledger) counts() counts {
	l.mu.Lock()
	defer l.mu.Unlock()
	return counts{l.writes, len(l.forwarded), l.published, l.lost, len(l.arrived), len(l.distinct), len(l.unread), l.failure}
}

// wait waits until done returns true, ctx ends, or limit is over. what
// describes in the error what did not happen.
func (l *ledger) wait(ctx context.Context, limit time.Duration, what string, done func(counts) bool) error {
	late := time.NewTimer(limit)
	defer late.Stop()
	for !done(l.counts()) {
		select {
		case <-l.changed:
		case <-ctx.Done():
			return context.Cause(ctx)
		case <-late.C:
			c := l.counts()
			err := fmt.Errorf("within %v not all changes were %s: %d written, %d forwarded, %d read back",
				limit, what, c.written, c.forwarded, c.distinct)
			return errors.Join(err, c.failure)
		}
	}
	return nil
}

// errLost is what the Router gets instead of a response of the server.
var errLost = errors.New("the response was lost (simulated, to show a repetition)")

// losing publishes everything, but fails after each hundredth message, as if
// the connection broke before the server's response: the message is nacked and
// published once more.
type losing struct {
	message.Publisher
	ledger *ledger
}

const loseEvery = 100

// Publish counts what the server has accepted.
func (p losing) Publish(topic string, msgs ...*message.Message) (err error) {
	if err := p.Publisher.Publish(topic, msgs...); err != nil {
		p.ledger.update(func() { p.ledger.failure = fmt.Errorf("the last publish that failed: %w", err) })
		return err
	}
	p.ledger.update(func() {
		for _, msg := range msgs {
			p.ledger.published++
			if p.ledger.published%loseEvery == 0 {
				p.ledger.lost++
				err = errLost
				continue
			}
			p.ledger.forwarded[msg.UUID] = true
			if !p.ledger.distinct[msg.UUID] {
				p.ledger.unread[msg.UUID] = true
			}
		}
	})
	return err
}

// verdict is the result of the comparison.
type verdict struct {
	missing, duplicates int
	faults              []string
}

// maxFaults is the maximum number of faults in a verdict.
const maxFaults = 5

func (v *verdict) fault(format string, args ...any) {
	if len(v.faults) < maxFaults {
		v.faults = append(v.faults, fmt.Sprintf(format, args...))
	}
}

// compare compares what was read from the broker with what was written to the
// table. A message whose UUID has arrived before is a duplicate, as for a
// consumer with an inbox table. The others of each order must be what was
// written to it, in that order and from the start; only the end may be missing.
func (l *ledger) compare() verdict {
	l.mu.Lock()
	defer l.mu.Unlock()
	var v verdict
	seen := make(map[string]bool)
	next := make(map[int64]int) // by order: number of changes that have arrived
	for _, a := range l.arrived {
		if payload, ok := l.payloads[a.uuid]; !ok {
			v.fault("message %q was never published", a.uuid)
		} else if payload != a.payload {
			v.fault("message %s was published as %s and read back as %s", a.uuid, payload, a.payload)
		}
		if seen[a.uuid] {
			v.duplicates++
			continue
		}
		seen[a.uuid] = true
		c, err := changeOf(a.payload)
		if err != nil {
			v.fault("message %s: %v", a.uuid, err)
			continue
		}
		place := next[c.Order]
		next[c.Order]++
		if all := l.written[c.Order]; place >= len(all) {
			v.fault("order %d has %d changes, and one more arrived: %+v", c.Order, len(all), c)
		} else if all[place] != c {
			v.fault("change %d of order %d is %+v, but %+v arrived", place+1, c.Order, all[place], c)
		}
	}
	for uuid := range l.unread {
		v.fault("message %s was forwarded and never arrived", uuid)
	}
	for _, order := range slices.Sorted(maps.Keys(l.written)) {
		v.missing += max(len(l.written[order])-next[order], 0)
	}
	return v
}

// changeOf reads a change from a message's payload, the subscriber's default
// JSON.
func changeOf(payload string) (change, error) {
	var p struct {
		Type    string
		Key     struct{ Order *int64 }
		Columns struct {
			Step   int64
			Status string
		}
	}
	if err := json.Unmarshal([]byte(payload), &p); err != nil {
		return change{}, fmt.Errorf("payload %q: %w", payload, err)
	}
	if p.Key.Order == nil {
		return change{}, fmt.Errorf("payload %q has no key", payload)
	}
	c := change{Order: *p.Key.Order, Step: p.Columns.Step, Status: p.Columns.Status}
	for _, typ := range []ots.RecordType{ots.Put, ots.Update, ots.Delete} {
		if typ.String() == p.Type {
			c.Type = typ
		}
	}
	return c, nil
}
