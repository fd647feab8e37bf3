package subscriber

import (
	"github.com/ThreeDotsLabs/watermill/message"

	"github.com/watermill-ots/watermill-ots/ack"
)

// Source is where a message came from: a tunnel channel and the tunnel client that owns it.
type Source struct {
	// Channel is the id of the tunnel channel. The record and the metadata of most
	// payload formats have it too, but the record must be decoded first.
	Channel string

	// Worker is the number of the tunnel client that owns the channel, from 0 to
	// Config.WorkerSize-1, as in the log. When the service moves a channel to another
	// client, later messages of the channel have another Worker.
	Worker int
}

// SourceFromMessage returns the source of a message that a Subscriber has delivered. The
// message must still have the context that it was delivered with, or one derived from it.
// It does not decode the record.
func SourceFromMessage(msg *message.Message) (Source, bool) {
	from, _ := ack.FromContext(msg.Context())
	d, ok := from.(*delivery)
	if !ok {
		return Source{}, false
	}
	return Source{Channel: d.scope.id, Worker: d.scope.worker}, true
}
