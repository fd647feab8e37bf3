package subscriber

import (
	"github.com/ThreeDotsLabs/watermill/message"

	"github.com/watermill-ots/watermill-ots/ack"
)

// Source says by which way a message came to its subscription.
type Source struct {
	// Channel is the id of the tunnel channel. The record and the metadata of most
	// formats have it too; here it costs nothing to ask for.
	Channel string

	// Worker is the number of the tunnel client that owns the channel, from 0 to
	// Config.WorkerSize-1, as in the log. When the service moves a channel to another
	// client, later messages of the channel have another Worker.
	Worker int
}

// SourceFromMessage returns the source of a message that a Subscriber has delivered, as
// long as the message has the context with which it came, or one derived of that. It
// decodes nothing.
func SourceFromMessage(msg *message.Message) (Source, bool) {
	from, _ := ack.FromContext(msg.Context())
	d, ok := from.(*delivery)
	if !ok {
		return Source{}, false
	}
	return Source{Channel: d.run.conn.id, Worker: d.run.session.worker}, true
}
