package subscriber

import (
	"strconv"
	"time"

	"github.com/ThreeDotsLabs/watermill/message"

	"github.com/watermill-ots/watermill-ots/ots"
)

// Debezium is an Unmarshaler whose payload is an envelope in the style of
// Debezium's JSON:
//
//	{
//	  "before": {"id": 7, "amount": 12.5},     primary key and origin columns, or null
//	  "after": {"id": 7, "amount": 13, "note": null},
//	  "source": {
//	    "connector": "tablestore", "db": "my-instance", "table": "orders",
//	    "tunnel": "audit", "channel": "…", "snapshot": "false", "type": "update",
//	    "ts_ms": 1700000002123,                of the change; 0 for base data
//	    "sequence": "00000001:00060a24183ea6c0:00000000",   null for base data
//	    "image": "partial"                     full if after is the whole row
//	  },
//	  "op": "u",                               c, u, d, or r for base data
//	  "ts_ms": 1700000002200                   when this library saw it
//	}
//
// What Tablestore does not tell cannot be in it:
//
//   - before is known only of tables whose stream keeps old columns, and holds
//     those columns; of a deletion it always has the primary key.
//   - after of a put is the whole row, and so is that of an update whose row was looked up
//     (Config.Lookup): source.image is "full". Otherwise it holds the primary key and what
//     changed: columns that are gone are null, and columns of which single versions
//     were removed are not in it. A consumer that replaces rows needs Config.Lookup.
//   - op of a put is c, though the row may have been there before, unless
//     origin columns show that it was: then it is u. An update is always u.
//
// Values are as in the payload of JSON. Since ts_ms is the time of reading, the
// payload of a redelivery differs; the UUID does not. PublishTombstones adds the messages
// without a payload that follow deletions in Debezium's topics.
type Debezium struct {
	// Schema adds the schema block, as Kafka Connect's JsonConverter has it: the payload is
	// {"schema": …, "payload": the envelope}. The types of columns are those of the record's
	// values; a column that is only removed counts as a string. NaN and the infinities stay
	// strings, which Kafka Connect refuses.
	Schema bool

	// KeyBefore gives updates whose old columns are not known a before of the primary key
	// instead of null, for consumers that refuse null there, such as Flink's debezium-json.
	KeyBefore bool
}

var _ ots.Unmarshaler = Debezium{}

// showsRows says that consumers of the payload usually take after for the whole row.
func (Debezium) showsRows() {}

// Unmarshal makes a message with the envelope as its payload. It never fails.
func (d Debezium) Unmarshal(r *ots.Record) (*message.Message, error) {
	return messageWith("", d.append(make([]byte, 0, 224+2*sizeHint(r)), r, time.Now()), r), nil
}

// PublishTombstones is a handler for Debezium messages, for a message.Router's AddHandler: it
// publishes each message, and after a deletion one with the same metadata and no payload, by
// which a compacted topic forgets the key. Publish with MetadataKey as the message key.
func PublishTombstones(msg *message.Message) ([]*message.Message, error) {
	out := []*message.Message{msg}
	if msg.Metadata.Get(MetadataType) == ots.Delete.String() {
		tombstone := message.NewMessage(msg.UUID+"-tombstone", nil)
		for key, value := range msg.Metadata {
			tombstone.Metadata[key] = value
		}
		tombstone.SetContext(msg.Context())
		out = append(out, tombstone)
	}
	return out, nil
}

func (d Debezium) append(b []byte, r *ots.Record, now time.Time) []byte {
	before, after, full := d.images(r)
	if d.Schema {
		b = appendSchema(b, r, before, after)
		b = append(b, `,"payload":`...)
	}
	b = append(b, `{"before":`...)
	b = appendImage(b, r.PrimaryKey, before)
	b = append(b, `,"after":`...)
	b = appendImage(b, r.PrimaryKey, after)
	b = append(b, `,"source":{"connector":"tablestore","db":`...)
	b = appendString(b, r.Instance)
	b = append(b, `,"table":`...)
	b = appendString(b, r.Table)
	b = append(b, `,"tunnel":`...)
	b = appendString(b, r.Tunnel)
	b = append(b, `,"channel":`...)
	b = appendString(b, r.Channel)
	b = append(b, `,"snapshot":"`...)
	b = strconv.AppendBool(b, r.Sequence.IsZero())
	b = append(b, `","type":"`...)
	b = append(b, r.Type.String()...)
	b = append(b, `","ts_ms":`...)
	b = strconv.AppendInt(b, r.Sequence.Timestamp/1000, 10)
	b = append(b, `,"sequence":`...)
	if r.Sequence.IsZero() {
		b = append(b, "null"...)
	} else {
		b = appendString(b, r.Sequence.String())
	}
	if after != nil {
		b = append(b, `,"image":"`...)
		b = append(b, imageName(full)...)
		b = append(b, '"')
	}
	b = append(b, `},"op":"`...)
	b = append(b, operation(r))
	b = append(b, `","ts_ms":`...)
	b = strconv.AppendInt(b, now.UnixMilli(), 10)
	b = append(b, '}')
	if d.Schema {
		b = append(b, '}')
	}
	return b
}

func imageName(full bool) string {
	if full {
		return "full"
	}
	return "partial"
}

// images returns the columns before and after the change, nil where there is no such row or it is not
// known at all. full says that after is the whole row.
func (d Debezium) images(r *ots.Record) (before, after []ots.Cell, full bool) {
	none := []ots.Cell{}
	switch {
	case len(r.Origin) > 0:
		before = (&ots.Record{Columns: r.Origin}).NetColumns()
	case r.Type == ots.Delete, r.Type == ots.Update && d.KeyBefore:
		before = none
	}
	if r.Type == ots.Delete {
		return before, nil, false
	}
	if after, full = r.WholeRow(); !full {
		after = r.NetColumns()
	}
	if after == nil {
		after = none
	}
	return before, after, full
}

// operation is Debezium's letter for the change.
func operation(r *ots.Record) byte {
	switch {
	case r.Type == ots.Delete:
		return 'd'
	case r.Sequence.IsZero():
		return 'r'
	case r.Type == ots.Update || len(r.Origin) > 0:
		return 'u'
	}
	return 'c'
}

// appendImage writes a row: the primary key, the columns, and null for each column that is gone. Without
// columns (nil, not empty) there is no row: null.
func appendImage(b []byte, key []ots.Column, columns []ots.Cell) []byte {
	if columns == nil {
		return append(b, "null"...)
	}
	b = append(b, '{')
	for i := range key {
		b = appendNamed(b, i == 0, key[i].Name, key[i].Value)
	}
	for i := range columns { // a column that is gone has no value: null
		b = appendNamed(b, i == 0 && len(key) == 0, columns[i].Name, columns[i].Value)
	}
	return append(b, '}')
}
