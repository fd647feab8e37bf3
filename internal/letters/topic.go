package letters

import (
	"context"
	"encoding/json"
	"fmt"

	"github.com/ThreeDotsLabs/watermill/message"
)

// MetadataPipeline is the metadata key of a published letter. Its value is the name of
// the pipeline.
const MetadataPipeline = "ots.dead_letter"

// Topic publishes dead letters.
type Topic struct {
	Publisher message.Publisher
	Topic     string
}

// Put publishes the letter. The message's UUID is the letter's identity, so that a
// consumer recognizes a letter that is published twice, and never takes two letters for one.
func (t *Topic) Put(ctx context.Context, l *Letter) error {
	payload, err := json.Marshal(l)
	if err != nil {
		return fmt.Errorf("encode a dead letter: %w", err)
	}
	msg := message.NewMessage(l.identity(), payload)
	msg.Metadata[MetadataPipeline] = l.Pipeline
	msg.SetContext(ctx)
	if err := t.Publisher.Publish(t.Topic, msg); err != nil {
		return fmt.Errorf("publish to %q: %w", t.Topic, err)
	}
	return nil
}
