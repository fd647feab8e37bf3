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
	maxRangeRows  = 5000    // scanned by one GetRange
	maxRangeBytes = 4 << 20 // scanned by one GetRange
	scanChunk     = 256     // rows read from the store at a time
)

// projection is the part of a row that a read wants.
type projection struct {
	columns     map[string]bool // nil: all
	start, end  string          // column names, end exclusive; empty: open
	from, to    int64           // cell timestamps, to exclusive
	maxVersions int
	filter      *filter.Filter
}

// reading is what all read messages have in common.
type reading interface {
	GetColumnsToGet() []string
	GetTimeRange() *pb.TimeRange
	GetMaxVersions() int32
	GetFilter() []byte
	GetStartColumn() string
	GetEndColumn() string
}

// newProjection makes the checks that need no table. noVersions is the
// service's message for a read that does not say which versions it wants.
func (r rules) newProjection(req reading, noVersions string) (*projection, error) {
	if err := r.wanted(req.GetColumnsToGet()); err != nil {
		return nil, err
	}
	p := &projection{start: req.GetStartColumn(), end: req.GetEndColumn(), to: math.MaxInt64, maxVersions: int(req.GetMaxVersions())}
	if names := req.GetColumnsToGet(); len(names) > 0 {
		p.columns = make(map[string]bool, len(names))
		for _, name := range names {
			p.columns[name] = true
		}
	}
	window := req.GetTimeRange()
	switch {
	case p.maxVersions < 0:
		return nil, wire.Invalid("Invalid max versions: %d. Reason: Max versions must be positive.", p.maxVersions)
	case window != nil && window.SpecificTime != nil && p.maxVersions > 0:
		return nil, wire.Invalid("Specific tiemstamp and max versions cannot be given at the same time.") // the service's spelling
	case window != nil && window.SpecificTime != nil && (window.StartTime != nil || window.EndTime != nil):
		return nil, wire.Invalid("Specific tiemstamp and time range cannot be given at the same time.")
	case window != nil && window.SpecificTime == nil && (window.StartTime == nil || window.EndTime == nil):
		return nil, wire.Invalid("Start and end time must be given at the same time.")
	case p.maxVersions == 0 && window == nil:
		return nil, wire.Invalid("%s", noVersions)
	case p.maxVersions == 0:
		p.maxVersions = math.MaxInt
	}
	if window != nil {
		if window.SpecificTime != nil {
			p.from, p.to = window.GetSpecificTime(), window.GetSpecificTime()+1
		} else {
			p.from, p.to = window.GetStartTime(), window.GetEndTime()
		}
		if p.from < 0 || p.to <= p.from {
			return nil, wire.Invalid("The time range [%d, %d) is empty or negative.", p.from, p.to)
		}
	}
	var err error
	if p.filter, err = r.filter("filter", req.GetFilter()); err != nil {
		return nil, err
	}
	return p, nil
}

// apply reduces the row in place and reports whether the response includes it:
// a filter sees the wanted columns only, and a row with none of the wanted
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

// trimKey drops primary key columns that are not wanted.
func (p *projection) trimKey(row *plainbuffer.Row) {
	row.PrimaryKey = slices.DeleteFunc(row.PrimaryKey, func(c plainbuffer.Cell) bool { return !p.columns[c.Name] })
}

// The service's messages for a read that does not say which versions it wants.
const (
	noVersions      = "No version condition is specified."
	noBatchVersions = "No version condition is specified while querying row."
)

// decodeKey decodes the primary key of a row to read, and makes the checks that
// need no table.
func decodeKey(b []byte) ([]plainbuffer.Cell, error) {
	var row plainbuffer.Row
	if err := decodeRow(b, &row); err != nil {
		return nil, wire.Invalid("Failed to parse the primary key: %v.", err)
	}
	for i := range row.PrimaryKey {
		if row.PrimaryKey[i].Value.Kind() == plainbuffer.AutoIncrement {
			return nil, wire.Invalid("PKAutoIncr can't be used for read operations.")
		}
	}
	return row.PrimaryKey, store.CheckKey(row.PrimaryKey, false)
}

