package batching

import (
	"context"
	"errors"
	"fmt"

	"github.com/ThreeDotsLabs/watermill/message"
)

// PartialError is an error of Publish that says which messages failed; the others
// of the call were published. publisher.PublishError implements it.
type PartialError interface {
	error

	// MessageErrors returns the errors of the messages that failed, by their index
	// in the call. Errors of messages that failed only because of others are marked
	// with ack.Transient.
	MessageErrors() map[int]error
}

// PublishTo returns a batch handler that publishes copies of the batch's
// messages to the topic, all in one call of Publish. If that returns an error
// that wraps a PartialError, the messages that it names fail, and the others
// succeed. With any other error all messages of the batch fail, also those that
// the publisher sent before it failed: they are published again when they are
// redelivered.
//
// The copies' contexts end with the batch's context and carry the values of the
// originals.
func PublishTo(pub message.Publisher, topic string) HandlerFunc {
	return func(ctx context.Context, b *Batch) error {
		out := make([]*message.Message, len(b.Messages))
		for i, msg := range b.Messages {
			// A publisher may change the message, and the original may have to be
			// published again.
			out[i] = msg.Copy()
			out[i].SetContext(newProcessedContext(ctx, msg.Context()))
		}
		err := pub.Publish(topic, out...)
		var partial PartialError
		if errors.As(err, &partial) && failNamed(b, topic, partial.MessageErrors()) {
			return nil
		}
		if err != nil {
			return fmt.Errorf("publish %d messages to %q: %w", len(out), topic, err)
		}
		return nil
	}
}

// failNamed fails the messages of the batch that errs names. If errs has an index
// that is not in the batch, it reports false and fails none.
func failNamed(b *Batch, topic string, errs map[int]error) bool {
	if len(errs) == 0 {
		return false
	}
	for i := range errs {
		if i < 0 || i >= len(b.Messages) {
			return false
		}
	}
	for i, msg := range b.Messages {
		if err := errs[i]; err != nil {
			b.Fail(msg, fmt.Errorf("publish to %q: %w", topic, err))
		}
	}
	return true
}
