package plainbuffer

// Op is the type byte of a cell (tag 0x06). A put has none on the wire.
//
// The decoder keeps bytes that are not listed here unchanged. The official SDK treats
// them as puts.
type Op uint8

// The operations. DeleteAllVersion has neither value nor timestamp,
// DeleteOneVersion has a timestamp only; Increment occurs in UpdateRow requests,
// never in a tunnel record.
const (
	Put              Op = 0x00
	DeleteAllVersion Op = 0x01
	DeleteOneVersion Op = 0x03
	Increment        Op = 0x04
)

// Cell is a primary key column or an attribute column of a row. A decoded
// primary key cell always has a value.
type Cell struct {
	Name         string
	Value        Value // the zero Value unless HasValue
	HasValue     bool
	Op           Op
	HasTimestamp bool
	Timestamp    int64 // ms since 1970, zero unless HasTimestamp
}

// Sequence is the place of a stream record in its channel. Records are ordered
// by Epoch, then Timestamp, then RowIndex.
type Sequence struct {
	Epoch     int32
	Timestamp int64 // µs since 1970
	RowIndex  int32
}

// Row is one row: a stored row, a change, or only a primary key. The zero Row is ready
// for use. A Row is not safe for concurrent use, but a decoded one may be read
// concurrently.
type Row struct {
	PrimaryKey  []Cell // in key order
	Cells       []Cell // in the order of the wire
	Delete      bool   // the whole row is deleted
	HasSequence bool
	Sequence    Sequence // the zero Sequence unless HasSequence

	// KeyBytes is a view of the primary key's cells on the wire, without the tag
	// that begins them: equal keys have equal KeyBytes. The decoder sets it,
	// encoders ignore it.
	KeyBytes string
}

// Reset empties the row and keeps its slices' memory for the next decode. The
// cells are cleared, so that an idle Row does not keep a decoded buffer alive.
func (r *Row) Reset() {
	clear(r.PrimaryKey)
	clear(r.Cells)
	*r = Row{PrimaryKey: r.PrimaryKey[:0], Cells: r.Cells[:0]}
}
