package main

import (
	"errors"

	"github.com/ThreeDotsLabs/watermill/message"
	"github.com/eapache/go-resiliency/breaker"

	"github.com/watermill-ots/watermill-ots/ack"
)

// breakerIsTransient marks the errors of sarama's circuit breaker as transient.
// After three failures to find a partition's leader, sarama fails all messages
// of that partition at once, for ten seconds, while those of other partitions
// succeed. A pipeline's failure policy would treat them as bad messages and
// give them up; Watermill's Router, which this example uses, retries them
// anyway.
type breakerIsTransient struct{ message.Publisher }

// Publish implements message.Publisher.
func (p breakerIsTransient) Publish(topic string, msgs ...*message.Message) error {
	err := p.Publisher.Publish(topic, msgs...)
	if errors.Is(err, breaker.ErrBreakerOpen) {
		return ack.Transient(err)
	}
	return err
}
