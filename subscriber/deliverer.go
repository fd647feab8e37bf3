package subscriber

import (
	"context"
	"sync"
	"sync/atomic"

	"github.com/ThreeDotsLabs/watermill/message"
)

// deliverer delivers one channel's records: to the output, or to the handler of Handle.
type deliverer interface {
	// start begins to deliver. done is called once, when nothing is delivered any more: the
	// channel is fenced or drains.
	start(done func())
	// over is called when the channel is over, after done.
	over()
}

// destination is where the messages of a subscription go, from all of its channels.
type destination struct {
	output  chan *message.Message
	handler message.NoPublishHandlerFunc // nil: messages go to output
	values  context.Context              // values of Subscribe's context, without its end: base of all message contexts
	copies  bool                         // the Unmarshaler is known to keep nothing of a record
	typed   atomic.Bool                  // handlers ask for records
	scanner scanner

	handlers sync.WaitGroup // the goroutines that call handler
	strays   atomic.Int64   // calls of it that outlast their channels
}

// newDestination returns the output if h is nil.
func newDestination(cfg *Config, values context.Context, h message.NoPublishHandlerFunc) *destination {
	return &destination{
		output: make(chan *message.Message), handler: h, values: values, copies: copies(cfg.Unmarshaler),
		scanner: scanner{wake: make(chan struct{}, 1)},
	}
}
