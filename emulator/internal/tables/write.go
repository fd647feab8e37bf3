package tables

import (
	"errors"
	"slices"

	pb "github.com/aliyun/aliyun-tablestore-go-sdk/tablestore/otsprotocol"

	"github.com/watermill-ots/watermill-ots/emulator/internal/store"
	"github.com/watermill-ots/watermill-ots/emulator/internal/wire"
	"github.com/watermill-ots/watermill-ots/internal/plainbuffer"
)

// change is a write of one row as requests contain it.
type change struct {
	store.Change
	returns pb.ReturnType
	size    int // bytes of data in the request, for capacity units
	limited int // bytes that count towards the maximum size of a request
}

// newChange decodes a write and makes the checks that need no table. The row
// contains views of b, a field that protobuf has copied from the request.
func (r rules) newChange(action store.Action, b []byte, condition *pb.Condition, returns *pb.ReturnContent) (*change, error) {
	c := &change{returns: returns.GetReturnType()}
	c.Action = action
	c.Row = new(plainbuffer.Row)
	if err := decodeRow(b, c.Row); err != nil {
		return nil, wire.Invalid("Failed to parse the row: %v.", err)
	}
	switch deletes := action == store.DeleteRow; {
	case c.Row.Delete && !deletes:
		return nil, wire.Invalid("Invalid request of put/update row: unexpected RowDeleteMarker in request.")
	case !c.Row.Delete && deletes:
		return nil, wire.Invalid("Invalid request of delete row: missing RowDeleteMarker in request.")
	case deletes && c.numbered():
		return nil, wire.Invalid("Invalid row to delete which with pk auto increment.")
	}
	if err := r.row(c.Row, action == store.UpdateRow); err != nil {
		return nil, err
	}
	if err := r.returned(c.Row, returns); err != nil {
		return nil, err
	}
	c.size = dataSize(c.Row)
	c.limited = c.size + versionsSize(c.Row)
	var err error
	if c.Condition, err = r.filter("column condition", condition.GetColumnCondition()); err != nil {
		return nil, err
	}
	switch c.Expect = store.Existence(condition.GetRowExistence()); c.Expect {
	case store.Ignore, store.ExpectExist, store.ExpectNotExist:
	default:
		return nil, wire.Invalid("Invalid row-existence expectation: %d.", c.Expect)
	}
	if c.returns == pb.ReturnType_RT_AFTER_MODIFY {
		c.Return = returns.GetReturnColumnNames()
	}
	return c, nil
}

// row returns what the response says about the row, or nil for nothing.
func (c *change) row() []byte {
	switch c.returns {
	case pb.ReturnType_RT_PK:
		return plainbuffer.AppendPrimaryKey(nil, c.Row.PrimaryKey)
	case pb.ReturnType_RT_AFTER_MODIFY:
		if len(c.After) == 0 {
			return nil
		}
		return keylessRow(c.After)
	}
	return nil
}

// consumed returns the capacity units of a write, which reads only if it has a
// condition.
func (c *change) consumed() *pb.ConsumedCapacity {
	read := int32(0)
	if c.Expect != store.Ignore || c.Condition != nil {
		read = 1
	}
	return consumed(read, units(c.size))
}

// units returns the number of capacity units for size bytes.
func units(size int) int32 { return int32(max(1, (size+4095)/4096)) }

func consumed(read, write int32) *pb.ConsumedCapacity {
	return &pb.ConsumedCapacity{CapacityUnit: &pb.CapacityUnit{Read: &read, Write: &write}}
}

// write makes one change.
func (s *Service) write(operation, table string, action store.Action, b []byte, condition *pb.Condition, returns *pb.ReturnContent, txn *string) (*change, error) {
	if err := store.CheckTableName(table); err != nil {
		return nil, err
	}
	c, err := s.rules.newChange(action, b, condition, returns)
	if err != nil {
		return nil, err
	}
	if err := s.rules.writeSize(operation, c.limited); err != nil {
		return nil, err
	}
	t, err := s.store.Table(table)
	if err != nil {
		return nil, err
	}
	if err := s.apply(t, []*store.Change{&c.Change}, c.limited, false, txn); err != nil {
		return nil, err
	}
	return c, c.Err
}

func (s *Service) putRow(req *pb.PutRowRequest) (*pb.PutRowResponse, error) {
	c, err := s.write("PutRow", req.GetTableName(), store.PutRow, req.GetRow(), req.GetCondition(), req.GetReturnContent(), req.TransactionId)
	if err != nil {
		return nil, err
	}
	return &pb.PutRowResponse{Consumed: c.consumed(), Row: c.row()}, nil
}

