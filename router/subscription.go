package router

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"

	"github.com/ThreeDotsLabs/watermill/message"

	"github.com/watermill-ots/watermill-ots/router/internal/keypath"
	"github.com/watermill-ots/watermill-ots/subscriber"
)

// subscription is a pipeline's subscription, with a handler or with messages for a
// message.Router. When its tunnel is deleted and recreated, its subscriber subscribes again,
// and the subscription continues.
type subscription struct {
	name, topic string
	subscriber  *subscriber.Subscriber
	pipeline    *pipeline
	start       starter
	done        <-chan struct{} // of the last start: closed when it is over. Set by connect
	stop        func()          // starts the drain of all pipelines

	messages chan *message.Message // for a message.Router, which reads it until it is closed
	over     chan struct{}         // closed before messages is
}

// starter subscribes to the tunnel. done is closed when the subscription is over.
type starter func(ctx context.Context, s *subscription) (done <-chan struct{}, err error)

var _ message.Subscriber = (*subscription)(nil)

// Subscribe returns the messages of the existing subscription. When ctx ends, either the
// message.Router is being closed, which does not always call Close, and all pipelines must
// drain; or this subscription is over by itself, which must not stop the others.
func (s *subscription) Subscribe(ctx context.Context, _ string) (<-chan *message.Message, error) {
	context.AfterFunc(ctx, func() {
		if !isClosed(s.over) {
			s.stop()
		}
	})
	return s.messages, nil
}

// Close is called when the message.Router is closed.
func (s *subscription) Close() error {
	s.stop()
	return s.subscriber.Close()
}

// handleAll runs the pipelines in the subscribers' own loops, until ctx ends and all have
// drained, or all have ended by themselves. It handles no message before all are subscribed.
func (r *Router) handleAll(ctx context.Context) (err error) {
	subs, err := r.subscriptions(func(ctx context.Context, s *subscription) (<-chan struct{}, error) {
		return s.subscriber.Handle(ctx, s.topic, func(msg *message.Message) error {
			select {
			case <-r.running:
			default:
				if err := r.awaitRunning(msg.Context()); err != nil {
					return err
				}
			}
			return s.pipeline.handleOwn(msg)
		})
	})
	defer func() { err = errors.Join(err, r.end(subs)) }()
	if err != nil {
		return err
	}
	began, err := r.subscribe(ctx, subs)
	if err != nil || r.stops.Err() != nil || len(began.alive) == 0 { // the deferred end closes the subscriptions
		return err
	}
	close(r.running)
	r.followAll(ctx, began)
	r.following.Wait()
	return nil
}

// awaitRunning waits until all pipelines are subscribed. If the Router stops first, messages
// that wait are given back at once, since the drain waits for them.
func (r *Router) awaitRunning(ctx context.Context) error {
	select {
	case <-r.running:
		return nil
	case <-r.stopping:
		return fmt.Errorf("waiting for the other tunnels: %w", errGivenBack)
	case <-ctx.Done():
		return fmt.Errorf("waiting for the other tunnels: %w", context.Cause(ctx))
	}
}

// runWatermill runs the pipelines in the message.Router, which cannot undo its start when
// one of its subscriptions fails. So it gets only subscriptions that have succeeded.
func (r *Router) runWatermill(ctx context.Context) (err error) {
	subs, err := r.subscriptions(func(ctx context.Context, s *subscription) (<-chan struct{}, error) {
		messages, err := s.subscriber.Subscribe(ctx, s.topic)
		if err != nil {
			return nil, err
		}
		done := make(chan struct{})
		go func() { defer close(done); r.relay(s, messages) }() // ends with the subscription; follow or end waits
		return done, nil
	})
	defer func() { err = errors.Join(err, r.end(subs)) }()
	if err != nil {
		return err
	}
	began, err := r.subscribe(ctx, subs)
	if err != nil || r.stops.Err() != nil || len(began.alive) == 0 { // the deferred end closes the subscriptions
		return err
	}
	for _, s := range slices.Concat(began.alive, began.late) {
		r.watermill.AddConsumerHandler(s.name, s.topic, s, func(msg *message.Message) error {
			_, err := s.pipeline.handle(msg)
			return err
		})
	}
	r.followAll(ctx, began)
	ended := make(chan struct{})
	var announcing sync.WaitGroup
	announcing.Go(func() { // ends with message.Router's start or end
		select {
		case <-r.watermill.Running():
			close(r.running)
		case <-ended:
		}
	})
	defer announcing.Wait()
	defer close(ended)
	if err := r.watermill.Run(ctx); err != nil {
		return fmt.Errorf("running the watermill router: %w", err)
	}
	return nil
}

// relay passes the messages of one subscription to the message.Router. It takes no message
// before that Router runs: if it never did, the message would never be settled.
func (r *Router) relay(s *subscription, messages <-chan *message.Message) {
	select {
	case <-r.running:
		for msg := range messages {
			s.messages <- msg
		}
	case <-r.stopping:
		for msg := range messages { // taken while the drain begins
			msg.Nack()
		}
	}
}

// subscriptions returns the subscriptions of all enabled tunnels, sorted by name, not yet
// connected, and calls the observers with them. With an error it returns those that exist,
// to be ended.
func (r *Router) subscriptions(start starter) ([]*subscription, error) {
	subs, err := r.newSubscriptions(start)
	if err != nil {
		return subs, err
	}
	return subs, r.startObservers(subs)
}

func (r *Router) newSubscriptions(start starter) ([]*subscription, error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	var subs []*subscription
	r.subscribers = make(map[string]*subscriber.Subscriber, len(r.cfg.Tunnels))
	for _, name := range r.cfg.enabled() {
		sub, err := subscriber.New(r.subscriberConfig(name), r.logger)
		if err != nil {
			return subs, fmt.Errorf("%s: %w", keypath.Join("tunnels", name), err)
		}
		r.subscribers[name] = sub
		subs = append(subs, &subscription{
			name: name, topic: r.cfg.Tunnels[name].topic(), subscriber: sub, pipeline: r.pipelines[name],
			start: start, stop: r.stop, messages: make(chan *message.Message), over: make(chan struct{}),
		})
	}
	return subs, nil
}
