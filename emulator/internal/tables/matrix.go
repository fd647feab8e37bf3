package tables

import (
	"encoding/binary"
	"math"
	"slices"

	pb "github.com/aliyun/aliyun-tablestore-go-sdk/tablestore/otsprotocol"

	"github.com/watermill-ots/watermill-ots/emulator/internal/store"
	"github.com/watermill-ots/watermill-ots/emulator/internal/wire"
	"github.com/watermill-ots/watermill-ots/internal/plainbuffer"
)

// matrix is the answer to a GetRange in the form of a row matrix: the names of
// the columns once, then the values of each row. All numbers are little-endian.
//
//	version, offset of the rows, offset of the options, key columns, other columns  int32 each
//	name of each column                 int16 length, bytes
//	options                             tag 10, whole keys (byte); tag 3, rows (int32)
//	rows                                tag 2, then a value of each column
//	end                                 tag 1, checksum (byte) of all bytes before it
//
// A value is its PlainBuffer type byte followed by its bytes, preceded by an
// int32 length if the length varies; a column that the row lacks has the type
// null. The format follows the SDKs' readers: matrix.go in the Go SDK,
// SimpleRowMatrixBlockParser.java.
type matrix struct {
	columns []string // key columns first
	keys    int
	whole   bool // whether all key columns are included
	rows    int
	data    []byte
}

const (
	matrixVersion = 0x304d5253

	matrixChecksum  = 1
	matrixRow       = 2
	matrixRows      = 3
	matrixWholeKeys = 10
)

// checkMatrix refuses a request for a matrix whose columns are not named: they
// have no fixed place. The text is that of the Java SDK's TestBulkExportFunciton.
func checkMatrix(req *pb.GetRangeRequest) error {
	if req.GetDataBlockTypeHint() == pb.DataBlockType_DBT_SIMPLE_ROW_MATRIX && len(req.GetColumnsToGet()) == 0 {
		return wire.Invalid("DBT_SIMPLE_ROW_MATRIX need at least one column to get.")
	}
	return nil
}

// newMatrix returns nil if the request does not ask for a matrix or cannot have
// one: a matrix has one version of each column.
func newMatrix(req *pb.GetRangeRequest, t *store.Table) *matrix {
	if req.GetDataBlockTypeHint() != pb.DataBlockType_DBT_SIMPLE_ROW_MATRIX || req.GetMaxVersions() != 1 {
		return nil
	}
	m := &matrix{whole: req.GetReturnEntirePrimaryKeys()}
	wanted := req.GetColumnsToGet()
	var isKey []string
	for _, c := range t.Schema().Key {
		isKey = append(isKey, c.Name)
		if m.whole || slices.Contains(wanted, c.Name) {
			m.columns = append(m.columns, c.Name)
		}
	}
	m.keys = len(m.columns)
	for _, name := range wanted {
		if !slices.Contains(isKey, name) && !slices.Contains(m.columns, name) {
			m.columns = append(m.columns, name)
		}
	}
	return m
}

// add appends a row whose key has the matrix's key columns.
func (m *matrix) add(row *plainbuffer.Row) {
	m.rows++
	m.data = append(m.data, matrixRow)
	for i := range row.PrimaryKey {
		m.data = appendMatrixValue(m.data, row.PrimaryKey[i].Value)
	}
	for _, name := range m.columns[m.keys:] {
		i := slices.IndexFunc(row.Cells, func(c plainbuffer.Cell) bool { return c.Name == name })
		if i < 0 {
			m.data = append(m.data, byte(plainbuffer.Null))
			continue
		}
		m.data = appendMatrixValue(m.data, row.Cells[i].Value)
	}
}

func appendMatrixValue(dst []byte, v plainbuffer.Value) []byte {
	dst = append(dst, byte(v.Kind()))
	switch v.Kind() {
	case plainbuffer.Integer:
		return binary.LittleEndian.AppendUint64(dst, uint64(v.Integer()))
	case plainbuffer.Double:
		return binary.LittleEndian.AppendUint64(dst, math.Float64bits(v.Double()))
	case plainbuffer.Boolean:
		if v.Boolean() {
			return append(dst, 1)
		}
		return append(dst, 0)
	default: // String, Binary: rows contain no other kinds
		dst = binary.LittleEndian.AppendUint32(dst, uint32(len(v.Str())))
		return append(dst, v.Str()...)
	}
}

// encode returns the block, even without rows.
func (m *matrix) encode() []byte {
	var names []byte
	for _, name := range m.columns {
		names = binary.LittleEndian.AppendUint16(names, uint16(len(name)))
		names = append(names, name...)
	}
	options := []byte{matrixWholeKeys, 0, matrixRows}
	if m.whole {
		options[1] = 1
	}
	options = binary.LittleEndian.AppendUint32(options, uint32(m.rows))
	const numbers = 5
	optionsAt := numbers*4 + len(names)
	var b []byte
	for _, n := range [numbers]int{matrixVersion, optionsAt + len(options), optionsAt, m.keys, len(m.columns) - m.keys} {
		b = binary.LittleEndian.AppendUint32(b, uint32(n))
	}
	b = slices.Concat(b, names, options, m.data, []byte{matrixChecksum})
	return append(b, crc8(b))
}

// crc8 is PlainBuffer's checksum: the polynomial x⁸+x²+x+1.
func crc8(b []byte) byte {
	var crc byte
	for _, c := range b {
		crc = crc8Table[crc^c]
	}
	return crc
}

var crc8Table = func() (table [256]byte) {
	for i := range table {
		crc := byte(i)
		for range 8 {
			carry := crc&0x80 != 0
			crc <<= 1
			if carry {
				crc ^= 0x07
			}
		}
		table[i] = crc
	}
	return table
}()
