package pubsubtest

import (
	"context"
	"errors"
	"time"

	"github.com/ThreeDotsLabs/watermill/message"
	"github.com/cenkalti/backoff/v4"

	"github.com/watermill-ots/watermill-ots/ots"
	"github.com/watermill-ots/watermill-ots/subscriber"
)

// config is the common configuration of the suite's subscribers: durations that
// are short enough for tests.
func (s *service) config(ordering subscriber.Ordering) subscriber.Config {
	return subscriber.Config{
		Endpoint: s.endpoint, Instance: instance, AccessKeyID: keyID, AccessKeySecret: keySecret,
		Ordering:           ordering,
		Unmarshaler:        late{unmarshaler{}},
		HeartbeatInterval:  time.Second,
		HeartbeatTimeout:   5 * time.Second,
		CheckpointInterval: 100 * time.Millisecond,
		MaxPollInterval:    50 * time.Millisecond,
		CloseTimeout:       2 * time.Second, // TestMessageCtx leaves a message unsettled and waits for it
		// TestContinueAfterErrors nacks 300 messages in succession, far more
		// than the default backoff is made for.
		NackBackoff: func() backoff.BackOff { return backoff.NewConstantBackOff(5 * time.Millisecond) },
		Tunnel:      subscriber.TunnelSpec{Type: subscriber.Stream},
	}
}

// late holds each record back until it is lateBy old. The suite counts a
// message as sent some moments after its Publish has returned, and
// TestReconnect compares what was sent with what has arrived at the moment when
// the last message arrives: a message that overtakes the response to its own
// write would be one too many.
type late struct{ ots.Unmarshaler }

const lateBy = 30 * time.Millisecond

// Unmarshal implements ots.Unmarshaler.
func (l late) Unmarshal(r *ots.Record) (*message.Message, error) {
	if !r.Sequence.IsZero() {
		time.Sleep(time.Until(time.UnixMicro(r.Sequence.Timestamp).Add(lateBy)))
	}
	return l.Unmarshaler.Unmarshal(r)
}

// groupSubscriber is a Subscriber for the suite: topics are tables and the
// group is the tunnel.
type groupSubscriber struct {
	*subscriber.Subscriber
	tables *tables
	group  string
	own    bool // no other subscriber uses the group: Subscribe creates its tunnel
	made   func(topic string)
}

var (
	_ message.Subscriber           = (*groupSubscriber)(nil)
	_ message.SubscribeInitializer = (*groupSubscriber)(nil)
)

func (s *groupSubscriber) topic(topic string) string { return tableOf(topic) + "/" + s.group }

// Subscribe implements message.Subscriber.
func (s *groupSubscriber) Subscribe(ctx context.Context, topic string) (<-chan *message.Message, error) {
	if s.own {
		if err := s.SubscribeInitialize(topic); err != nil {
			return nil, err
		}
	}
	return s.Subscriber.Subscribe(ctx, s.topic(topic))
}

// SubscribeInitialize creates the topic's table and the group's tunnel.
func (s *groupSubscriber) SubscribeInitialize(topic string) error {
	created, err := s.tables.ensure(topic)
	if created {
		s.made(topic)
	}
	if err != nil {
		return err
	}
	return s.Subscriber.SubscribeInitialize(s.topic(topic))
}

// Close implements message.Subscriber. Unsettled messages are not a failure
// here: the suite leaves them on purpose.
func (s *groupSubscriber) Close() error {
	err := s.Subscriber.Close()
	if onlyUnsettled(err) {
		return nil
	}
	return err
}

// onlyUnsettled reports whether every error that err joins is ErrDrainTimeout.
func onlyUnsettled(err error) bool {
	if joined, ok := err.(interface{ Unwrap() []error }); ok {
		for _, e := range joined.Unwrap() {
			if !onlyUnsettled(e) {
				return false
			}
		}
		return true
	}
	return errors.Is(err, subscriber.ErrDrainTimeout)
}
