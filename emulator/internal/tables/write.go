package tables

import (
	"errors"

	pb "github.com/aliyun/aliyun-tablestore-go-sdk/tablestore/otsprotocol"

	"github.com/watermill-ots/watermill-ots/emulator/internal/filter"
	"github.com/watermill-ots/watermill-ots/emulator/internal/store"
	"github.com/watermill-ots/watermill-ots/emulator/internal/wire"
	"github.com/watermill-ots/watermill-ots/internal/plainbuffer"
)

// maxBatchWrite is the documented number of rows in a BatchWriteRow.
const maxBatchWrite = 200

// change is a write of one row as the requests carry it.
type change struct {
	store.Change
	returns pb.ReturnType
}

// newChange decodes a write. The row keeps views of b.
func newChange(action store.Action, b []byte, condition *pb.Condition, returns *pb.ReturnContent) (*change, error) {
	c := &change{returns: returns.GetReturnType()}
	c.Action = action
	c.Row = new(plainbuffer.Row)
	if err := decodeRow(b, c.Row); err != nil {
		return nil, wire.Invalid("Failed to parse the row: %v.", err)
	}
	if c.Row.Delete && action != store.DeleteRow {
		return nil, wire.Invalid("The row has a delete marker, which only DeleteRow may have.")
	}
	var err error
	if c.Condition, err = filter.Parse(condition.GetColumnCondition()); err != nil {
		return nil, wire.Invalid("Invalid column condition: %v.", err)
	}
	switch c.Expect = store.Existence(condition.GetRowExistence()); c.Expect {
	case store.Ignore, store.ExpectExist, store.ExpectNotExist:
	default:
		return nil, wire.Invalid("Unknown row existence expectation %d.", c.Expect)
	}
	if c.returns == pb.ReturnType_RT_AFTER_MODIFY {
		c.Return = returns.GetReturnColumnNames()
	}
	return c, nil
}

// row returns what the response says about the row; nil for nothing.
func (c *change) row() []byte {
	switch c.returns {
	case pb.ReturnType_RT_PK:
		return plainbuffer.AppendPrimaryKey(nil, c.Row.PrimaryKey)
	case pb.ReturnType_RT_AFTER_MODIFY:
		return plainbuffer.AppendRow(plainbuffer.AppendHeader(nil), &plainbuffer.Row{Cells: c.After})
	}
	return nil
}

// consumed returns the capacity units of a write: reading comes with a
// condition only.
func (c *change) consumed() *pb.ConsumedCapacity {
	read := int32(0)
	if c.Expect != store.Ignore || c.Condition != nil {
		read = 1
	}
	return consumed(read, units(c.Size))
}

// units is the number of capacity units for so many bytes.
func units(size int) int32 { return int32(max(1, (size+4095)/4096)) }

func consumed(read, write int32) *pb.ConsumedCapacity {
	return &pb.ConsumedCapacity{CapacityUnit: &pb.CapacityUnit{Read: &read, Write: &write}}
}

// write makes one change.
func (s *Service) write(table string, action store.Action, b []byte, condition *pb.Condition, returns *pb.ReturnContent, txn *string) (*change, error) {
	if err := noTransaction(txn); err != nil {
		return nil, err
	}
	t, err := s.store.Table(table)
	if err != nil {
		return nil, err
	}
	c, err := newChange(action, b, condition, returns)
	if err != nil {
		return nil, err
	}
	if err := t.Apply([]*store.Change{&c.Change}, false); err != nil {
		return nil, err
	}
	return c, c.Err
}

func (s *Service) putRow(req *pb.PutRowRequest) (*pb.PutRowResponse, error) {
	c, err := s.write(req.GetTableName(), store.PutRow, req.GetRow(), req.GetCondition(), req.GetReturnContent(), req.TransactionId)
	if err != nil {
		return nil, err
	}
	return &pb.PutRowResponse{Consumed: c.consumed(), Row: c.row()}, nil
}

func (s *Service) updateRow(req *pb.UpdateRowRequest) (*pb.UpdateRowResponse, error) {
	c, err := s.write(req.GetTableName(), store.UpdateRow, req.GetRowChange(), req.GetCondition(), req.GetReturnContent(), req.TransactionId)
	if err != nil {
		return nil, err
	}
	return &pb.UpdateRowResponse{Consumed: c.consumed(), Row: c.row()}, nil
}

func (s *Service) deleteRow(req *pb.DeleteRowRequest) (*pb.DeleteRowResponse, error) {
	c, err := s.write(req.GetTableName(), store.DeleteRow, req.GetPrimaryKey(), req.GetCondition(), req.GetReturnContent(), req.TransactionId)
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
	if err := noTransaction(req.TransactionId); err != nil {
		return nil, err
	}
	rows := 0
	for _, table := range req.GetTables() {
		rows += len(table.GetRows())
	}
	if rows < 1 || rows > maxBatchWrite {
		return nil, wire.Invalid("Rows count exceeds the upper limit or is zero: %d of at most %d.", rows, maxBatchWrite)
	}
	if req.GetIsAtomic() && len(req.GetTables()) > 1 {
		return nil, wire.Invalid("An atomic batch must have one table.")
	}
	// Everything is decoded before anything is written.
	batches := make([][]*change, len(req.GetTables()))
	for i, table := range req.GetTables() {
		for _, row := range table.GetRows() {
			action, ok := actions[row.GetType()]
			if !ok {
				return nil, wire.Invalid("Unknown operation type %d.", row.GetType())
			}
			c, err := newChange(action, row.GetRowChange(), row.GetCondition(), row.GetReturnContent())
			if err != nil {
				return nil, err
			}
			batches[i] = append(batches[i], c)
		}
	}
	// Answers are matched to requests by position.
	resp := &pb.BatchWriteRowResponse{}
	for i, table := range req.GetTables() {
		s.writeBatch(table.GetTableName(), batches[i], req.GetIsAtomic())
		answer := &pb.TableInBatchWriteRowResponse{TableName: table.TableName}
		for _, c := range batches[i] {
			answer.Rows = append(answer.Rows, c.answer())
		}
		resp.Tables = append(resp.Tables, answer)
	}
	return resp, nil
}

// writeBatch makes the changes of one table and leaves each outcome in it.
func (s *Service) writeBatch(table string, batch []*change, atomic bool) {
	changes := make([]*store.Change, len(batch))
	for i, c := range batch {
		changes[i] = &c.Change
	}
	t, err := s.store.Table(table)
	if err == nil {
		err = t.Apply(changes, atomic)
	}
	if err != nil {
		for _, c := range batch {
			c.Err = err
		}
	}
}

func (c *change) answer() *pb.RowInBatchWriteRowResponse {
	if c.Err != nil {
		return &pb.RowInBatchWriteRowResponse{IsOk: pointer(false), Error: rowError(c.Err)}
	}
	return &pb.RowInBatchWriteRowResponse{IsOk: pointer(true), Consumed: c.consumed(), Row: c.row()}
}

// rowError is the form of an error inside a batch's answer. The Go SDK reads
// the message without a nil check.
func rowError(err error) *pb.Error {
	var e *wire.Error
	if !errors.As(err, &e) {
		e = wire.Errorf(wire.CodeInternalServerError, "%v", err)
	}
	return &pb.Error{Code: &e.Code, Message: &e.Message}
}
