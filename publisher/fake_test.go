package publisher

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"net/http"
	"path"
	"sync"
	"testing"
	"time"

	pb "github.com/aliyun/aliyun-tablestore-go-sdk/tablestore/otsprotocol"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/protoadapt"

	"github.com/watermill-ots/watermill-ots/internal/plainbuffer"
)

// stored is a row that the fake service has written.
type stored struct{ key, uuid string }

// fakeTable is a service with one table, as a RoundTripper without a network, so that it
// works in a synctest bubble. Rows of a request are written from the last to the first:
// the service does not promise an order.
type fakeTable struct {
	// verdict decides the outcome of a request and its rows: answer fails the request
	// before any row is written, rows[i] fails the i-th row, and lost loses the answer
	// after the others are written. Nil: everything succeeds.
	verdict func(rows []stored) verdict

	mu       sync.Mutex
	written  []stored
	requests []request
}

type verdict struct {
	answer error                // *codeError or an error of the network
	body   protoadapt.MessageV1 // the answer, with status 200
	rows   map[int]string
	lost   error
	hang   bool // no answer until the context ends
}

type request struct {
	at   time.Time
	rows []stored
	body int // bytes
	key  string
}

type codeError struct {
	status int
	code   string
}

func (e *codeError) Error() string { return e.code }

func (f *fakeTable) RoundTrip(req *http.Request) (*http.Response, error) {
	body, err := io.ReadAll(req.Body)
	if err != nil {
		return nil, err
	}
	if op := path.Base(req.URL.Path); op != "BatchWriteRow" {
		return nil, fmt.Errorf("unexpected %s", op)
	}
	var in pb.BatchWriteRowRequest
	if err := proto.Unmarshal(body, protoadapt.MessageV2Of(&in)); err != nil {
		return nil, err
	}
	rows := make([]stored, len(in.Tables[0].Rows))
	for i, r := range in.Tables[0].Rows {
		var row plainbuffer.Row
		if err := plainbuffer.Decode(r.RowChange, &row); err != nil {
			return nil, err
		}
		rows[i].key = row.PrimaryKey[0].Value.Str()
		for _, c := range row.Cells {
			if c.Name == "uuid" {
				rows[i].uuid = c.Value.Str()
			}
		}
	}
	f.mu.Lock()
	f.requests = append(f.requests, request{at: time.Now(), rows: rows, body: len(body), key: req.Header.Get("x-ots-accesskeyid")})
	f.mu.Unlock()
	var v verdict
	if f.verdict != nil {
		v = f.verdict(rows)
	}
	if v.hang {
		<-req.Context().Done()
		return nil, req.Context().Err()
	}
	var code *codeError
	switch {
	case errors.As(v.answer, &code):
		return respond(req, code.status, &pb.Error{Code: &code.code, Message: proto.String("injected")}), nil
	case v.answer != nil:
		return nil, v.answer
	case v.body != nil:
		return respond(req, http.StatusOK, v.body), nil
	}
	answer := &pb.TableInBatchWriteRowResponse{TableName: in.Tables[0].TableName}
	f.mu.Lock()
	defer f.mu.Unlock()
	for i := range rows {
		if code, failed := v.rows[i]; failed {
			answer.Rows = append(answer.Rows, &pb.RowInBatchWriteRowResponse{IsOk: proto.Bool(false), Error: &pb.Error{Code: &code, Message: proto.String("injected")}})
			continue
		}
		answer.Rows = append(answer.Rows, &pb.RowInBatchWriteRowResponse{IsOk: proto.Bool(true), Consumed: &pb.ConsumedCapacity{CapacityUnit: &pb.CapacityUnit{Read: proto.Int32(0), Write: proto.Int32(1)}}})
	}
	for i := len(rows) - 1; i >= 0; i-- {
		if answer.Rows[i].GetIsOk() {
			f.written = append(f.written, rows[i])
		}
	}
	if v.lost != nil {
		return nil, v.lost
	}
	return respond(req, http.StatusOK, &pb.BatchWriteRowResponse{Tables: []*pb.TableInBatchWriteRowResponse{answer}}), nil
}

func respond(req *http.Request, status int, m protoadapt.MessageV1) *http.Response {
	body, err := proto.Marshal(protoadapt.MessageV2Of(m))
	if err != nil {
		panic(err)
	}
	return &http.Response{
		Status: fmt.Sprintf("%d %s", status, http.StatusText(status)), StatusCode: status, Request: req,
		Header: http.Header{"X-Ots-Requestid": {"request-1"}}, Body: io.NopCloser(bytes.NewReader(body)), ContentLength: int64(len(body)),
	}
}

// newFake returns a Publisher on the fake service.
func newFake(t testing.TB, f *fakeTable, change func(*Config)) *Publisher {
	t.Helper()
	cfg := Config{Endpoint: "http://127.0.0.1:1", Instance: "test", AccessKeyID: "id", AccessKeySecret: "secret", Transport: f}
	if change != nil {
		change(&cfg)
	}
	p, err := New(cfg, nil)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = p.Close() })
	return p
}

var errBroken = errors.New("connection broken")
