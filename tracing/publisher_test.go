package tracing_test

import (
	"testing"

	"github.com/ThreeDotsLabs/watermill/message"
)

// limitedPublisher accepts payloads up to a size.
type limitedPublisher struct{ published }

func (*limitedPublisher) MaxPayloadBytes() int { return 7 }

// Package router uses it to check that a publisher accepts every dead letter.
func TestPublisher_returns_the_largest_payload_of_the_traced_one(t *testing.T) {
	tr, _ := newTracing(t)
	for want, traced := range map[int]message.Publisher{7: new(limitedPublisher), 0: new(published)} {
		limited, ok := tr.Publisher(traced).(interface{ MaxPayloadBytes() int })
		if !ok || limited.MaxPayloadBytes() != want {
			t.Errorf("want %d bytes, got %v", want, ok)
		}
	}
}