// readRow returns one row as a PlainBuffer, which is empty if the row does not
// exist or is filtered out, and how much data was read.
func readRow(t store.View, key []plainbuffer.Cell, p *projection) (b []byte, size int, err error) {
	var row plainbuffer.Row
	found, err := t.Get(key, &row)
	if err != nil || !found {
		return []byte{}, 0, err
	}
	if !p.apply(&row) {
		return []byte{}, dataSize(&row), nil
	}
	return plainbuffer.AppendRow(plainbuffer.AppendHeader(nil), &row), dataSize(&row), nil
}

func (s *Service) getRow(req *pb.GetRowRequest) (*pb.GetRowResponse, error) {
	if err := store.CheckTableName(req.GetTableName()); err != nil {
		return nil, err
	}
	p, err := s.rules.newProjection(req, noVersions)
	if err != nil {
		return nil, err
	}
	key, err := decodeKey(req.GetPrimaryKey())
	if err != nil {
		return nil, err
	}
	t, err := s.store.Table(req.GetTableName())
	if err != nil {
		return nil, err
	}
	var row []byte
	var size int
	err = s.view(t, req.TransactionId, func(v store.View) error {
		row, size, err = readRow(v, key, p)
		return err
	})
	if err != nil {
		return nil, err
	}
	return &pb.GetRowResponse{Consumed: consumed(units(size), 0), Row: row}, nil
}

func (s *Service) batchGetRow(req *pb.BatchGetRowRequest) (*pb.BatchGetRowResponse, error) {
	if err := s.rules.batchGet(req.GetTables()); err != nil {
		return nil, err
	}
	wanted := make([]*batchedTable, len(req.GetTables()))
	for i, table := range req.GetTables() {
		var err error
		if wanted[i], err = s.rules.newBatchedTable(table); err != nil {
			return nil, err
		}
	}
	for i, table := range req.GetTables() {
		var err error
		if wanted[i].table, err = s.store.Table(table.GetTableName()); err != nil {
			return nil, err
		}
	}
	resp := &pb.BatchGetRowResponse{}
	for i, table := range req.GetTables() {
		answer := &pb.TableInBatchGetRowResponse{TableName: table.TableName}
		for _, key := range wanted[i].keys {
			row, size, err := readRow(wanted[i].table, key, wanted[i].projection)
			if err != nil {
				answer.Rows = append(answer.Rows, &pb.RowInBatchGetRowResponse{IsOk: pointer(false), Error: rowError(err)})
				continue
			}
			answer.Rows = append(answer.Rows, &pb.RowInBatchGetRowResponse{IsOk: pointer(true), Consumed: consumed(units(size), 0), Row: row})
		}
		resp.Tables = append(resp.Tables, answer)
	}
	return resp, nil
}

// batchedTable is the part of a BatchGetRow about one table.
type batchedTable struct {
	table      *store.Table
	projection *projection
	keys       [][]plainbuffer.Cell
}

// newBatchedTable makes the checks that need no table.
func (r rules) newBatchedTable(msg *pb.TableInBatchGetRowRequest) (*batchedTable, error) {
	b := &batchedTable{}
	var err error
	if b.projection, err = r.newProjection(msg, noBatchVersions); err != nil {
		return nil, err
	}
	for _, encoded := range msg.GetPrimaryKey() {
		key, err := decodeKey(encoded)
		if err != nil {
			return nil, err
		}
		b.keys = append(b.keys, key)
	}
	return b, r.distinctKeys(b.keys)
}

