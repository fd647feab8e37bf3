package subscriber

import (
	"strconv"
	"time"

	"github.com/ThreeDotsLabs/watermill/message"

	"github.com/watermill-ots/watermill-ots/ots"
)

// Debezium is an Unmarshaler whose payload is an envelope in the style of
// Debezium's JSON without schemas:
//
//	{
//	  "before": {"id": 7, "amount": 12.5},     primary key and origin columns, or null
//	  "after": {"id": 7, "amount": 13, "note": null},
//	  "source": {
//	    "connector": "tablestore", "db": "my-instance", "table": "orders",
//	    "tunnel": "audit", "channel": "…", "snapshot": "false", "type": "update",
//	    "ts_ms": 1700000002123,                of the change; 0 for base data
//	    "sequence": "00000001:00060a24183ea6c0:00000000"   null for base data
//	  },
//	  "op": "u",                               c, u, d, or r for base data
//	  "ts_ms": 1700000002200                   when this library saw it
//	}
//
// What Tablestore does not tell cannot be in it:
//
//   - before is known only of tables whose stream keeps old columns, and holds
//     those columns; of a deletion it always has the primary key.
//   - after of a put (source.type "put") is the whole row. Of an update it holds
//     the primary key and what changed: columns that were removed are null, and
//     columns of which single versions were removed are not in it.
//   - op of a put is c, though the row may have been there before, unless
//     origin columns show that it was: then it is u. An update is always u.
//
// Values are as in the payload of JSON. Since ts_ms is the time of reading, the
// payload of a redelivery differs; the UUID does not.
type Debezium struct{}

var _ ots.Unmarshaler = Debezium{}

// Unmarshal makes a message with the envelope as its payload. It never fails.
func (Debezium) Unmarshal(r *ots.Record) (*message.Message, error) {
	return messageWith("", appendEnvelope(make([]byte, 0, 192+sizeHint(r)), r, time.Now()), r), nil
}

func appendEnvelope(b []byte, r *ots.Record, now time.Time) []byte {
	b = append(b, `{"before":`...)
	if len(r.Origin) > 0 || r.Type == ots.Delete {
		b = appendImage(b, r.PrimaryKey, r.Origin)
	} else {
		b = append(b, "null"...)
	}
	b = append(b, `,"after":`...)
	if r.Type == ots.Delete {
		b = append(b, "null"...)
	} else {
		b = appendImage(b, r.PrimaryKey, r.Columns)
	}
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
	b = append(b, `},"op":"`...)
	b = append(b, operation(r))
	b = append(b, `","ts_ms":`...)
	b = strconv.AppendInt(b, now.UnixMilli(), 10)
	return append(b, '}')
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

// appendImage writes a row: the primary key, what each column holds after the
// change, and null for each column that is gone.
func appendImage(b []byte, key []ots.Column, cells []ots.Cell) []byte {
	b = append(b, '{')
	for i := range key {
		b = appendNamed(b, i == 0, key[i].Name, key[i].Value)
	}
	net := (&ots.Record{Columns: cells}).NetColumns()
	for i := range net { // a column that is gone has no value: null
		b = appendNamed(b, i == 0 && len(key) == 0, net[i].Name, net[i].Value)
	}
	return append(b, '}')
}
