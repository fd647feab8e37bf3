package main

import (
	"context"
	"sync"

	"github.com/ThreeDotsLabs/watermill/message"
)

// topic collects the messages of a publisher's topic, as a separate consumer
// would.
type topic struct {
	ended chan struct{} // closed when the publisher is closed and everything is collected

	mu       sync.Mutex // guards what follows
	messages []*message.Message
}

// follow subscribes to a topic until the publisher is closed. It calls done
// with the UUID of each message.
func follow(sub message.Subscriber, name string, done func(uuid string)) (*topic, error) {
	messages, err := sub.Subscribe(context.Background(), name)
	if err != nil {
		return nil, err
	}
	t := &topic{ended: make(chan struct{})}
	go func() { // ends when the publisher is closed; wait waits for it
		defer close(t.ended)
		for msg := range messages {
			t.mu.Lock()
			t.messages = append(t.messages, msg)
			t.mu.Unlock()
			done(msg.UUID)
			msg.Ack()
		}
	}()
	return t, nil
}

// all returns the messages so far.
func (t *topic) all() []*message.Message {
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.messages[:len(t.messages):len(t.messages)]
}

// wait waits until everything is collected. The publisher must be closed.
func (t *topic) wait() { <-t.ended }

// distinct counts the different messages: one may be published repeatedly.
func distinct(messages []*message.Message) int {
	uuids := make(map[string]struct{}, len(messages))
	for _, msg := range messages {
		uuids[msg.UUID] = struct{}{}
	}
	return len(uuids)
}
