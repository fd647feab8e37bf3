package verify

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"net/http"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/ThreeDotsLabs/watermill/message"
	"github.com/aliyun/aliyun-tablestore-go-sdk/tunnel/protocol"
	"github.com/cenkalti/backoff/v4"

	"github.com/watermill-ots/watermill-ots/ots"
	"github.com/watermill-ots/watermill-ots/subscriber"
)

// consumer is a Subscriber of this library on a tunnel of the check.
type consumer struct {
	*probe
	*subscriber.Subscriber
	messages <-chan *message.Message
	cut      *cutTransport
}

// cutTransport fails every request once it is cut, as the network of a dead process does.
type cutTransport struct {
	base http.RoundTripper
	cut  atomic.Bool
}

var errCut = errors.New("the connection was cut by the check")

// RoundTrip implements http.RoundTripper.
func (t *cutTransport) RoundTrip(req *http.Request) (*http.Response, error) {
	if t.cut.Load() {
		return nil, errCut
	}
	return t.base.RoundTrip(req)
}

// config is the configuration of consumers: quick, within what the service is asked for
// elsewhere.
func (p *probe) config() subscriber.Config {
	cfg, timeout := p.kit.cfg, p.kit.cfg.ClientTimeout
	return subscriber.Config{
		Endpoint: cfg.Endpoint, Instance: cfg.Instance, AllowInsecure: cfg.AllowInsecure, Credentials: cfg.Credentials,
		SignatureVersion: cfg.SignatureVersion, Region: cfg.Region, Transport: p.kit.meter,
		HeartbeatTimeout: timeout, HeartbeatInterval: timeout / 4, TunnelViewInterval: subscriber.NoTunnelView,
		CheckpointInterval: 500 * time.Millisecond, MaxPollInterval: 250 * time.Millisecond, CloseTimeout: 2 * time.Second,
		NackBackoff: func() backoff.BackOff { return backoff.NewConstantBackOff(200 * time.Millisecond) },
	}
}

// changes creates a tunnel of the common table's changes and returns its topic.
func (p *probe) changes() (topic string, err error) { return p.changesOf(p.kit.name("")) }

// changesOf creates a tunnel of a table's changes and returns its topic.
func (p *probe) changesOf(table string) (topic string, err error) {
	name, _, err := p.createTunnel(table, protocol.TunnelType_Stream)
	return table + "/" + name, err
}

// consume subscribes to a topic.
func (p *probe) consume(topic string, change func(*subscriber.Config)) (*consumer, error) {
	cfg := p.config()
	cut := &cutTransport{base: cfg.Transport}
	cfg.Transport = cut
	if change != nil {
		change(&cfg)
	}
	sub, err := subscriber.New(cfg, nil)
	if err != nil {
		return nil, err
	}
	messages, err := sub.Subscribe(p.ctx, topic)
	if err != nil {
		return nil, errors.Join(err, sub.Close())
	}
	return &consumer{probe: p, Subscriber: sub, messages: messages, cut: cut}, nil
}

// errWaited says that patience ended.
var errWaited = errors.New("no message came for as long as the check waits")

// next returns the next message of this check, and acks those of others.
func (c *consumer) next(limit time.Duration) (*message.Message, *ots.Record, error) {
	timer := time.NewTimer(limit)
	defer timer.Stop()
	for {
		select {
		case msg, ok := <-c.messages:
			if !ok {
				return nil, nil, fmt.Errorf("the subscription ended: %w", errors.Join(c.Err(), errWaited))
			}
			record, ok := ots.RecordFromMessage(msg)
			if !ok {
				return nil, nil, errors.New("a message without its record")
			}
			if !strings.HasPrefix(keyOf(record), c.check) {
				msg.Ack()
				continue
			}
			return msg, record, nil
		case <-timer.C:
			return nil, nil, errWaited
		case <-c.ctx.Done():
			return nil, nil, context.Cause(c.ctx)
		}
	}
}

// patience is how long a law's check waits for a message: a hand-over from a dead consumer
// included.
func (p *probe) patience() time.Duration { return p.kit.cfg.Patience + 2*p.kit.cfg.ClientTimeout }

func keyOf(r *ots.Record) string {
	if len(r.PrimaryKey) == 0 {
		return ""
	}
	return r.PrimaryKey[0].Value.String()
}

func nothingIsLost(p *probe) error {
	topic, err := p.changes()
	if err != nil {
		return err
	}
	const rows, handled = 30, 8
	dies, err := p.consume(topic, nil)
	if err != nil {
		return err
	}
	defer dies.Close()
	if err := p.write(0, rows); err != nil {
		return err
	}
	seen := make(map[string]bool)
	for len(seen) < handled {
		msg, record, err := dies.next(p.patience())
		if err != nil {
			return err
		}
		seen[keyOf(record)] = true
		msg.Ack()
	}
	dies.cut.cut.Store(true) // no checkpoint, no shutdown
	started := time.Now()
	lives, err := p.consume(topic, nil)
	if err != nil {
		return err
	}
	defer lives.Close()
	first := time.Duration(0)
	for len(seen) < rows {
		msg, record, err := lives.next(p.patience())
		if errors.Is(err, errWaited) {
			return refuted("%d of %d changes were handled.", len(seen), rows)
		} else if err != nil {
			return err
		}
		if first == 0 {
			first = time.Since(started)
		}
		seen[keyOf(record)] = true
		msg.Ack()
	}
	p.note("the next consumer began %v after the death of the first", first.Round(10*time.Millisecond))
	return nil
}

