package behind

import (
	"context"
	"errors"
	"fmt"
	"sync/atomic"
	"time"

	"github.com/ThreeDotsLabs/watermill/message"
)

// Way is how a Router ends.
type Way string

// The ways.
const (
	Close  Way = "Router.Close"
	Cancel Way = "the context of Router.Run ends"
	Stop   Way = "Handler.Stop"
)

// Held is a message that was acked while its Router was closing.
type Held struct {
	UUID string

	// ContextEnded reports whether the message's context had ended before the
	// ack.
	ContextEnded bool
}

// grace is how long the Router has been closing when the message is acked.
const grace = 300 * time.Millisecond

// AckWhileClosing runs a Router with one handler and acks the first messages,
// as many as acked says. It holds the next one until the Router has been
// closing for a while, and then acks that one too.
func AckWhileClosing(ctx context.Context, way Way, acked int, s Subscription) (Held, error) {
	router, err := message.NewRouter(message.RouterConfig{CloseTimeout: limit}, nil)
	if err != nil {
		return Held{}, err
	}
	held, release := make(chan *message.Message), make(chan struct{})
	var count atomic.Int64
	handler := router.AddConsumerHandler("hold", s.Topic, s.Subscriber, func(msg *message.Message) error {
		switch n := count.Add(1); {
		case n <= int64(acked):
			return nil
		case n > int64(acked)+1:
			return errors.New("delivered after the held one")
		}
		held <- msg
		<-release
		return nil
	})
	runCtx, cancel := context.WithCancel(ctx)
	defer cancel()
	stopped := make(chan error, 1)
	go func() { stopped <- router.Run(runCtx) }() // ends in one of the ways, below

	var msg *message.Message
	select {
	case msg = <-held:
	case err := <-stopped:
		return Held{}, fmt.Errorf("the Router ended before it had a message: %w", err)
	case <-time.After(limit):
		cancel()
		return Held{}, errors.Join(fmt.Errorf("no message within %v", limit), router.Close(), <-stopped)
	}
	closed := make(chan error, 1)
	go func() {
		switch way {
		case Close:
			closed <- router.Close()
			return
		case Cancel:
			cancel()
		case Stop:
			handler.Stop()
		}
		closed <- nil
	}()
	time.Sleep(grace)
	h := Held{UUID: msg.UUID, ContextEnded: msg.Context().Err() != nil}
	close(release)
	err = errors.Join(<-closed, <-stopped)
	return h, errors.Join(err, s.Subscriber.Close())
}

// Delivered subscribes without a Router, acks all messages, and returns their
// UUIDs once last returns true or the wait is over.
func Delivered(ctx context.Context, s Subscription, last func(uuids []string) bool, wait time.Duration) ([]string, error) {
	ctx, cancel := context.WithTimeout(ctx, wait)
	defer cancel()
	messages, err := s.Subscriber.Subscribe(ctx, s.Topic)
	if err != nil {
		return nil, err
	}
	var uuids []string
	for !last(uuids) {
		select {
		case msg, ok := <-messages:
			if !ok {
				return uuids, s.Subscriber.Close()
			}
			uuids = append(uuids, msg.UUID)
			msg.Ack()
			continue
		case <-ctx.Done():
		}
		break
	}
	return uuids, s.Subscriber.Close()
}