func (s *Service) getRange(req *pb.GetRangeRequest) (*pb.GetRangeResponse, error) {
	if err := store.CheckTableName(req.GetTableName()); err != nil {
		return nil, err
	}
	p, err := s.rules.newProjection(req, noVersions)
	if err != nil {
		return nil, err
	}
	if err := checkMatrix(req); err != nil {
		return nil, err
	}
	limit := maxRangeRows
	if req.Limit != nil {
		if req.GetLimit() < 1 {
			return nil, wire.Invalid("The limit must be greater than 0.")
		}
		limit = min(limit, int(req.GetLimit()))
	}
	from, err := decodeBound(req.GetInclusiveStartPrimaryKey())
	if err != nil {
		return nil, err
	}
	to, err := decodeBound(req.GetExclusiveEndPrimaryKey())
	if err != nil {
		return nil, err
	}
	t, err := s.store.Table(req.GetTableName())
	if err != nil {
		return nil, err
	}
	start, err := orderedBound(t, from)
	if err != nil {
		return nil, err
	}
	end, err := orderedBound(t, to)
	if err != nil {
		return nil, err
	}
	backward := req.GetDirection() == pb.Direction_BACKWARD
	switch order := bytes.Compare(start, end); {
	case order >= 0 && !backward:
		return nil, wire.Invalid("Begin key must less than end key in FORWARD")
	case order <= 0 && backward:
		return nil, wire.Invalid("Begin key must more than end key in BACKWARD")
	}
	r := rangeReader{
		table: t, projection: p, limit: limit, rows: []byte{},
		bareKeys: !req.GetReturnEntirePrimaryKeys() && p.columns != nil,
		matrix:   newMatrix(req, t),
	}
	err = s.view(t, req.TransactionId, func(v store.View) error {
		r.rowsOf = v
		return r.read(start, end, backward)
	})
	if err != nil {
		return nil, err
	}
	resp := &pb.GetRangeResponse{
		Consumed:            consumed(units(r.scannedBytes), 0),
		Rows:                r.rows,
		NextStartPrimaryKey: r.next,
		DataBlockType:       pointer(pb.DataBlockType_DBT_PLAIN_BUFFER),
		CompressType:        pointer(pb.CompressType_CPT_NONE),
	}
	if r.matrix != nil {
		resp.Rows, resp.DataBlockType = r.matrix.encode(), pointer(pb.DataBlockType_DBT_SIMPLE_ROW_MATRIX)
	}
	return resp, nil
}

// decodeBound decodes an end of a range, and makes the checks that need no
// table.
func decodeBound(b []byte) ([]plainbuffer.Cell, error) {
	var row plainbuffer.Row
	if err := decodeRow(b, &row); err != nil {
		return nil, wire.Invalid("Failed to parse the primary key of a range: %v.", err)
	}
	return row.PrimaryKey, store.CheckKey(row.PrimaryKey, true)
}

// orderedBound converts an end of a range to an ordered key of the table.
func orderedBound(t *store.Table, key []plainbuffer.Cell) ([]byte, error) {
	schema := t.Schema()
	if err := schema.CheckKey(key, true, false); err != nil {
		return nil, err
	}
	return plainbuffer.AppendOrderedKey(nil, key), nil
}

// rangeReader collects the response to one GetRange.
type rangeReader struct {
	table      *store.Table
	rowsOf     store.View // the table, or a transaction's view of it
	projection *projection
	limit      int
	bareKeys   bool // whether only wanted columns of the primary key are returned, too

	rows         []byte  // header and rows; empty if there are none
	matrix       *matrix // receives the rows instead, unless it is nil
	count        int
	scanned      int
	scannedBytes int
	next         []byte // primary key at which to continue; nil at the end
}

func (r *rangeReader) read(start, end []byte, backward bool) error {
	var chunk [][]byte
	var row plainbuffer.Row
	for {
		var next []byte
		var err error
		chunk, next, err = r.rowsOf.Scan(chunk[:0], start, end, backward, scanChunk)
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
			r.scannedBytes += dataSize(&row)
			if !alive || !r.projection.apply(&row) {
				continue
			}
			if r.bareKeys {
				r.projection.trimKey(&row)
			}
			r.add(&row)
		}
		if next == nil {
			return nil
		}
		start = next
	}
}

func (r *rangeReader) add(row *plainbuffer.Row) {
	switch {
	case r.matrix != nil:
		r.matrix.add(row)
	case r.count == 0:
		r.rows = plainbuffer.AppendHeader(r.rows)
		fallthrough
	default:
		r.rows = plainbuffer.AppendRow(r.rows, row)
	}
	r.count++
}

func (r *rangeReader) full() bool {
	return r.count >= r.limit || r.scanned >= maxRangeRows || r.scannedBytes >= maxRangeBytes
}