func (s *Service) updateRow(req *pb.UpdateRowRequest) (*pb.UpdateRowResponse, error) {
	c, err := s.write("UpdateRow", req.GetTableName(), store.UpdateRow, req.GetRowChange(), req.GetCondition(), req.GetReturnContent(), req.TransactionId)
	if err != nil {
		return nil, err
	}
	return &pb.UpdateRowResponse{Consumed: c.consumed(), Row: c.row()}, nil
}

func (s *Service) deleteRow(req *pb.DeleteRowRequest) (*pb.DeleteRowResponse, error) {
	c, err := s.write("DeleteRow", req.GetTableName(), store.DeleteRow, req.GetPrimaryKey(), req.GetCondition(), req.GetReturnContent(), req.TransactionId)
	if err != nil {
		return nil, err
	}
	return &pb.DeleteRowResponse{Consumed: c.consumed(), Row: c.row()}, nil
}

var actions = map[pb.OperationType]store.Action{
	pb.OperationType_PUT:    store.PutRow,
	pb.OperationType_UPDATE: store.UpdateRow,
	pb.OperationType_DELETE: store.DeleteRow,
}

func (s *Service) batchWriteRow(req *pb.BatchWriteRowRequest) (*pb.BatchWriteRowResponse, error) {
	if err := s.rules.batchWrite(req.GetTables()); err != nil {
		return nil, err
	}
	// Everything is decoded and checked before anything is written.
	batches := make([][]*change, len(req.GetTables()))
	size := 0
	for i, table := range req.GetTables() {
		for _, row := range table.GetRows() {
			action, ok := actions[row.GetType()]
			if !ok {
				return nil, wire.Invalid("The type of row in batch write operation is invalid.")
			}
			c, err := s.rules.newChange(action, row.GetRowChange(), row.GetCondition(), row.GetReturnContent())
			if err != nil {
				return nil, err
			}
			size += c.limited
			batches[i] = append(batches[i], c)
		}
		if err := s.rules.distinct(batches[i], req.GetIsAtomic()); err != nil {
			return nil, err
		}
	}
	if err := s.rules.writeSize("BatchWriteRow", size); err != nil {
		return nil, err
	}
	if req.TransactionId != nil && len(batches) > 1 {
		return nil, wire.Errorf(wire.CodeDataOutOfRange, "Data out of scope of transaction. The request writes to several tables.")
	}
	found := make([]*store.Table, len(batches))
	for i, table := range req.GetTables() {
		var err error
		if found[i], err = s.store.Table(table.GetTableName()); err != nil {
			return nil, err
		}
	}
	// Results are matched to requests by position.
	resp := &pb.BatchWriteRowResponse{}
	for i, table := range req.GetTables() {
		if err := s.writeBatch(found[i], batches[i], size, req.GetIsAtomic(), req.TransactionId); err != nil {
			return nil, err
		}
		answer := &pb.TableInBatchWriteRowResponse{TableName: table.TableName}
		for _, c := range batches[i] {
			answer.Rows = append(answer.Rows, c.answer())
		}
		resp.Tables = append(resp.Tables, answer)
	}
	return resp, nil
}

// writeBatch makes the changes of one table and stores each outcome in its
// change. An atomic batch is atomic for each table. If the transaction cannot
// be used, the request fails.
func (s *Service) writeBatch(t *store.Table, batch []*change, size int, atomic bool, txn *string) error {
	changes := make([]*store.Change, len(batch))
	for i, c := range batch {
		changes[i] = &c.Change
	}
	err := s.apply(t, changes, size, atomic, txn)
	refused := slices.ContainsFunc(changes, func(c *store.Change) bool { return c.Err != nil })
	if err != nil && txn != nil && !refused {
		return err
	}
	if err != nil {
		for _, c := range batch {
			c.Err = err
		}
	}
	return nil
}

func (c *change) answer() *pb.RowInBatchWriteRowResponse {
	if c.Err != nil {
		return &pb.RowInBatchWriteRowResponse{IsOk: pointer(false), Error: rowError(c.Err)}
	}
	return &pb.RowInBatchWriteRowResponse{IsOk: pointer(true), Consumed: c.consumed(), Row: c.row()}
}

// rowError converts an error for a batch's response. The Go SDK reads the
// message without a nil check.
func rowError(err error) *pb.Error {
	var e *wire.Error
	if !errors.As(err, &e) {
		e = wire.Errorf(wire.CodeInternalServerError, "%v", err)
	}
	return &pb.Error{Code: &e.Code, Message: &e.Message}
}
