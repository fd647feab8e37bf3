package subscriber

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/ThreeDotsLabs/watermill"
	"github.com/ThreeDotsLabs/watermill/message"
	"github.com/aliyun/aliyun-tablestore-go-sdk/tunnel"

	"github.com/watermill-ots/watermill-ots/ots"
)

// series is what one Subscribe or Handle starts: a subscription, and with OnGapRecreate those
// that follow it, each with the tunnel that replaced the one before. They share the output, or
// the handler.
//
// Invariants:
//   - At most one of its subscriptions has not ended. When the next one starts, nothing of the one before is in
//     flight, so law L3 holds across them.
//   - Between two of them the Subscriber's recreations has the series, so that Status, Close and
//     RunRouter know that it has not ended.
//   - output and done are closed once, by run, when its last subscription has ended.
//   - moves belongs to the goroutine of Subscribe, then to run.
type series struct {
	*Subscriber
	ctx                context.Context // Subscribe's
	topic, table, name string
	handler            message.NoPublishHandlerFunc // nil: messages go to output
	output             chan *message.Message
	done               chan struct{}

	moves []time.Time // when it continued with another tunnel, within RecreateWindow
}

func (s *Subscriber) newSeries(ctx context.Context, topic, table, name string, h message.NoPublishHandlerFunc) *series {
	return &series{
		Subscriber: s, ctx: ctx, topic: topic, table: table, name: name,
		handler: h, output: make(chan *message.Message), done: make(chan struct{}),
	}
}

// start finds the tunnel and starts the first subscription.
func (r *series) start() error {
	ctx, cancel := r.startContext(r.ctx)
	defer cancel()
	info, replaced, err := r.find(ctx)
	if err != nil {
		return r.advise(r.ctx, r.topic, err)
	}
	if err := r.checkType(info); err != nil {
		return err
	}
	r.checkTimes(r.topic, info)
	sub := r.subscription(info)
	sub.replaced = replaced
	if err := r.add(sub); err != nil {
		return err
	}
	go r.run(sub) // ends with the last subscription; Close waits for it
	return nil
}

// run runs the subscriptions.
func (r *series) run(sub *subscription) {
	defer r.remove()
	defer close(r.done)
	defer close(r.output)
	for sub != nil {
		sub.run()
		sub = r.next(sub)
	}
}

// find returns the tunnel to subscribe to. With OnGapRecreate it creates one that does not
// exist, and replaces one that has expired: replaced is why then.
func (r *series) find(ctx context.Context) (info *tunnel.TunnelInfo, replaced, err error) {
	info, err = r.describe(ctx, r.table, r.name)
	former := ""
	switch {
	case err == nil && info.Expired:
		err = fmt.Errorf("%w%s", ots.ErrTunnelExpired, r.cfg.anewAdvice(ots.ErrTunnelExpired))
		former, replaced = info.TunnelId, err
	case err == nil, !errors.Is(err, ots.ErrTunnelGone):
		return info, nil, err
	}
	if !r.cfg.heals(err) {
		return nil, nil, err
	}
	r.recreationBegins(r, err)
	defer r.recreationEnds(r)
	if former != "" {
		r.logger.Error("Tunnel cannot be subscribed to; it is recreated", err, watermill.LogFields{"topic": r.topic, "tunnel_id": former})
	}
	info, err = r.replace(ctx, &recreation{former: former, condemned: former != ""}, replaced)
	return info, replaced, err
}

// next returns the subscription that follows sub, which has ended; nil if it was the last one.
func (r *series) next(sub *subscription) *subscription {
	if !sub.continues {
		return nil
	}
	ctx, cancel := r.startContext(r.ctx)
	defer cancel()
	cause := sub.fatal()
	info, err := r.replace(ctx, &recreation{former: sub.tunnelID, condemned: !errors.Is(cause, ots.ErrTunnelGone), own: sub.clients.lastIDs()}, cause)
	if err == nil {
		next := r.subscription(info)
		next.recreated = true
		if err = r.add(next); err == nil {
			next.logger.Info("Subscription continues with the recreated tunnel; all rows are delivered again", watermill.LogFields{"former_tunnel_id": sub.tunnelID, "snapshot": next.snapshot})
			return next
		}
	}
	r.logger.Error("Tunnel cannot be recreated; the subscription ends", err, watermill.LogFields{"topic": r.topic, "tunnel_id": sub.tunnelID})
	r.recreationFailed(r, sub, err)
	return nil
}

// replace replaces the tunnel that cannot continue, for the given cause; nil if it did not exist when the
// series began.
func (r *series) replace(ctx context.Context, c *recreation, cause error) (*tunnel.TunnelInfo, error) {
	c.Subscriber, c.topic, c.table, c.name = r.Subscriber, r.topic, r.table, r.name
	now := time.Now()
	r.moves = slices.DeleteFunc(r.moves, func(at time.Time) bool { return now.Sub(at) >= RecreateWindow })
	if len(r.moves) >= MaxRecreations {
		return nil, fmt.Errorf("%w; %w: %d times within %v; find out what makes it so before you start again", cause, ErrRecreateLimit, len(r.moves), RecreateWindow)
	}
	info, err := c.run(ctx)
	switch {
	case err != nil && cause != nil:
		return nil, fmt.Errorf("%w; recreating the tunnel: %w", cause, err)
	case err != nil:
		return nil, err
	case cause != nil:
		r.moves = append(r.moves, time.Now())
	}
	return info, nil
}

// subscription returns a subscription to the tunnel, which does not run yet.
func (r *series) subscription(info *tunnel.TunnelInfo) *subscription {
	logger := r.logger.With(watermill.LogFields{"topic": r.topic, "tunnel_id": info.TunnelId})
	sub := newSubscription(r.ctx, &tunnelInfo{
		cfg: r.cfg, endpoint: r.endpoint,
		topic: r.topic, table: r.table, tunnel: r.name, tunnelID: info.TunnelId,
		tunnelType: TunnelType(info.TunnelType), tunnelEnd: endOf(info), snapshot: r.cfg.snapshotOf(info), started: time.Now(),
	}, logger, r.handler)
	sub.dest.output = r.output
	sub.ended = func() { r.subscriptionEnded(r, sub) }
	return sub
}

// add makes the subscription one of the Subscriber's.
func (r *series) add(sub *subscription) error {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.closed {
		return ErrClosed
	}
	r.begins(r.topic)
	delete(r.recreations, r)
	r.subscriptions = append(r.subscriptions, sub)
	r.all[r] = struct{}{}
	return nil
}

// remove makes the Subscriber forget the series.
func (r *series) remove() {
	r.mu.Lock()
	defer r.mu.Unlock()
	delete(r.all, r)
}
