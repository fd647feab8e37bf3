package subscriber

import (
	"encoding/binary"
	"math"
	"strconv"

	"github.com/ThreeDotsLabs/watermill/message"

	"github.com/watermill-ots/watermill-ots/ots"
)

// FunctionCompute is an Unmarshaler whose payload is the event that Function Compute's
// Tablestore trigger calls a function with, version Sync-v1, in CBOR:
//
//	{
//	  "Version": "Sync-v1",
//	  "Records": [{
//	    "Type": "UpdateRow",                          or PutRow or DeleteRow
//	    "Info": {"Timestamp": 1700000002123456},      of the change, µs since 1970; 0 for base data
//	    "PrimaryKey": [{"ColumnName": "id", "Value": 7}],
//	    "Columns": [
//	      {"Type": "Put", "ColumnName": "amount", "Value": 13, "Timestamp": 1700000002000},
//	      {"Type": "DeleteAllVersions", "ColumnName": "note"}      or DeleteOneVersion, with a Timestamp
//	    ]
//	  }]
//	}
//
// The trigger puts many records into an event; here each message has one. Columns are the
// cells of the change, in their order. CBOR has the types of Tablestore: integers of 64 bits, doubles,
// text, bytes, booleans. docs/from-function-compute.md says how to move a function.
type FunctionCompute struct {
	// JSON selects JSON instead of CBOR, with values as in the payload of JSON{}.
	JSON bool
}

var _ ots.Unmarshaler = FunctionCompute{}

// Unmarshal makes a message with the event as its payload. It never fails.
func (f FunctionCompute) Unmarshal(r *ots.Record) (*message.Message, error) {
	var w eventWriter = &cborEvent{b: make([]byte, 0, 128+2*sizeHint(r))}
	if f.JSON {
		w = &jsonEvent{b: make([]byte, 0, 192+2*sizeHint(r))}
	}
	writeEvent(w, r)
	return messageWith("", w.bytes(), r), nil
}

var triggerTypes = map[ots.RecordType]string{ots.Put: "PutRow", ots.Update: "UpdateRow", ots.Delete: "DeleteRow"}

var triggerCells = map[ots.CellType]string{ots.CellPut: "Put", ots.CellDeleteOneVersion: "DeleteOneVersion", ots.CellDeleteAllVersions: "DeleteAllVersions"}

func writeEvent(w eventWriter, r *ots.Record) {
	w.object(2)
	w.name("Version")
	w.value(ots.StringValue("Sync-v1"))
	w.name("Records")
	w.list(1)
	w.object(4)
	w.name("Type")
	w.value(ots.StringValue(triggerTypes[r.Type]))
	w.name("Info")
	w.object(1)
	w.name("Timestamp")
	w.value(ots.IntegerValue(r.Sequence.Timestamp))
	w.end()
	w.name("PrimaryKey")
	w.list(len(r.PrimaryKey))
	for _, c := range r.PrimaryKey {
		w.object(2)
		w.name("ColumnName")
		w.value(ots.StringValue(c.Name))
		w.name("Value")
		w.value(c.Value)
		w.end()
	}
	w.endList()
	w.name("Columns")
	w.list(len(r.Columns))
	for i := range r.Columns {
		writeCell(w, &r.Columns[i])
	}
	w.endList()
	w.end()
	w.endList()
	w.end()
}

func writeCell(w eventWriter, c *ots.Cell) {
	switch c.Type {
	case ots.CellPut:
		w.object(4)
	case ots.CellDeleteOneVersion:
		w.object(3)
	default:
		w.object(2)
	}
	w.name("Type")
	w.value(ots.StringValue(triggerCells[c.Type]))
	w.name("ColumnName")
	w.value(ots.StringValue(c.Name))
	if c.Type == ots.CellPut {
		w.name("Value")
		w.value(c.Value)
	}
	if c.Type != ots.CellDeleteAllVersions {
		w.name("Timestamp")
		w.value(ots.IntegerValue(c.Timestamp))
	}
	w.end()
}

