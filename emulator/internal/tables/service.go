// Package tables answers the operations of Tablestore's table API from a store:
// protobuf in, protobuf out.
package tables

import (
	"sort"

	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/protoadapt"

	"github.com/watermill-ots/watermill-ots/emulator/internal/store"
	"github.com/watermill-ots/watermill-ots/emulator/internal/wire"
)

// Service is the table API. It has no state of its own and is safe for
// concurrent use.
type Service struct {
	store *store.Store
}

// New returns the table API over s.
func New(s *store.Store) *Service { return &Service{store: s} }

// operation decodes a request, acts and appends the encoded response to dst.
type operation func(s *Service, body, dst []byte) ([]byte, error)

// operations by the last element of the path.
var operations = map[string]operation{
	"CreateTable":              call((*Service).createTable),
	"ListTable":                call((*Service).listTable),
	"DescribeTable":            call((*Service).describeTable),
	"UpdateTable":              call((*Service).updateTable),
	"DeleteTable":              call((*Service).deleteTable),
	"PutRow":                   call((*Service).putRow),
	"UpdateRow":                call((*Service).updateRow),
	"DeleteRow":                call((*Service).deleteRow),
	"BatchWriteRow":            call((*Service).batchWriteRow),
	"GetRow":                   call((*Service).getRow),
	"BatchGetRow":              call((*Service).batchGetRow),
	"GetRange":                 call((*Service).getRange),
	"ComputeSplitPointsBySize": call((*Service).computeSplitPointsBySize),
}

// missing names the parts of the service that are not here, by operation.
var missing = map[string]string{
	"CreateIndex": "secondary indexes", "DropIndex": "secondary indexes",
	"Search": "search indexes", "CreateSearchIndex": "search indexes", "ListSearchIndex": "search indexes",
	"DescribeSearchIndex": "search indexes", "DeleteSearchIndex": "search indexes", "UpdateSearchIndex": "search indexes",
	"ParallelScan": "search indexes", "ComputeSplits": "search indexes",
	"SQLQuery":              "SQL",
	"StartLocalTransaction": "transactions", "CommitTransaction": "transactions", "AbortTransaction": "transactions",
	"CreateTimeseriesTable": "time series", "PutTimeseriesData": "time series", "GetTimeseriesData": "time series",
	"CreateDeliveryTask": "delivery tasks", "ListDeliveryTask": "delivery tasks",
	"ListStream": "stream API; tunnels read the stream", "DescribeStream": "stream API; tunnels read the stream",
	"GetShardIterator": "stream API; tunnels read the stream", "GetStreamRecord": "stream API; tunnels read the stream",
	"AddDefinedColumn": "changes of defined columns", "DeleteDefinedColumn": "changes of defined columns",
	"BulkImport": "bulk import", "BulkExport": "bulk export",
}

// Operations returns the names of all operations that are answered, sorted.
func Operations() []string {
	names := make([]string, 0, len(operations))
	for name := range operations {
		names = append(names, name)
	}
	sort.Strings(names)
	return names
}

// Handle answers one operation: it appends the response to dst. Every error is
// a *wire.Error.
func (s *Service) Handle(op string, body, dst []byte) ([]byte, error) {
	f, ok := operations[op]
	if !ok {
		if part, known := missing[op]; known {
			return dst, wire.Errorf(wire.CodeUnsupportOperation, "Unsupported operation: '%s': this emulator has no %s.", op, part)
		}
		return dst, wire.Errorf(wire.CodeUnsupportOperation, "Unsupported operation: '%.64s'.", op)
	}
	return f(s, body, dst)
}

// message is what call needs of a generated request type.
type message[T any] interface {
	*T
	protoadapt.MessageV1
}

// call turns a method over messages into an operation.
func call[Req any, PReq message[Req], Resp protoadapt.MessageV1](f func(*Service, PReq) (Resp, error)) operation {
	return func(s *Service, body, dst []byte) ([]byte, error) {
		req := PReq(new(Req))
		if err := proto.Unmarshal(body, protoadapt.MessageV2Of(req)); err != nil {
			return dst, wire.Invalid("Failed to parse the ProtoBuf message: %v.", err)
		}
		resp, err := f(s, req)
		if err != nil {
			return dst, err
		}
		dst, err = proto.MarshalOptions{}.MarshalAppend(dst, protoadapt.MessageV2Of(resp))
		if err != nil {
			return dst, wire.Errorf(wire.CodeInternalServerError, "encoding the response: %v", err)
		}
		return dst, nil
	}
}

// pointer returns a pointer to v, the form of optional fields.
func pointer[T any](v T) *T { return &v }

func noTransaction(id *string) error {
	if id == nil {
		return nil
	}
	return wire.Errorf(wire.CodeUnsupportOperation, "Unsupported operation: this emulator has no transactions.")
}
