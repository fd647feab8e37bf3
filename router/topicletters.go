package router

import (
	"cmp"
	"context"
	"encoding/json"
	"fmt"

	"github.com/ThreeDotsLabs/watermill/message"

	"github.com/watermill-ots/watermill-ots/router/internal/keypath"
)

// topicLetters publishes dead letters.
type topicLetters struct {
	publisher message.Publisher
	topic     string
}

// put publishes the letter. Its UUID is the letter's identity, so that a consumer
// can tell when it comes twice, and never takes two letters for one.
func (t *topicLetters) put(ctx context.Context, l *DeadLetter) error {
	payload, err := json.Marshal(l)
	if err != nil {
		return fmt.Errorf("encode a dead letter: %w", err)
	}
	msg := message.NewMessage(l.identity(), payload)
	msg.Metadata[MetadataDeadLetter] = l.Pipeline
	msg.SetContext(ctx)
	if err := t.publisher.Publish(t.topic, msg); err != nil {
		return fmt.Errorf("publish to %q: %w", t.topic, err)
	}
	return nil
}

// payloadLimiter is implemented by publishers that take only messages up to a
// size, whatever their settings. Zero means that there is no such limit.
type payloadLimiter interface{ MaxPayloadBytes() int }

// limitedLetters needs mu. It returns a fault if the tunnel's dead letters go to a publisher that
// cannot take all of them. A letter holds a whole row, which has no bound
// that a limit could be compared with.
func (r *Router) limitedLetters(name string) []Fault {
	dl := r.cfg.Tunnels[name].Failure.DeadLetter
	if dl == nil || dl.Topic == "" {
		return nil
	}
	pub := cmp.Or(dl.Publisher, DefaultPublisher)
	limited, ok := r.publishers[pub].(payloadLimiter)
	if !ok || limited.MaxPayloadBytes() == 0 {
		return nil
	}
	at := keypath.Join("tunnels", name, "failure", "dead_letter")
	return []Fault{{Path: at, Text: fmt.Sprintf("the publisher called %s takes messages of at most %d bytes, but a dead letter holds a whole row and may be larger: it could never be kept; use dead_letter.table, which keeps letters of any size",
		r.cfg.source.Show(keypath.Join(at, "publisher"), pub), limited.MaxPayloadBytes())}}
}
