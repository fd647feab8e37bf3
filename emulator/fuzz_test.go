package emulator

import (
	"bytes"
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"net/url"
	"strings"
	"testing"
	"time"

	pb "github.com/aliyun/aliyun-tablestore-go-sdk/tablestore/otsprotocol"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/protoadapt"

	"github.com/watermill-ots/watermill-ots/emulator/internal/tables"
	"github.com/watermill-ots/watermill-ots/internal/plainbuffer"
)

// fuzzEmulator is an emulator with a table "t" with one integer key. Its
// handler is called without a network.
func fuzzEmulator(f *testing.F) *Emulator {
	f.Helper()
	e, err := Start(Options{InMemory: true, Logger: slog.New(slog.NewTextHandler(io.Discard, nil))})
	if err != nil {
		f.Fatal(err)
	}
	f.Cleanup(func() { e.Close() })
	name, id, integer, zero := "t", "id", pb.PrimaryKeyType_INTEGER, int32(0)
	body, err := proto.Marshal(protoadapt.MessageV2Of(&pb.CreateTableRequest{
		TableMeta:          &pb.TableMeta{TableName: &name, PrimaryKey: []*pb.PrimaryKeySchema{{Name: &id, Type: &integer}}},
		ReservedThroughput: &pb.ReservedThroughput{CapacityUnit: &pb.CapacityUnit{Read: &zero, Write: &zero}},
	}))
	if err != nil {
		f.Fatal(err)
	}
	if status, answer := request(e, "/CreateTable", nil, body); status != 200 {
		f.Fatalf("creating the table: %d %q", status, answer)
	}
	return e
}

func request(e *Emulator, path string, header http.Header, body []byte) (status int, answer []byte) {
	req := httptest.NewRequest(http.MethodPost, "/", bytes.NewReader(body))
	req.URL = &url.URL{Path: path}
	for k, v := range header {
		req.Header[k] = v
	}
	w := httptest.NewRecorder()
	e.serve(w, req)
	return w.Code, w.Body.Bytes()
}

// FuzzRequest sends any bytes to any path. Every response must be a success or
// an error in the service's form, never an internal error, and must not be
// late.
func FuzzRequest(f *testing.F) {
	e := fuzzEmulator(f)
	var ops []string
	for _, op := range tables.Operations() {
		ops = append(ops, "/"+op)
	}
	for _, op := range tunnelOperations {
		ops = append(ops, "/"+tunnelPrefix+op)
	}
	row := plainbuffer.AppendPrimaryKey(nil, []plainbuffer.Cell{{Name: "id", HasValue: true, Value: plainbuffer.IntegerValue(1)}})
	name, existence, versions := "t", pb.RowExistenceExpectation_IGNORE, int32(1)
	seeds := map[string]protoadapt.MessageV1{
		"/PutRow":        &pb.PutRowRequest{TableName: &name, Row: row, Condition: &pb.Condition{RowExistence: &existence}},
		"/DeleteRow":     &pb.DeleteRowRequest{TableName: &name, PrimaryKey: row, Condition: &pb.Condition{RowExistence: &existence}},
		"/GetRow":        &pb.GetRowRequest{TableName: &name, PrimaryKey: row, MaxVersions: &versions},
		"/DescribeTable": &pb.DescribeTableRequest{TableName: &name},
		"/GetRange": &pb.GetRangeRequest{
			TableName: &name, Direction: pb.Direction_FORWARD.Enum(), MaxVersions: &versions,
			InclusiveStartPrimaryKey: row, ExclusiveEndPrimaryKey: row,
		},
	}
	for _, op := range ops {
		body := []byte{}
		if msg := seeds[op]; msg != nil {
			var err error
			if body, err = proto.Marshal(protoadapt.MessageV2Of(msg)); err != nil {
				f.Fatal(err)
			}
		}
		f.Add(op, "", body)
	}
	f.Add("/PutRow", "deflate", []byte("x\x9c\x03\x00\x00\x00\x00\x01"))
	f.Add("//..//PutRow", "none", []byte{0xff})
	f.Fuzz(func(t *testing.T, path, compression string, body []byte) {
		header := http.Header{}
		if compression != "" {
			header.Set("x-ots-request-compress-type", compression)
		}
		began := time.Now()
		status, answer := request(e, path, header, body)
		if d := time.Since(began); d > 10*time.Second {
			t.Errorf("%q took %v", path, d)
		}
		if status == http.StatusOK {
			return
		}
		var msg pb.Error
		if err := proto.Unmarshal(answer, protoadapt.MessageV2Of(&msg)); err != nil || msg.GetCode() == "" {
			t.Errorf("%q: status %d with no error in the body: %q", path, status, answer)
		}
		if status >= 500 || strings.Contains(msg.GetCode(), "Internal") {
			t.Errorf("%q: %d %s: %s", path, status, msg.GetCode(), msg.GetMessage())
		}
	})
}

