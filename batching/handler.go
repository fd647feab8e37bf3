package batching

import (
	"context"
	"encoding/json"
	"fmt"

	"github.com/ThreeDotsLabs/watermill/message"
)

// Item is a message of a batch with its decoded value.
type Item[T any] struct {
	Message *message.Message
	Value   T
}

// Handler returns a batch handler for typed values: it decodes each message and
// calls handle with those that could be decoded, in order. A message that cannot be
// decoded fails alone, with decode's error; if none can, handle is not called.
// b.Messages has all messages, decoded or not.
//
// decode and handle are called concurrently when batches run at once.
func Handler[T any](
	decode func(msg *message.Message) (T, error),
	handle func(ctx context.Context, b *Batch, items []Item[T]) error,
) HandlerFunc {
	return func(ctx context.Context, b *Batch) error {
		items := make([]Item[T], 0, len(b.Messages))
		for _, msg := range b.Messages {
			v, err := decode(msg)
			if err != nil {
				b.Fail(msg, fmt.Errorf("decode message %s: %w", msg.UUID, err))
				continue
			}
			items = append(items, Item[T]{Message: msg, Value: v})
		}
		if len(items) == 0 {
			return nil
		}
		return handle(ctx, b, items)
	}
}

// JSON decodes a message's payload, for Handler.
func JSON[T any](msg *message.Message) (T, error) {
	var v T
	err := json.Unmarshal(msg.Payload, &v)
	return v, err
}
