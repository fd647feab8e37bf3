package router

import (
	"context"
	"errors"
	"fmt"
	"sync"

	"github.com/ThreeDotsLabs/watermill/message"

	"github.com/watermill-ots/watermill-ots/subscriber"
)

// subscription is a pipeline's subscription, with messages or with a handler.
type subscription struct {
	name, topic string
	subscriber  *subscriber.Subscriber
	messages    <-chan *message.Message // for a message.Router
	done        <-chan struct{}         // with a handler: closed when all is over
	stop        func()                  // starts the drain of all
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

// handleAll runs the pipelines in the subscribers' own loops, until ctx ends and
// all have drained. No message is handled before all are subscribed.
func (r *Router) handleAll(ctx context.Context) (err error) {
	subs, err := r.subscribe(ctx, func(ctx context.Context, s *subscription) (err error) {
		p := r.pipelines[s.name]
		s.done, err = s.subscriber.Handle(ctx, s.topic, func(msg *message.Message) error {
			select {
			case <-r.running:
			default:
				if err := r.awaitRunning(msg.Context()); err != nil {
					return err
				}
			}
			_, err := p.handle(msg)
			return err
		})
		return err
	})
	defer func() { err = errors.Join(err, r.end(subs)) }()
	if err != nil || ctx.Err() != nil { // what was subscribed to meanwhile is ended
		return err
	}
	close(r.running)
	for _, s := range subs {
		<-s.done
	}
	return nil
}

// awaitRunning waits until all pipelines are subscribed.
func (r *Router) awaitRunning(ctx context.Context) error {
	select {
	case <-r.running:
		return nil
	case <-ctx.Done():
		return fmt.Errorf("waiting for the other tunnels: %w", context.Cause(ctx))
	}
}

// runWatermill runs the pipelines in the message.Router. It cannot take back what
// it has started when one of its subscriptions fails, so it only gets
// subscriptions that have succeeded.
func (r *Router) runWatermill(ctx context.Context) (err error) {
	subs, err := r.subscribe(ctx, func(ctx context.Context, s *subscription) (err error) {
		s.messages, err = s.subscriber.Subscribe(ctx, s.topic)
		return err
	})
	defer func() { err = errors.Join(err, r.end(subs)) }()
	if err != nil || ctx.Err() != nil { // what was subscribed to meanwhile is ended
		return err
	}
	for _, s := range subs {
		p := r.pipelines[s.name]
		r.watermill.AddConsumerHandler(s.name, s.topic, s, func(msg *message.Message) error {
			_, err := p.handle(msg)
			return err
		})
	}
	ended := make(chan struct{})
	var told sync.WaitGroup
	told.Go(func() { // ends with message.Router's start or end
		select {
		case <-r.watermill.Running():
			close(r.running)
		case <-ended:
		}
	})
	defer told.Wait()
	defer close(ended)
	if err := r.watermill.Run(ctx); err != nil {
		return fmt.Errorf("running the watermill router: %w", err)
	}
	return nil
}

// end drains what still runs, and tells what ended it.
func (r *Router) end(subs []*subscription) error {
	r.stop()
	var errs []error
	for _, s := range subs {
		errs = append(errs, s.end())
	}
	return errors.Join(errs...)
}

// subscribe subscribes to all tunnels side by side. On an error the
// subscriptions that were made are returned too, to be ended.
func (r *Router) subscribe(ctx context.Context, start func(context.Context, *subscription) error) ([]*subscription, error) {
	subs, err := r.subscriptions()
	if err != nil {
		return subs, err
	}
	if err := r.tellStart(subs); err != nil {
		return subs, err
	}
	errs := make([]error, len(subs))
	var wg sync.WaitGroup
	for i, s := range subs {
		wg.Go(func() { // ends with the calls in it, which ctx bounds
			if err := r.unlessStopping(r.connect(ctx, s, start)); err != nil {
				errs[i] = fmt.Errorf("tunnels.%s: %w", s.name, err)
			}
		})
	}
	wg.Wait()
	return subs, errors.Join(errs...)
}

// subscriptions makes the subscriptions of all tunnels, sorted by name, and connects nothing.
func (r *Router) subscriptions() ([]*subscription, error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	var subs []*subscription
	r.subscribers = make(map[string]*subscriber.Subscriber, len(r.cfg.Tunnels))
	for _, name := range names(r.cfg.Tunnels) {
		sub, err := subscriber.New(r.subscriberConfig(name), r.logger)
		if err != nil {
			return subs, fmt.Errorf("tunnels.%s: %w", name, err)
		}
		r.subscribers[name] = sub
		subs = append(subs, &subscription{name: name, topic: r.cfg.Tunnels[name].topic(), subscriber: sub, stop: r.stop})
	}
	return subs, nil
}

// connect creates the tunnel if that is asked for, and starts the subscription.
func (r *Router) connect(ctx context.Context, s *subscription, start func(context.Context, *subscription) error) error {
	if r.cfg.Tunnels[s.name].Tunnel.Create {
		// SubscribeInitialize takes no context; Close ends it.
		unlink := context.AfterFunc(ctx, func() { _ = s.subscriber.Close() }) // end returns the same error
		err := s.subscriber.SubscribeInitialize(s.topic)
		unlink()
		if err != nil {
			return err
		}
	}
	return start(ctx, s)
}