// FuzzRow writes any bytes as a row of an existing table, with any condition,
// and reads it back with any filter.
func FuzzRow(f *testing.F) {
	e := fuzzEmulator(f)
	id := plainbuffer.Cell{Name: "id", HasValue: true, Value: plainbuffer.IntegerValue(1)}
	row := func(cells ...plainbuffer.Cell) []byte {
		return plainbuffer.AppendRow(plainbuffer.AppendHeader(nil), &plainbuffer.Row{PrimaryKey: []plainbuffer.Cell{id}, Cells: cells})
	}
	f.Add(uint8(0), row(plainbuffer.Cell{Name: "a", HasValue: true, Value: plainbuffer.StringValue("x")}), []byte(nil))
	f.Add(uint8(1), row(
		plainbuffer.Cell{Name: "a", Op: plainbuffer.DeleteAllVersion},
		plainbuffer.Cell{Name: "b", Op: plainbuffer.DeleteOneVersion, HasTimestamp: true, Timestamp: 5},
		plainbuffer.Cell{Name: "c", HasValue: true, Op: plainbuffer.Increment, Value: plainbuffer.IntegerValue(1)},
	), []byte(nil))
	f.Add(uint8(2), row(), []byte{0x08, 0x03, 0x12, 0x04, 0x08, 0x01, 0x10, 0x01})
	value := plainbuffer.AppendVariant(nil, plainbuffer.IntegerValue(1))
	f.Add(uint8(0), row(), append([]byte{0x08, 0x01, 0x12, 0x14, 0x08, 0x01, 0x12, 0x01, 'v', 0x1a, 0x09}, append(value, 0x20, 0x00, 0x28, 0x00)...))
	f.Fuzz(func(t *testing.T, action uint8, row, filter []byte) {
		name, existence, versions := "t", pb.RowExistenceExpectation_IGNORE, int32(2)
		condition := &pb.Condition{RowExistence: &existence, ColumnCondition: filter}
		requests := []struct {
			path string
			msg  protoadapt.MessageV1
		}{
			{"/PutRow", &pb.PutRowRequest{TableName: &name, Row: row, Condition: condition}},
			{"/UpdateRow", &pb.UpdateRowRequest{TableName: &name, RowChange: row, Condition: condition}},
			{"/DeleteRow", &pb.DeleteRowRequest{TableName: &name, PrimaryKey: row, Condition: condition}},
		}
		write := requests[int(action)%len(requests)]
		key := plainbuffer.AppendPrimaryKey(nil, []plainbuffer.Cell{id})
		read := &pb.GetRowRequest{TableName: &name, PrimaryKey: key, MaxVersions: &versions, Filter: filter}
		for _, r := range []struct {
			path string
			msg  protoadapt.MessageV1
		}{write, {"/GetRow", read}} {
			body, err := proto.Marshal(protoadapt.MessageV2Of(r.msg))
			if err != nil {
				t.Fatal(err)
			}
			if status, answer := request(e, r.path, nil, body); status >= 500 {
				t.Errorf("%s: %d %q", r.path, status, answer)
			}
		}
	})
}
