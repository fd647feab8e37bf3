package subscriber_test

import (
	"strconv"
	"sync"

	"github.com/ThreeDotsLabs/watermill/message"

	"github.com/watermill-ots/watermill-ots/ots"
	"github.com/watermill-ots/watermill-ots/subscriber"
)

// mirror is a sink that holds what the table holds, also after tunnels were recreated. docs/gaps.md
// shows it.
type mirror struct {
	mu     sync.Mutex
	newest int64          // the greatest snapshot seen
	rows   map[string]row // by the text of the key
}

// row is a row of the sink, with the snapshot of the message that wrote it last.
type row struct {
	value    int64
	snapshot int64
}

// handle is the handler. What it does must be one transaction in a database.
func (m *mirror) handle(msg *message.Message) error {
	snapshot, err := strconv.ParseInt(msg.Metadata.Get(subscriber.MetadataSnapshot), 10, 64)
	if err != nil {
		return err
	}
	change, _ := ots.RecordFromMessage(msg)
	m.mu.Lock()
	defer m.mu.Unlock()
	if snapshot < m.newest {
		return nil // a message of a tunnel that was replaced: the new one delivers what became of the row
	}
	m.newest = snapshot
	if change.Type == ots.Delete {
		delete(m.rows, change.KeyText())
		return nil
	}
	value, _ := change.Column("v")
	m.rows[change.KeyText()] = row{value.Int64(), snapshot}
	return nil
}

// phase is Config.OnPhase. When the base data is done, every row of the table is marked with the
// snapshot; what is not was deleted while no tunnel could tell.
func (m *mirror) phase(p subscriber.Phase) {
	if p.Kind != subscriber.StreamStarted {
		return
	}
	snapshot, _ := strconv.ParseInt(p.Snapshot, 10, 64)
	m.mu.Lock()
	defer m.mu.Unlock()
	for key, row := range m.rows {
		if row.snapshot < snapshot {
			delete(m.rows, key)
		}
	}
}
