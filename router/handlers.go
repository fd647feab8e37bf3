package router

import (
	"context"
	"errors"
	"fmt"

	"github.com/ThreeDotsLabs/watermill/message"

	"github.com/watermill-ots/watermill-ots/batching"
	"github.com/watermill-ots/watermill-ots/router/internal/keypath"
	"github.com/watermill-ots/watermill-ots/router/internal/strictyaml"
	"github.com/watermill-ots/watermill-ots/subscriber"
)

// ErrDrop is an error for Process to return, wrapped or not: the message is acked without
// any further step. It neither joins a batch nor is forwarded.
var ErrDrop = errors.New("message dropped")

// Handlers is the code of one pipeline. All functions are called concurrently.
type Handlers struct {
	// Process is called for each message, by at most processors.concurrency
	// goroutines at once. It may choose a batcher and a batch key
	// (batching.SetBatcher, SetBatchKey, Flush), change the payload and the metadata
	// for the steps after it, and publish other messages. ErrDrop acks the
	// message without further steps; any other error fails it. Nil: messages pass
	// unchanged.
	Process func(msg *message.Message) error

	// Batches are the batch handlers, one for each of the tunnel's batchers in
	// the configuration that has no forward.
	Batches map[string]func(ctx context.Context, b *batching.Batch) error

	// Failed is called for every failed attempt of a message, before it is
	// redelivered or becomes a dead letter. It is not called for messages that end
	// because the pipeline stops, their channel is lost or an earlier change of their
	// key failed: these have not failed.
	Failed func(msg *message.Message, err error)

	// Phase is subscriber.Config.OnPhase of the pipeline: it is called when the base data of a
	// tunnel is done, and when channels are opened and finished, one call at a time. A sink deletes there
	// what a recreated tunnel does not have any more, see docs/gaps.md. A panic is logged.
	Phase func(p subscriber.Phase)

	// Middlewares are the pipeline's own, around Process and the batches and
	// inside those of AddMiddleware. The first one is the outermost. They see the
	// outcome of a message's batch, so with any of them each message has a goroutine
	// that waits for its batch, which costs more than all other steps together.
	Middlewares []message.HandlerMiddleware

	// ProcessMiddlewares are around Process alone: middlewares that log, trace,
	// recover or bound it, and need not know what becomes of the message in its batch.
	// The first one is the outermost. ErrDrop passes them as an error.
	ProcessMiddlewares []message.HandlerMiddleware
}

// check returns the mismatches between h and the tunnel's configuration.
func (h Handlers) check(name string, t Tunnel) []Fault {
	var faults []Fault
	path := keypath.Join("tunnels", name)
	fault := func(at, format string, args ...any) {
		faults = append(faults, Fault{Path: at, Text: fmt.Sprintf(format, args...)})
	}
	batchers := keypath.Join(path, "batchers")
	for _, b := range names(h.Batches) {
		cfg, ok := t.Batchers[b]
		switch {
		case !ok:
			fault(batchers, "Handlers.Batches has a handler for %q, but there is no such batcher%s", b, strictyaml.Suggest(b, names(t.Batchers), "batchers"))
		case cfg.Forward != nil:
			fault(keypath.Join(batchers, b), "forward publishes its batches, but Handlers.Batches has a handler too; keep one of them")
		case h.Batches[b] == nil:
			fault(keypath.Join(batchers, b), "its handler in Handlers.Batches is nil")
		}
	}
	for _, b := range names(t.Batchers) {
		if _, ok := h.Batches[b]; !ok && t.Batchers[b].Forward == nil {
			fault(keypath.Join(batchers, b), "has no handler: add one to Handlers.Batches, or forward its batches to a publisher")
		}
	}
	_, hasDefault := t.Batchers[batching.DefaultBatcher]
	switch {
	case h.Process != nil:
	case len(t.Batchers) == 0 && t.Forward == nil:
		fault(path, "has nothing to do with its messages: set Handlers.Process, or add batchers or forward")
	case len(t.Batchers) > 0 && !hasDefault:
		fault(batchers, "Handlers.Process is nil, so no message chooses a batcher, and none is called %q", batching.DefaultBatcher)
	}
	middlewares := func(field string, all []message.HandlerMiddleware) {
		for i, m := range all {
			if m == nil {
				fault(path, "Handlers.%s[%d] is nil", field, i)
			}
		}
	}
	middlewares("Middlewares", h.Middlewares)
	middlewares("ProcessMiddlewares", h.ProcessMiddlewares)
	return faults
}
