package subscriber

import (
	"strconv"
	"time"

	"github.com/ThreeDotsLabs/watermill/message"

	"github.com/watermill-ots/watermill-ots/ots"
)

// Canal is an Unmarshaler whose payload is in the format of Canal (canal-json), which Flink,
// StarRocks and others read:
//
//	{
//	  "data": [{"id": "7", "amount": "13"}],   the row after the change; of a deletion before it
//	  "old": [{"amount": "12.5"}],             old columns, of an update; null otherwise
//	  "type": "UPDATE",                        INSERT, UPDATE or DELETE
//	  "database": "my-instance", "table": "orders", "pkNames": ["id"],
//	  "es": 1700000002123,                     of the change, in milliseconds; 0 for base data
//	  "ts": 1700000002200,                     when this library saw it
//	  "isDdl": false, "sql": ""
//	}
//
// Values are strings, as Canal writes them, or null: numbers in their shortest form,
// booleans as true and false, binary in base64. What is known of a row is as in Debezium's
// before and after. Consumers take data for the whole row, so use Config.Lookup where rows are updated.
type Canal struct{}

var _ ots.Unmarshaler = Canal{}

func (Canal) showsRows() {}

// Unmarshal makes a message with the change as its payload. It never fails.
func (Canal) Unmarshal(r *ots.Record) (*message.Message, error) {
	before, after, _ := Debezium{}.images(r)
	typ, data := "INSERT", after
	switch operation(r) {
	case 'u':
		typ = "UPDATE"
	case 'd':
		typ, data = "DELETE", before
	}
	b := append(make([]byte, 0, 224+2*sizeHint(r)), `{"data":[`...)
	b = appendCanalRow(b, r.PrimaryKey, data)
	b = append(b, `],"old":`...)
	if typ == "UPDATE" {
		b = append(b, '[')
		b = appendCanalRow(b, nil, before)
		b = append(b, ']')
	} else {
		b = append(b, "null"...)
	}
	b = append(b, `,"type":"`...)
	b = append(b, typ...)
	b = append(b, `","database":`...)
	b = appendString(b, r.Instance)
	b = append(b, `,"table":`...)
	b = appendString(b, r.Table)
	b = append(b, `,"pkNames":[`...)
	for i := range r.PrimaryKey {
		if i > 0 {
			b = append(b, ',')
		}
		b = appendString(b, r.PrimaryKey[i].Name)
	}
	b = append(b, `],"es":`...)
	b = strconv.AppendInt(b, r.Sequence.Timestamp/1000, 10)
	b = append(b, `,"ts":`...)
	b = strconv.AppendInt(b, time.Now().UnixMilli(), 10)
	b = append(b, `,"isDdl":false,"sql":""}`...)
	return messageWith("", b, r), nil
}

// appendCanalRow writes a row whose values are strings.
func appendCanalRow(b []byte, key []ots.Column, columns []ots.Cell) []byte {
	b = append(b, '{')
	first := true
	add := func(name string, v ots.Value) {
		if !first {
			b = append(b, ',')
		}
		first = false
		b = appendString(b, name)
		b = append(b, ':')
		switch v.Kind() {
		case ots.KindInteger, ots.KindBoolean:
			b = appendString(b, v.String())
		case ots.KindDouble:
			from := len(b)
			if b = v.AppendJSON(b); b[from] != '"' { // NaN and the infinities are strings already
				b = appendString(b[:from], string(b[from:]))
			}
		default: // strings, base64, null
			b = v.AppendJSON(b)
		}
	}
	for i := range key {
		add(key[i].Name, key[i].Value)
	}
	for i := range columns {
		add(columns[i].Name, columns[i].Value)
	}
	return append(b, '}')
}