func repeatsHaveEqualIDs(p *probe) error {
	topic, err := p.changes()
	if err != nil {
		return err
	}
	const rows = 5
	if err := p.write(0, rows); err != nil {
		return err
	}
	ids := make(map[string]string)
	for round := range 2 {
		c, err := p.consume(topic, func(cfg *subscriber.Config) { cfg.CloseTimeout = 100 * time.Millisecond })
		if err != nil {
			return err
		}
		for i := range rows {
			msg, record, err := c.next(p.patience())
			if err != nil {
				return errors.Join(err, c.Close())
			}
			key := keyOf(record)
			if round == 0 {
				ids[key] = msg.UUID
			} else if ids[key] != msg.UUID {
				return errors.Join(refuted("record %d, %s, had the UUID %s and then %s.", i, key, ids[key], msg.UUID), c.Close())
			}
		}
		_ = c.Close() // it says that the messages were not settled, as is meant here
	}
	return nil
}

func orderHoldsPerKey(p *probe) error {
	topic, err := p.changes()
	if err != nil {
		return err
	}
	c, err := p.consume(topic, nil)
	if err != nil {
		return err
	}
	defer c.Close()
	const keys, versions = 4, 6
	for v := 1; v <= versions; v++ {
		for i := range keys {
			if err := p.kit.put(p.ctx, p.kit.name(""), p.key(i), int64(v)); err != nil {
				return err
			}
		}
	}
	var (
		mu     sync.Mutex
		last   = make(map[string]int64)            // the newest version that was handled, by key
		inside = make(map[string]*message.Message) // that is being handled
		broken string
		all    sync.WaitGroup
	)
	complete := func() bool {
		mu.Lock()
		defer mu.Unlock()
		for i := range keys {
			if last[p.key(i)] < versions {
				return false
			}
		}
		return true
	}
	for !complete() {
		msg, record, err := c.next(p.patience())
		if err != nil {
			all.Wait()
			return err
		}
		key := keyOf(record)
		value, _ := record.Column("v")
		v := value.Int64()
		mu.Lock()
		// A version may be redelivered when a channel was lost; what it must not do is to
		// come before an older one, or beside one whose handler may still have effects.
		if other := inside[key]; v > last[key]+1 || other != nil && other.Context().Err() == nil {
			broken = fmt.Sprintf("version %d of %s came after version %d, and another one was being handled: %v.", v, key, last[key], other != nil)
		}
		last[key], inside[key] = max(v, last[key]), msg
		mu.Unlock()
		all.Go(func() { // waited for below
			_ = pause(p.ctx, time.Duration(rand.IntN(20))*time.Millisecond) // a handler's work; the loop sees the context's end
			mu.Lock()
			if inside[key] == msg {
				delete(inside, key)
			}
			mu.Unlock()
			msg.Ack()
		})
	}
	all.Wait()
	if broken != "" {
		return refuted("%s", broken)
	}
	return nil
}

func oneOwnerAtATime(p *probe) error {
	topic, err := p.changes()
	if err != nil {
		return err
	}
	var (
		mu     sync.Mutex
		inside = make(map[string]*message.Message) // that is being handled, by key
		broken string
		seen   = make(map[string]bool)
		first  [2]time.Time
		all    sync.WaitGroup
	)
	run := func(n int, c *consumer) {
		for {
			msg, record, err := c.next(p.patience())
			if err != nil {
				return // closed; what was not seen is found below
			}
			key := keyOf(record)
			mu.Lock()
			if other := inside[key]; other != nil && other.Context().Err() == nil {
				broken = fmt.Sprintf("%s was with two handlers.", key)
			}
			inside[key], seen[key] = msg, true
			if first[n].IsZero() {
				first[n] = time.Now()
			}
			mu.Unlock()
			_ = pause(p.ctx, 5*time.Millisecond) // a handler's work; next sees the context's end
			mu.Lock()
			if inside[key] == msg {
				delete(inside, key)
			}
			mu.Unlock()
			msg.Ack()
		}
	}
	one, err := p.consume(topic, nil)
	if err != nil {
		return err
	}
	defer one.Close()
	all.Go(func() { run(0, one) }) // waited for below
	const half = 20
	if err := p.write(0, half); err != nil {
		return err
	}
	two, err := p.consume(topic, nil)
	if err != nil {
		return err
	}
	defer two.Close()
	all.Go(func() { run(1, two) }) // waited for below
	left := time.Now()
	closing := one.Close()
	if err := p.write(half, half); err != nil {
		return err
	}
	for limit := time.Now().Add(p.patience()); ; {
		mu.Lock()
		n := len(seen)
		mu.Unlock()
		if n == 2*half || time.Now().After(limit) {
			break
		}
		if err := pause(p.ctx, p.kit.pace()); err != nil {
			return err
		}
	}
	closing = errors.Join(closing, two.Close())
	all.Wait()
	switch {
	case broken != "":
		return refuted("%s", broken)
	case len(seen) < 2*half:
		return refuted("%d of %d changes were handled.", len(seen), 2*half)
	}
	if !first[1].IsZero() {
		p.note("the second consumer had its first record %v after the first one began to leave", first[1].Sub(left).Round(10*time.Millisecond))
	}
	return closing
}