// eventWriter writes an event in one of its encodings. Objects and lists are given their sizes.
type eventWriter interface {
	object(members int)
	end()
	list(elements int)
	endList()
	name(string)
	value(ots.Value)
	bytes() []byte
}

// cborEvent writes CBOR [RFC 8949].
type cborEvent struct{ b []byte }

// The major types of CBOR.
const (
	cborPositive = 0 << 5
	cborNegative = 1 << 5
	cborBytes    = 2 << 5
	cborText     = 3 << 5
	cborArray    = 4 << 5
	cborMap      = 5 << 5
	cborFalse    = 0xf4
	cborTrue     = 0xf5
	cborNull     = 0xf6
	cborDouble   = 0xfb
)

// head writes a major type with its argument in the shortest form.
func (w *cborEvent) head(major byte, n uint64) {
	switch {
	case n < 24:
		w.b = append(w.b, major|byte(n))
	case n <= math.MaxUint8:
		w.b = append(w.b, major|24, byte(n))
	case n <= math.MaxUint16:
		w.b = binary.BigEndian.AppendUint16(append(w.b, major|25), uint16(n))
	case n <= math.MaxUint32:
		w.b = binary.BigEndian.AppendUint32(append(w.b, major|26), uint32(n))
	default:
		w.b = binary.BigEndian.AppendUint64(append(w.b, major|27), n)
	}
}

func (w *cborEvent) object(members int) { w.head(cborMap, uint64(members)) }
func (*cborEvent) end()                 {}
func (w *cborEvent) list(elements int)  { w.head(cborArray, uint64(elements)) }
func (*cborEvent) endList()             {}
func (w *cborEvent) bytes() []byte      { return w.b }

func (w *cborEvent) name(s string) {
	w.head(cborText, uint64(len(s)))
	w.b = append(w.b, s...)
}

func (w *cborEvent) value(v ots.Value) {
	switch v.Kind() {
	case ots.KindInteger:
		if n := v.Int64(); n >= 0 {
			w.head(cborPositive, uint64(n))
		} else {
			w.head(cborNegative, uint64(-(n + 1)))
		}
	case ots.KindDouble:
		w.b = binary.BigEndian.AppendUint64(append(w.b, cborDouble), math.Float64bits(v.Float64()))
	case ots.KindBoolean:
		if v.Bool() {
			w.b = append(w.b, cborTrue)
		} else {
			w.b = append(w.b, cborFalse)
		}
	case ots.KindString:
		w.name(v.String())
	case ots.KindBinary:
		w.head(cborBytes, uint64(len(v.String())))
		w.b = append(w.b, v.String()...)
	default:
		w.b = append(w.b, cborNull)
	}
}

// jsonEvent writes JSON.
type jsonEvent struct {
	b     []byte
	comma bool // before the next element
}

func (w *jsonEvent) open(c byte) {
	w.separate()
	w.b, w.comma = append(w.b, c), false
}

func (w *jsonEvent) separate() {
	if w.comma {
		w.b = append(w.b, ',')
	}
	w.comma = true
}

func (w *jsonEvent) close(c byte) { w.b, w.comma = append(w.b, c), true }

func (w *jsonEvent) object(int)    { w.open('{') }
func (w *jsonEvent) end()          { w.close('}') }
func (w *jsonEvent) list(int)      { w.open('[') }
func (w *jsonEvent) endList()      { w.close(']') }
func (w *jsonEvent) bytes() []byte { return w.b }

func (w *jsonEvent) name(s string) {
	w.separate()
	w.b = append(strconv.AppendQuote(w.b, s), ':') // names are plain words
	w.comma = false
}

func (w *jsonEvent) value(v ots.Value) {
	w.separate()
	w.b = v.AppendJSON(w.b)
}
