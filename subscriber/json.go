package subscriber

import (
	"encoding/base64"
	"strconv"

	"github.com/ThreeDotsLabs/watermill/message"

	"github.com/watermill-ots/watermill-ots/internal/plainbuffer"
	"github.com/watermill-ots/watermill-ots/ots"
)

// JSON is the default Unmarshaler. Its payload is one JSON object:
//
//	{
//	  "type": "update",                    put, update or delete
//	  "key": {"id": 7, "region": "eu"},    primary key columns, in key order
//	  "columns": {"amount": 12.5},         what each column holds after the change
//	  "deleted": ["note"],                 columns that are gone after it
//	  "deleted_versions": [{"column": "n", "timestamp": 1700000000000}],
//	  "origin": {"amount": 11},            values before the change
//	  "row": {"amount": 12.5, "paid": true},   the row that was looked up; null: it is gone
//	  "timestamp": 1700000000123456,       µs since 1970
//	  "sequence": "00000000:00060a24182d2240:00000002"
//	}
//
// type, key and columns are always there, the rest only when there is something
// to say; base data has no timestamp and no sequence. Integers are exact (use
// json.Number where they may exceed 2^53), binary values are base64 (standard
// alphabet, padded), doubles that JSON cannot hold are the strings "NaN",
// "Infinity" and "-Infinity", and bytes of a string that are not UTF-8 become U+FFFD.
type JSON struct{}

var _ ots.Unmarshaler = JSON{}

// Unmarshal makes a message with the JSON payload and the metadata of this package. It never fails.
func (JSON) Unmarshal(r *ots.Record) (*message.Message, error) {
	// One piece of memory holds the payload and, behind its capacity, the texts of the metadata.
	b := appendRecord(make([]byte, 0, sizeHint(r)), r)
	msg := message.NewMessage("", b[:len(b):len(b)])
	setMetadataIn(msg, r, b)
	return msg, nil
}

// sizeHint is what a record's payload and its metadata need, unless there is
// much to escape.
func sizeHint(r *ots.Record) int {
	const (
		fixed  = 136 // all but keys and cells
		quotes = 6   // around and between a name and its value
	)
	n := fixed
	for i := range r.PrimaryKey {
		n += len(r.PrimaryKey[i].Name) + 2*(textSize(r.PrimaryKey[i].Value)+quotes) // payload and metadata
	}
	for _, cells := range [...][]ots.Cell{r.Columns, r.Origin, r.Row} {
		for i := range cells {
			n += len(cells[i].Name) + textSize(cells[i].Value) + quotes
		}
	}
	return n
}

// textSize is about how many bytes v takes in JSON.
func textSize(v ots.Value) int {
	switch v.Kind() {
	case ots.KindString:
		return len(v.String())
	case ots.KindBinary:
		return base64.StdEncoding.EncodedLen(len(v.String()))
	}
	return 20 // of the longest integer
}

func appendRecord(b []byte, r *ots.Record) []byte {
	b = appendUpToKey(b, r.Type)
	for i := range r.PrimaryKey {
		b = appendNamed(b, i == 0, r.PrimaryKey[i].Name, r.PrimaryKey[i].Value)
	}
	b = append(b, keyUpToColumns...)
	net := r.NetColumns()
	b = appendPuts(b, net)
	b = append(b, '}')
	if hasType(net, ots.CellDeleteAllVersions) {
		b = append(b, `,"deleted":[`...)
		b = appendDeleted(b, net)
		b = append(b, ']')
	}
	if hasType(r.Columns, ots.CellDeleteOneVersion) {
		if gone := r.NetDeletedVersions(); len(gone) > 0 {
			b = append(b, `,"deleted_versions":[`...)
			b = appendDeletedVersions(b, gone)
			b = append(b, ']')
		}
	}
	if len(r.Origin) > 0 {
		b = append(b, `,"origin":{`...)
		b = appendRow(b, r.Origin)
		b = append(b, '}')
	}
	switch r.RowState {
	case ots.RowFound:
		b = append(b, `,"row":{`...)
		b = appendRow(b, r.Row)
		b = append(b, '}')
	case ots.RowGone:
		b = append(b, `,"row":null`...)
	}
	b = appendSequence(b, r.Sequence)
	return append(b, '}')
}

