package subscriber

import (
	"unsafe"

	"github.com/ThreeDotsLabs/watermill/message"

	"github.com/watermill-ots/watermill-ots/internal/plainbuffer"
	"github.com/watermill-ots/watermill-ots/ots"
)

// Raw is an Unmarshaler whose payload is the record in PlainBuffer, Tablestore's
// own row format: header, primary key, cells, sequence and checksums, as the
// service sends it. A deletion has the delete marker. The type of the change is
// in the metadata, as always; the columns before the change are not in the payload.
//
// The payload is encoded anew, so it is the message's own and keeps no page in
// memory. It has the bytes of the wire unless those hold parts that this library
// skips (unknown extensions, unknown cell types).
type Raw struct{}

var _ ots.Unmarshaler = Raw{}

// Unmarshal makes a message with the record in PlainBuffer. It never fails.
func (Raw) Unmarshal(r *ots.Record) (*message.Message, error) {
	return messageWith("", appendPlainBuffer(make([]byte, 0, 64+sizeHint(r)+cellOverhead*len(r.Columns)), r), r), nil
}

// None is an Unmarshaler whose payload is empty: for handlers that take the
// typed record (RecordFromMessage, Bind) and nothing else.
type None struct{}

var _ ots.Unmarshaler = None{}

// Unmarshal makes a message with metadata alone. It never fails.
func (None) Unmarshal(r *ots.Record) (*message.Message, error) {
	msg := message.NewMessage("", nil)
	setMetadata(msg, r)
	return msg, nil
}

// cellOverhead is what PlainBuffer adds to a cell's name and value, beyond JSON's quotes.
const cellOverhead = 22

func appendPlainBuffer(b []byte, r *ots.Record) []byte {
	row := plainbuffer.Row{
		PrimaryKey:  make([]plainbuffer.Cell, len(r.PrimaryKey)),
		Cells:       make([]plainbuffer.Cell, len(r.Columns)),
		Delete:      r.Type == ots.Delete,
		HasSequence: !r.Sequence.IsZero(),
		Sequence:    plainbuffer.Sequence(r.Sequence),
	}
	for i, c := range r.PrimaryKey {
		row.PrimaryKey[i] = plainbuffer.Cell{Name: c.Name, Value: toWire(c.Value), HasValue: true}
	}
	for i, c := range r.Columns {
		row.Cells[i] = plainbuffer.Cell{
			Name: c.Name, Value: toWire(c.Value), HasValue: c.Value.Kind() != ots.KindNone,
			Op: wireOps[c.Type], Timestamp: c.Timestamp, HasTimestamp: c.Timestamp != 0,
		}
	}
	return plainbuffer.AppendRow(plainbuffer.AppendHeader(b), &row)
}

var wireOps = [...]plainbuffer.Op{
	ots.CellPut:               plainbuffer.Put,
	ots.CellDeleteOneVersion:  plainbuffer.DeleteOneVersion,
	ots.CellDeleteAllVersions: plainbuffer.DeleteAllVersion,
}

// toWire is the reverse of fromWire, and copies as little.
func toWire(v ots.Value) plainbuffer.Value {
	switch v.Kind() {
	case ots.KindInteger:
		return plainbuffer.IntegerValue(v.Int64())
	case ots.KindDouble:
		return plainbuffer.DoubleValue(v.Float64())
	case ots.KindBoolean:
		return plainbuffer.BooleanValue(v.Bool())
	case ots.KindString:
		return plainbuffer.StringValue(v.String())
	case ots.KindBinary:
		data := v.String()
		return plainbuffer.BinaryValue(unsafe.Slice(unsafe.StringData(data), len(data)))
	}
	return plainbuffer.Value{}
}
