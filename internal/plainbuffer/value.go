package plainbuffer

// Kind is the type byte of a value on the wire.
type Kind uint8

const (
	Integer       Kind = 0x00
	Double        Kind = 0x01
	Boolean       Kind = 0x02
	String        Kind = 0x03
	Null          Kind = 0x06
	Binary        Kind = 0x07
	InfMin        Kind = 0x09
	InfMax        Kind = 0x0A
	AutoIncrement Kind = 0x0B
)

// Op is the type byte of a cell (tag 0x06). A put has none on the wire.
type Op uint8

const (
	Put              Op = 0x00
	DeleteAllVersion Op = 0x01
	DeleteOneVersion Op = 0x03
	Increment        Op = 0x04
)

// Value is one column value, without boxing. The zero Value is the integer 0.
type Value struct {
	kind Kind
	num  uint64 // integer, float bits, bool
	data string // view of a string or binary payload
}

// Cell is a primary key column or an attribute column of a row.
type Cell struct {
	Name         string
	Value        Value
	HasValue     bool
	Op           Op
	HasTimestamp bool
	Timestamp    int64 // ms
}

// Sequence is the place of a stream record in its channel.
type Sequence struct {
	Epoch     int32
	Timestamp int64 // µs since 1970
	RowIndex  int32
}

// Row is one decoded row.
type Row struct {
	PrimaryKey  []Cell
	Cells       []Cell
	Delete      bool
	HasSequence bool
	Sequence    Sequence
	KeyBytes    string // the primary key's bytes on the wire, a view
}
