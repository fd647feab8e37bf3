package router

import (
	"strconv"
	"sync"

	"github.com/ThreeDotsLabs/watermill/message"

	"github.com/watermill-ots/watermill-ots/ots"
	"github.com/watermill-ots/watermill-ots/subscriber"
)

// The values of Tunnel.Scope, besides tunnel.
const (
	scopeWorker  = "worker"
	scopeChannel = "channel"
)

// divides reports whether a pipeline has more than one scope.
func divides(scope string) bool { return scope == scopeWorker || scope == scopeChannel }

// scopeOf returns the function that names a message's scope, nil when the whole tunnel
// is one.
func (t Tunnel) scopeOf() func(*message.Message) string {
	switch t.Scope {
	case scopeWorker:
		return workerOf
	case scopeChannel:
		return channelOf
	}
	return nil
}

// workerOf returns the number of the worker that delivered a message. Messages of Test and
// Replay have no worker and belong to the first one.
func workerOf(msg *message.Message) string {
	source, _ := subscriber.SourceFromMessage(msg)
	return strconv.Itoa(source.Worker)
}

// channelOf returns the channel of a message. Messages of Replay and Test have no
// subscription: their records or their metadata name the channel.
func channelOf(msg *message.Message) string {
	if source, ok := subscriber.SourceFromMessage(msg); ok {
		return source.Channel
	}
	if rec, ok := ots.RecordFromMessage(msg); ok {
		return rec.Channel
	}
	return msg.Metadata.Get(subscriber.MetadataChannel)
}

// scopedSlots lets at most n messages of each scope into a handler at once. A scope exists
// while messages of it are in the handler or wait for it.
type scopedSlots struct {
	handler func() message.HandlerFunc // returns the handler of a scope, with slots of its own

	mu     sync.Mutex
	scopes map[string]*slotsInScope
}

type slotsInScope struct {
	handle   message.HandlerFunc
	messages int // in handle; guarded by scopedSlots.mu
}

// withScopedSlots is withSlots for each scope; scopeOf is nil when there is only one.
func withScopedSlots(h message.HandlerFunc, n int, scopeOf func(*message.Message) string, stopping <-chan struct{}) message.HandlerFunc {
	if n == 0 || scopeOf == nil {
		return withSlots(h, n, stopping)
	}
	return newScopedSlots(h, n, stopping).around(scopeOf)
}

func newScopedSlots(h message.HandlerFunc, n int, stopping <-chan struct{}) *scopedSlots {
	return &scopedSlots{
		handler: func() message.HandlerFunc { return withSlots(h, n, stopping) },
		scopes:  make(map[string]*slotsInScope),
	}
}

// around returns the handler that sends each message through the slots of its scope.
func (s *scopedSlots) around(scopeOf func(*message.Message) string) message.HandlerFunc {
	return func(msg *message.Message) ([]*message.Message, error) {
		scope := scopeOf(msg)
		in := s.enter(scope)
		defer s.leave(scope, in)
		return in.handle(msg)
	}
}

func (s *scopedSlots) enter(scope string) *slotsInScope {
	s.mu.Lock()
	defer s.mu.Unlock()
	in := s.scopes[scope]
	if in == nil {
		in = &slotsInScope{handle: s.handler()}
		s.scopes[scope] = in
	}
	in.messages++
	return in
}

func (s *scopedSlots) leave(scope string, in *slotsInScope) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if in.messages--; in.messages == 0 {
		delete(s.scopes, scope)
	}
}
