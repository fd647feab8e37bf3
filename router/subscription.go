package router

import (
	"context"
	"errors"
	"fmt"
	"sync"

	"github.com/ThreeDotsLabs/watermill/message"

	"github.com/watermill-ots/watermill-ots/subscriber"
)

// subscription is a pipeline's subscription, made before message.Router runs:
// that cannot take back what it has started when one of its subscriptions fails, so it
// only gets subscriptions that have succeeded.
type subscription struct {
	name, topic string
	subscriber  *subscriber.Subscriber
	messages    <-chan *message.Message
	stop        func() // starts the drain of all
}

var _ message.Subscriber = (*subscription)(nil)

// Subscribe returns the messages that are subscribed to already. The end of ctx
// means that somebody closes the message.Router, which then does not always
// call Close; or that this subscription has ended by itself, because its tunnel
// is gone, and that must not stop the others.
func (s *subscription) Subscribe(ctx context.Context, _ string) (<-chan *message.Message, error) {
	context.AfterFunc(ctx, func() {
		if s.subscriber.Err() == nil {
			s.stop()
		}
	})
	return s.messages, nil
}

// Close is called when somebody closes the message.Router.
func (s *subscription) Close() error {
	s.stop()
	return s.subscriber.Close()
}

// end drains the subscription, and tells what ended it before.
func (s *subscription) end() error {
	if err := errors.Join(s.subscriber.Close(), s.subscriber.Err()); err != nil {
		return fmt.Errorf("tunnels.%s: %w", s.name, err)
	}
	return nil
}

// subscribe subscribes to all tunnels side by side. On an error the
// subscriptions that were made are returned too, to be ended.
func (r *Router) subscribe(ctx context.Context) ([]*subscription, error) {
	all := names(r.cfg.Tunnels)
	subs, errs := make([]*subscription, len(all)), make([]error, len(all))
	var wg sync.WaitGroup
	for i, name := range all {
		wg.Go(func() { // ends with the calls in it, which ctx bounds
			s, err := r.subscribeOne(ctx, name)
			if err = r.unlessStopping(err); err != nil {
				err = fmt.Errorf("tunnels.%s: %w", name, err)
			}
			subs[i], errs[i] = s, err
		})
	}
	wg.Wait()
	var made []*subscription
	for _, s := range subs {
		if s != nil {
			made = append(made, s)
		}
	}
	return made, errors.Join(errs...)
}

// subscribeOne subscribes to one tunnel, and creates it if that is asked for.
// The subscription is not nil if there is something to end.
func (r *Router) subscribeOne(ctx context.Context, name string) (*subscription, error) {
	r.mu.Lock()
	cfg := r.subscriberConfig(name)
	r.mu.Unlock()
	t := r.cfg.Tunnels[name]
	sub, err := subscriber.New(cfg, r.logger)
	if err != nil {
		return nil, err
	}
	s := &subscription{name: name, topic: t.topic(), subscriber: sub, stop: r.stop}
	if t.Tunnel.Create {
		// SubscribeInitialize takes no context; Close ends it.
		unlink := context.AfterFunc(ctx, func() { _ = sub.Close() }) // end returns the same error
		err := sub.SubscribeInitialize(s.topic)
		unlink()
		if err != nil {
			return s, err
		}
	}
	s.messages, err = sub.Subscribe(ctx, s.topic)
	return s, err
}
