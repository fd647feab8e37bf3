package ots

import "strconv"

// RecordType says what a write did to its row.
type RecordType uint8

// The record types of the tunnel service.
const (
	// Put is a whole row: a PutRow, or a row of the base data.
	Put RecordType = 1
	// Update holds only the cells that changed.
	Update RecordType = 2
	// Delete is a deleted row; it has a primary key and no columns.
	Delete RecordType = 3
)

// String returns "put", "update" or "delete", as in the message metadata.
func (t RecordType) String() string {
	switch t {
	case Put:
		return "put"
	case Update:
		return "update"
	case Delete:
		return "delete"
	}
	return "RecordType(" + strconv.Itoa(int(t)) + ")"
}

// CellType says what a cell of a Record did to its column.
type CellType uint8

// The cell types of a record.
const (
	// CellPut wrote the value.
	CellPut CellType = iota
	// CellDeleteOneVersion removed the version with the cell's Timestamp.
	CellDeleteOneVersion
	// CellDeleteAllVersions removed the column.
	CellDeleteAllVersions
)

// String returns "put", "delete-one-version" or "delete-all-versions".
func (t CellType) String() string {
	switch t {
	case CellPut:
		return "put"
	case CellDeleteOneVersion:
		return "delete-one-version"
	case CellDeleteAllVersions:
		return "delete-all-versions"
	}
	return "CellType(" + strconv.Itoa(int(t)) + ")"
}

// Sequence is the place of a record in the stream. Records of a channel are
// ordered by (Epoch, Timestamp, RowIndex). It is zero for base data.
type Sequence struct {
	Epoch     int32
	Timestamp int64 // microseconds since 1970
	RowIndex  int32
}

// IsZero reports whether s is the sequence of base data, which has none.
func (s Sequence) IsZero() bool { return s == Sequence{} }

// Less reports whether s comes before o in a channel.
func (s Sequence) Less(o Sequence) bool {
	if s.Epoch != o.Epoch {
		return s.Epoch < o.Epoch
	}
	if s.Timestamp != o.Timestamp {
		return s.Timestamp < o.Timestamp
	}
	return s.RowIndex < o.RowIndex
}

// String is the service's own text form: epoch, timestamp and row index in
// hexadecimal, so that texts of one channel sort as their sequences do.
func (s Sequence) String() string {
	b, _ := s.AppendText(nil) // it never fails
	return string(b)
}

// AppendText appends what String returns to b. It never fails; the error is there
// for encoding.TextAppender.
func (s Sequence) AppendText(b []byte) ([]byte, error) {
	b = appendHex(b, uint64(uint32(s.Epoch)), 8)
	b = append(b, ':')
	b = appendHex(b, uint64(s.Timestamp), 16)
	b = append(b, ':')
	return appendHex(b, uint64(uint32(s.RowIndex)), 8), nil
}

// Column is a primary key column.
type Column struct {
	Name  string
	Value Value
}

// Cell is one cell of a row: a version of a column, or its removal.
type Cell struct {
	Name      string
	Value     Value // zero unless Type is CellPut
	Type      CellType
	Timestamp int64 // version, milliseconds since 1970; 0 where the service sends none
}

// RowState says what is known of the whole row behind a Record.
type RowState uint8

// The states of Record.Row.
const (
	// RowUnknown: the row was not looked up.
	RowUnknown RowState = iota
	// RowFound: Record.Row holds the row.
	RowFound
	// RowGone: there was no such row. A deletion of it follows, or is the record itself.
	RowGone
)

// String returns "unknown", "found" or "gone".
func (s RowState) String() string {
	switch s {
	case RowUnknown:
		return "unknown"
	case RowFound:
		return "found"
	case RowGone:
		return "gone"
	}
	return "RowState(" + strconv.Itoa(int(s)) + ")"
}

// Record is one change of a row, or one row of the base data.
//
// A Record and everything in it are read-only views into the page that was read.
// Keeping one (or a string or []byte of it) keeps its whole page, up to a few MiB,
// in memory; copy what you keep for longer than the handler runs.
type Record struct {
	Instance, Table, Tunnel, Channel string

	Type       RecordType
	Sequence   Sequence // zero for base data
	PrimaryKey []Column // in key order
	Columns    []Cell   // as on the wire: in the service's order, several versions possible
	Origin     []Cell   // columns before the change, if the table's stream keeps them
	Row        []Cell   // with subscriber.Config.Lookup: the newest version of each column when the row was looked up, after the change
	RowState   RowState // whether Row is the row
	Attempt    int      // 1 for the first delivery by this process, then counting up
	UUID       string   // of the message, unless the Unmarshaler gives it another one
}

// Column returns the value that the column of that name has after the change, or the value
// of the primary key column of that name. It returns false for a column that the change
// did not write, or removed after it had written it (see NetColumns).
func (r *Record) Column(name string) (Value, bool) {
	for i := range r.PrimaryKey {
		if r.PrimaryKey[i].Name == name {
			return r.PrimaryKey[i].Value, true
		}
	}
	return netValue(r.Columns, name)
}

// OriginColumn returns the value that the column had before the change, if the
// table's stream keeps it.
func (r *Record) OriginColumn(name string) (Value, bool) { return netValue(r.Origin, name) }

// WholeRow returns the columns of the whole row after the change, each once, as far as
// they are known: those of a put, and those that were looked up. The row that was looked up is at
// least as new as the change, and may have later changes in it. It is false where the row is not known, and
// for one that is gone.
func (r *Record) WholeRow() (columns []Cell, ok bool) {
	switch {
	case r.RowState == RowFound:
		return r.Row, true
	case r.RowState == RowUnknown && r.Type == Put:
		return r.NetColumns(), true
	}
	return nil, false
}

// RowColumn returns the value of a column of the row that was looked up, or of the primary key.
func (r *Record) RowColumn(name string) (Value, bool) {
	whole := Record{PrimaryKey: r.PrimaryKey, Columns: r.Row}
	return whole.Column(name)
}