// keyUpToColumns stands between the members of "key" and those of "columns".
const keyUpToColumns = `},"columns":{`

// appendUpToKey writes all that stands before the members of "key".
func appendUpToKey(b []byte, t ots.RecordType) []byte {
	b = append(b, `{"type":"`...)
	b = append(b, t.String()...)
	return append(b, `","key":{`...)
}

// appendSequence writes the members "timestamp" and "sequence", with a comma
// before each; base data has none.
func appendSequence(b []byte, s ots.Sequence) []byte {
	if s.IsZero() {
		return b
	}
	b = append(b, `,"timestamp":`...)
	b = strconv.AppendInt(b, s.Timestamp, 10)
	b = append(b, `,"sequence":"`...)
	b, _ = s.AppendText(b) // it never fails
	return append(b, '"')
}

func hasType(cells []ots.Cell, t ots.CellType) bool {
	for i := range cells {
		if cells[i].Type == t {
			return true
		}
	}
	return false
}

// appendPuts writes the columns that have a value.
func appendPuts(b []byte, net []ots.Cell) []byte {
	first := true
	for i := range net {
		if net[i].Type == ots.CellPut {
			b = appendMember(b, &first, &net[i])
		}
	}
	return b
}

// appendRow writes each column of a row once, with its newest version.
func appendRow(b []byte, row []ots.Cell) []byte {
	return appendPuts(b, (&ots.Record{Columns: row}).NetColumns())
}

func appendMember(b []byte, first *bool, c *ots.Cell) []byte {
	b = appendNamed(b, *first, c.Name, c.Value)
	*first = false
	return b
}

// appendNamed writes a member of an object.
func appendNamed(b []byte, first bool, name string, v ots.Value) []byte {
	if !first {
		b = append(b, ',')
	}
	b = appendString(b, name)
	b = append(b, ':')
	return v.AppendJSON(b)
}

func appendDeleted(b []byte, cells []ots.Cell) []byte {
	first := true
	for i := range cells {
		if cells[i].Type != ots.CellDeleteAllVersions {
			continue
		}
		if !first {
			b = append(b, ',')
		}
		first = false
		b = appendString(b, cells[i].Name)
	}
	return b
}

func appendDeletedVersions(b []byte, gone []ots.Cell) []byte {
	for i := range gone {
		if i > 0 {
			b = append(b, ',')
		}
		b = append(b, `{"column":`...)
		b = appendString(b, gone[i].Name)
		b = append(b, `,"timestamp":`...)
		b = strconv.AppendInt(b, gone[i].Timestamp, 10)
		b = append(b, '}')
	}
	return b
}

// appendString writes s as encoding/json does with SetEscapeHTML(false): <, >
// and & are left alone, as payloads are not HTML.
func appendString(b []byte, s string) []byte { return ots.StringValue(s).AppendJSON(b) }

// fromWire converts a decoded value without copying its data. Kinds that only
// bounds and requests have (INF_MIN, AUTO_INCREMENT, ...) give the zero Value.
func fromWire(w plainbuffer.Value) ots.Value {
	switch w.Kind() {
	case plainbuffer.Integer:
		return ots.IntegerValue(w.Integer())
	case plainbuffer.Double:
		return ots.DoubleValue(w.Double())
	case plainbuffer.Boolean:
		return ots.BooleanValue(w.Boolean())
	case plainbuffer.String:
		return ots.StringValue(w.Str())
	case plainbuffer.Binary:
		return ots.BinaryValueOf(w.Str())
	}
	return ots.Value{}
}
