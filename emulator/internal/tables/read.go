package tables

import (
	"bytes"
	"math"
	"slices"

	pb "github.com/aliyun/aliyun-tablestore-go-sdk/tablestore/otsprotocol"

	"github.com/watermill-ots/watermill-ots/emulator/internal/filter"
	"github.com/watermill-ots/watermill-ots/emulator/internal/store"
	"github.com/watermill-ots/watermill-ots/emulator/internal/wire"
	"github.com/watermill-ots/watermill-ots/internal/plainbuffer"
)

// Documented limits of reads.
const (
	maxBatchGet   = 100
	maxRangeRows  = 5000    // scanned by one GetRange
	maxRangeBytes = 4 << 20 // scanned by one GetRange
	scanChunk     = 256     // rows taken from the store at a time
)

// projection says which parts of a row a read wants.
type projection struct {
	columns     map[string]bool // nil: all
	start, end  string          // column names, end exclusive; empty: open
	from, to    int64           // cell timestamps, to exclusive
	maxVersions int
	filter      *filter.Filter
}

// reading is what the messages of all reads have in common.
type reading interface {
	GetColumnsToGet() []string
	GetTimeRange() *pb.TimeRange
	GetMaxVersions() int32
	GetFilter() []byte
	GetStartColumn() string
	GetEndColumn() string
}

func newProjection(r reading) (*projection, error) {
	p := &projection{start: r.GetStartColumn(), end: r.GetEndColumn(), to: math.MaxInt64, maxVersions: int(r.GetMaxVersions())}
	if names := r.GetColumnsToGet(); len(names) > 0 {
		p.columns = make(map[string]bool, len(names))
		for _, name := range names {
			p.columns[name] = true
		}
	}
	window := r.GetTimeRange()
	switch {
	case p.maxVersions < 0:
		return nil, wire.Invalid("The max versions must be positive, got %d.", p.maxVersions)
	case p.maxVersions == 0 && window == nil:
		return nil, wire.Invalid("No version condition is specified while querying row.")
	case p.maxVersions == 0:
		p.maxVersions = math.MaxInt
	}
	if window != nil {
		if window.SpecificTime != nil {
			p.from, p.to = window.GetSpecificTime(), window.GetSpecificTime()+1
		} else {
			p.from = window.GetStartTime()
			if window.EndTime != nil {
				p.to = window.GetEndTime()
			}
		}
		if p.from < 0 || p.to <= p.from {
			return nil, wire.Invalid("The time range [%d, %d) is empty or negative.", p.from, p.to)
		}
	}
	var err error
	if p.filter, err = filter.Parse(r.GetFilter()); err != nil {
		return nil, wire.Invalid("Invalid filter: %v.", err)
	}
	return p, nil
}

// apply reduces the row in place and reports whether the answer holds it: a
// filter sees the wanted columns only, and a row with none of the wanted
// columns is left out unless a primary key column is wanted too.
func (p *projection) apply(row *plainbuffer.Row) bool {
	kept := row.Cells[:0]
	versions := 0
	last := ""
	for i := range row.Cells {
		c := row.Cells[i]
		if i == 0 || c.Name != last {
			versions, last = 0, c.Name
		}
		if c.Timestamp < p.from || c.Timestamp >= p.to || versions >= p.maxVersions {
			continue
		}
		versions++
		if p.wants(c.Name) {
			kept = append(kept, c)
		}
	}
	row.Cells = kept
	if len(kept) == 0 && p.columns != nil && !p.wantsKey(row) {
		return false
	}
	if !p.filter.Match(row) {
		return false
	}
	row.Cells = p.filter.Paginate(row.Cells)
	return true
}

func (p *projection) wants(name string) bool {
	if p.columns != nil && !p.columns[name] {
		return false
	}
	return name >= p.start && (p.end == "" || name < p.end)
}

func (p *projection) wantsKey(row *plainbuffer.Row) bool {
	for i := range row.PrimaryKey {
		if p.columns[row.PrimaryKey[i].Name] {
			return true
		}
	}
	return false
}

// trimKey drops primary key columns that are not wanted by name.
func (p *projection) trimKey(row *plainbuffer.Row) {
	row.PrimaryKey = slices.DeleteFunc(row.PrimaryKey, func(c plainbuffer.Cell) bool { return !p.columns[c.Name] })
}

// readRow returns one row as a PlainBuffer, which is empty when the row is not
// there or filtered out.
func readRow(t *store.Table, key []byte, p *projection) ([]byte, error) {
	var row plainbuffer.Row
	if err := decodeRow(key, &row); err != nil {
		return nil, wire.Invalid("Failed to parse the primary key: %v.", err)
	}
	found, err := t.Get(row.PrimaryKey, &row)
	if err != nil || !found || !p.apply(&row) {
		return []byte{}, err
	}
	return plainbuffer.AppendRow(plainbuffer.AppendHeader(nil), &row), nil
}

func (s *Service) getRow(req *pb.GetRowRequest) (*pb.GetRowResponse, error) {
	if err := noTransaction(req.TransactionId); err != nil {
		return nil, err
	}
	t, err := s.store.Table(req.GetTableName())
	if err != nil {
		return nil, err
	}
	p, err := newProjection(req)
	if err != nil {
		return nil, err
	}
	row, err := readRow(t, req.GetPrimaryKey(), p)
	if err != nil {
		return nil, err
	}
	return &pb.GetRowResponse{Consumed: consumed(units(len(row)), 0), Row: row}, nil
}

