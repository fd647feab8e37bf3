package batching

import (
	"context"
	"fmt"

	"github.com/ThreeDotsLabs/watermill/message"
)

// PublishTo returns a batch handler that publishes copies of the batch's
// messages to the topic, all in one call of Publish. If that returns an error,
// all messages of the batch fail, also those that the publisher has sent before
// it failed: they are published again when they come again.
//
// The copies' contexts end with the batch's and carry the values of the
// originals.
func PublishTo(pub message.Publisher, topic string) HandlerFunc {
	return func(ctx context.Context, b *Batch) error {
		out := make([]*message.Message, len(b.Messages))
		for i, msg := range b.Messages {
			// A publisher may change what it publishes, and the original may
			// have to be published again.
			out[i] = msg.Copy()
			out[i].SetContext(newProcessedContext(ctx, msg.Context()))
		}
		if err := pub.Publish(topic, out...); err != nil {
			return fmt.Errorf("publish %d messages to %q: %w", len(out), topic, err)
		}
		return nil
	}
}
