// Package tables implements the operations of Tablestore's table API on a
// store: protobuf in, protobuf out.
package tables

import (
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/protoadapt"

	"github.com/watermill-ots/watermill-ots/emulator/internal/store"
	"github.com/watermill-ots/watermill-ots/emulator/internal/wire"
)

// Service is the table API. It has no state of its own and is safe for
// concurrent use.
type Service struct {
	store *store.Store
	rules rules
}

// New returns the table API for s. If lenient is set, it accepts what an
// official SDK's tests send against the documentation.
func New(s *store.Store, lenient bool) *Service {
	return &Service{store: s, rules: rules{lenient: lenient}}
}

// operation decodes a request, executes it and appends the encoded response to
// dst.
type operation func(s *Service, body, dst []byte) ([]byte, error)

// operations are the operations by the last element of their path.
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
	"ListStream":               call((*Service).listStream),
	"DescribeStream":           call((*Service).describeStream),
	"GetShardIterator":         call((*Service).getShardIterator),
	"GetStreamRecord":          (*Service).getStreamRecord,
	"AddDefinedColumn":         call((*Service).addDefinedColumn),
	"DeleteDefinedColumn":      call((*Service).deleteDefinedColumn),
	"ListSearchIndex":          call((*Service).listSearchIndex),
	"ListTimeseriesTable":      call((*Service).listTimeseriesTable),
	"CreateIndex":              call((*Service).createIndex),
	"DropIndex":                call((*Service).dropIndex),
	"StartLocalTransaction":    call((*Service).startLocalTransaction),
	"CommitTransaction":        call((*Service).commitTransaction),
	"AbortTransaction":         call((*Service).abortTransaction),
}

// Handle executes one operation and appends the response to dst. Every error is
// a *wire.Error.
func (s *Service) Handle(op string, body, dst []byte) ([]byte, error) {
	f, ok := operations[op]
	if !ok {
		if part, known := missing[op]; known {
			return dst, wire.Errorf(wire.CodeUnsupportOperation, "Unsupported operation: '%s': this emulator has no %s.", op, part)
		}
		return dst, wire.Invalid("Unsupported operation: '%.64s'.", op)
	}
	// No answer may reveal what a crash, or a full disk, can take back.
	var out []byte
	run := func() (err error) {
		out, err = f(s, body, dst)
		return err
	}
	var err error
	if reads[op] {
		err = s.store.Read(run)
	} else {
		err = s.store.Write(!rowWrites[op], run)
	}
	if err != nil {
		return dst, err
	}
	return out, nil
}

// reads are the operations that change nothing, so that they can be repeated.
var reads = map[string]bool{
	"ListTable": true, "DescribeTable": true, "GetRow": true, "BatchGetRow": true, "GetRange": true,
	"ComputeSplitPointsBySize": true,
	"ListStream":               true, "DescribeStream": true, "GetShardIterator": true, "GetStreamRecord": true,
	"ListSearchIndex": true, "ListTimeseriesTable": true,
}

// rowWrites are the operations whose success reveals their own rows only, which
// are durable by then.
var rowWrites = map[string]bool{"PutRow": true, "UpdateRow": true, "DeleteRow": true, "BatchWriteRow": true}

// message is what call requires of a generated request type.
type message[T any] interface {
	*T
	protoadapt.MessageV1
}

// call turns a method on messages into an operation.
func call[Req any, PReq message[Req], Resp protoadapt.MessageV1](f func(*Service, PReq) (Resp, error)) operation {
	return func(s *Service, body, dst []byte) ([]byte, error) {
		req := PReq(new(Req))
		if err := proto.Unmarshal(body, protoadapt.MessageV2Of(req)); err != nil {
			return dst, errProtobuf(err)
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

func errProtobuf(err error) error {
	return wire.Invalid("Failed to parse the ProtoBuf message: %v.", err)
}

// pointer returns a pointer to v, as optional fields need.
func pointer[T any](v T) *T { return &v }
