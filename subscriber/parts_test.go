package subscriber

import (
	"context"
	"time"

	"github.com/ThreeDotsLabs/watermill"
	"github.com/ThreeDotsLabs/watermill/message"
)

// subscriptionOf is a subscription with the given configuration, at the service f, that does
// not run. With a handler it is one of Handle.
func subscriptionOf(f *fakeService, cfg Config, h message.NoPublishHandlerFunc) *subscription {
	info := &tunnelInfo{cfg: cfg.withDefaults(), endpoint: fakeEndpoint(f), started: time.Now()}
	return newSubscription(context.Background(), info, watermill.NopLogger{}, h)
}

// sessionOf is a session of a subscription that does not run.
func sessionOf(sub *subscription) *session { return newSession(&sub.sessionConfig, sub.logger) }

// openRun opens channel c1 of a session. The run does not begin.
func openRun(s *session) *channelRun {
	return s.channels.open(assignment{
		id: "c1", session: s.ctx, logger: s.logger, client: s, lease: s.transport.lease, reopen: s.reopen,
	})
}