func (s *Service) batchGetRow(req *pb.BatchGetRowRequest) (*pb.BatchGetRowResponse, error) {
	rows := 0
	for _, table := range req.GetTables() {
		rows += len(table.GetPrimaryKey())
	}
	if rows < 1 || rows > maxBatchGet {
		return nil, wire.Invalid("Rows count exceeds the upper limit or is zero: %d of at most %d.", rows, maxBatchGet)
	}
	resp := &pb.BatchGetRowResponse{}
	for _, table := range req.GetTables() {
		p, err := newProjection(table)
		if err != nil {
			return nil, err
		}
		answer := &pb.TableInBatchGetRowResponse{TableName: table.TableName}
		t, tableErr := s.store.Table(table.GetTableName())
		for _, key := range table.GetPrimaryKey() {
			var row []byte
			err := tableErr
			if err == nil {
				row, err = readRow(t, key, p)
			}
			if err != nil {
				answer.Rows = append(answer.Rows, &pb.RowInBatchGetRowResponse{IsOk: pointer(false), Error: rowError(err)})
				continue
			}
			answer.Rows = append(answer.Rows, &pb.RowInBatchGetRowResponse{IsOk: pointer(true), Consumed: consumed(units(len(row)), 0), Row: row})
		}
		resp.Tables = append(resp.Tables, answer)
	}
	return resp, nil
}

func (s *Service) getRange(req *pb.GetRangeRequest) (*pb.GetRangeResponse, error) {
	if err := noTransaction(req.TransactionId); err != nil {
		return nil, err
	}
	t, err := s.store.Table(req.GetTableName())
	if err != nil {
		return nil, err
	}
	p, err := newProjection(req)
	if err != nil {
		return nil, err
	}
	start, err := bound(t, req.GetInclusiveStartPrimaryKey())
	if err != nil {
		return nil, err
	}
	end, err := bound(t, req.GetExclusiveEndPrimaryKey())
	if err != nil {
		return nil, err
	}
	backward := req.GetDirection() == pb.Direction_BACKWARD
	if order := bytes.Compare(start, end); order > 0 && !backward || order < 0 && backward {
		return nil, wire.Invalid("The start key must be before the end key in the direction of reading.")
	}
	limit := maxRangeRows
	if req.Limit != nil {
		if req.GetLimit() < 0 {
			return nil, wire.Invalid("The limit must be greater than 0, got %d.", req.GetLimit())
		}
		if n := int(req.GetLimit()); n > 0 && n < limit { // the SDKs send 0 for "no limit"
			limit = n
		}
	}
	r := rangeReader{
		table: t, projection: p, limit: limit, rows: []byte{},
		bareKeys: !req.GetReturnEntirePrimaryKeys() && p.columns != nil,
	}
	if err := r.read(start, end, backward); err != nil {
		return nil, err
	}
	return &pb.GetRangeResponse{
		Consumed:            consumed(units(r.scannedBytes), 0),
		Rows:                r.rows,
		NextStartPrimaryKey: r.next,
		DataBlockType:       pointer(pb.DataBlockType_DBT_PLAIN_BUFFER),
		CompressType:        pointer(pb.CompressType_CPT_NONE),
	}, nil
}

// bound decodes an end of a range into an ordered key.
func bound(t *store.Table, b []byte) ([]byte, error) {
	var row plainbuffer.Row
	if err := decodeRow(b, &row); err != nil {
		return nil, wire.Invalid("Failed to parse the primary key of a range: %v.", err)
	}
	schema := t.Schema()
	if err := schema.CheckKey(row.PrimaryKey, true, false); err != nil {
		return nil, err
	}
	return plainbuffer.AppendOrderedKey(nil, row.PrimaryKey), nil
}

// rangeReader collects the answer to one GetRange.
type rangeReader struct {
	table      *store.Table
	projection *projection
	limit      int
	bareKeys   bool // of the primary key, too, only wanted columns are returned

	rows         []byte // header and rows; empty when there is none
	count        int
	scanned      int
	scannedBytes int
	next         []byte // primary key to go on from; nil at the end
}

func (r *rangeReader) read(start, end []byte, backward bool) error {
	var chunk [][]byte
	var row plainbuffer.Row
	for {
		var next []byte
		var err error
		chunk, next, err = r.table.Scan(chunk[:0], start, end, backward, scanChunk)
		if err != nil {
			return err
		}
		for _, b := range chunk {
			alive, err := r.table.Live(b, &row)
			if err != nil {
				return err
			}
			if r.full() {
				r.next = plainbuffer.AppendPrimaryKey(nil, row.PrimaryKey)
				return nil
			}
			r.scanned++
			r.scannedBytes += len(b)
			if !alive || !r.projection.apply(&row) {
				continue
			}
			if r.bareKeys {
				r.projection.trimKey(&row)
			}
			if r.count == 0 {
				r.rows = plainbuffer.AppendHeader(r.rows)
			}
			r.rows = plainbuffer.AppendRow(r.rows, &row)
			r.count++
		}
		if next == nil {
			return nil
		}
		start = next
	}
}

func (r *rangeReader) full() bool {
	return r.count >= r.limit || r.scanned >= maxRangeRows || r.scannedBytes >= maxRangeBytes
}