func checkpointIsNeverAhead(p *probe) error {
	topic, err := p.changes()
	if err != nil {
		return err
	}
	const rows, held = 8, 2
	if err := p.write(0, rows); err != nil {
		return err
	}
	c, err := p.consume(topic, func(cfg *subscriber.Config) {
		cfg.CloseTimeout, cfg.CheckpointInterval = 100*time.Millisecond, 50*time.Millisecond
	})
	if err != nil {
		return err
	}
	for range rows {
		msg, record, err := c.next(p.patience())
		if err != nil {
			return errors.Join(err, c.Close())
		}
		if keyOf(record) != p.key(held) {
			msg.Ack()
		}
	}
	if err := pause(p.ctx, 500*time.Millisecond); err != nil { // several checkpoints
		return errors.Join(err, c.Close())
	}
	_ = c.Close() // it says that a message was not settled, as is meant here
	next, err := p.consume(topic, nil)
	if err != nil {
		return err
	}
	defer next.Close()
	for {
		msg, record, err := next.next(p.patience())
		if errors.Is(err, errWaited) {
			return refuted("the record that was not acked is not redelivered.")
		} else if err != nil {
			return err
		}
		msg.Ack()
		if keyOf(record) == p.key(held) {
			return nil
		}
	}
}

func windowIsBounded(p *probe) error {
	topic, err := p.changes()
	if err != nil {
		return err
	}
	const window, rows = 5, 40
	c, err := p.consume(topic, func(cfg *subscriber.Config) { cfg.MaxInFlight = window })
	if err != nil {
		return err
	}
	defer c.Close()
	var held []*message.Message
	// A row at a time is a page at a time, so the window is filled before the rest is read.
	for i := range rows {
		if err := p.write(i, 1); err != nil {
			return err
		}
		for {
			msg, _, err := c.next(2 * p.kit.pace())
			if errors.Is(err, errWaited) {
				break
			} else if err != nil {
				return err
			}
			held = append(held, msg)
		}
		if i >= 2*window && len(held) > 0 {
			if err := p.write(i+1, rows-i-1); err != nil {
				return err
			}
			break
		}
	}
	for {
		msg, _, err := c.next(4 * p.kit.pace())
		if errors.Is(err, errWaited) {
			break
		} else if err != nil {
			return err
		}
		held = append(held, msg)
	}
	p.note("%d records were delivered without an ack, with a window of %d", len(held), window)
	if len(held) >= rows {
		return refuted("all %d records were delivered with a window of %d.", rows, window)
	}
	n := len(held)
	for _, msg := range held {
		msg.Ack()
	}
	for n < rows {
		msg, _, err := c.next(p.patience())
		if errors.Is(err, errWaited) {
			return refuted("%d of %d records were delivered after the acks.", n, rows)
		} else if err != nil {
			return err
		}
		n++
		msg.Ack()
	}
	return nil
}

func closeStoresWhatWasAcked(p *probe) error {
	// It has a table of its own: a page that is acked in part is not stored, and in the
	// common table a page may hold rows of other checks.
	table := p.kit.name("close")
	if err := p.kit.createTable(p.ctx, table); err != nil {
		return err
	}
	topic, err := p.changesOf(table)
	if err != nil {
		return err
	}
	const rows = 10
	for i := range rows {
		if err := p.kit.put(p.ctx, table, p.key(i), 1); err != nil {
			return err
		}
	}
	// The interval is longer than the check: only Close stores.
	c, err := p.consume(topic, func(cfg *subscriber.Config) { cfg.CheckpointInterval = time.Hour })
	if err != nil {
		return err
	}
	for range rows {
		msg, _, err := c.next(p.patience())
		if err != nil {
			return errors.Join(err, c.Close())
		}
		msg.Ack()
	}
	closing := time.Now()
	if err := c.Close(); err != nil {
		return fmt.Errorf("Close: %w", err)
	}
	p.note("Close took %v", time.Since(closing).Round(time.Millisecond))
	if err := p.kit.put(p.ctx, table, p.key(rows), 1); err != nil {
		return err
	}
	next, err := p.consume(topic, nil)
	if err != nil {
		return err
	}
	defer next.Close()
	msg, record, err := next.next(p.patience())
	if err != nil {
		return err
	}
	msg.Ack()
	if keyOf(record) != p.key(rows) {
		return refuted("%s, which was acked before Close, was redelivered.", keyOf(record))
	}
	return nil
}
