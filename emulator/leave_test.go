package emulator_test

import (
	"errors"
	"fmt"
	"io"
	"net/http"
	"runtime"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	pb "github.com/aliyun/aliyun-tablestore-go-sdk/tablestore/otsprotocol"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/protoadapt"

	"github.com/watermill-ots/watermill-ots/emulator"
	"github.com/watermill-ots/watermill-ots/internal/plainbuffer"
)

// putText puts a row of n bytes into a table created by createIntTable.
func (r *raw) putText(table string, id int64, n int) error {
	row := &plainbuffer.Row{
		PrimaryKey: []plainbuffer.Cell{{Name: "id", HasValue: true, Value: plainbuffer.IntegerValue(id)}},
		Cells:      []plainbuffer.Cell{{Name: "a", HasValue: true, Value: plainbuffer.StringValue(strings.Repeat("x", n))}},
	}
	_, err := r.post("/PutRow", &pb.PutRowRequest{
		TableName: &table, Row: plainbuffer.AppendRow(plainbuffer.AppendHeader(nil), row),
		Condition: &pb.Condition{RowExistence: ptr(pb.RowExistenceExpectation_IGNORE)},
	})
	return err
}

// hasRow reports whether a row exists.
func (r *raw) hasRow(table string, id int64) bool {
	r.t.Helper()
	found, err := r.findRow(table, id)
	if err != nil {
		r.t.Fatal(err)
	}
	return found
}

func (r *raw) findRow(table string, id int64) (bool, error) {
	key := []plainbuffer.Cell{{Name: "id", HasValue: true, Value: plainbuffer.IntegerValue(id)}}
	body, err := r.post("/GetRow", &pb.GetRowRequest{TableName: &table, PrimaryKey: plainbuffer.AppendPrimaryKey(nil, key), MaxVersions: ptr(int32(1))})
	if err != nil {
		return false, err
	}
	var resp pb.GetRowResponse
	if err := proto.Unmarshal(body, protoadapt.MessageV2Of(&resp)); err != nil {
		return false, err
	}
	return len(resp.Row) > 0, nil
}

// requests returns the number of requests that this process's emulators are
// handling.
func requests() int {
	stacks := make([]byte, 8<<20)
	return strings.Count(string(stacks[:runtime.Stack(stacks, true)]), "emulator.(*Emulator).serve(")
}

// TestClientsThatLeave is about clients that disconnect while their requests
// wait for a fault or the end of a pause, with bodies that do and do not fit
// into the first read.
func TestClientsThatLeave(t *testing.T) {
	waits := map[string]func(e *emulator.Emulator){
		"a hanging request": func(e *emulator.Emulator) { e.Inject(emulator.Fault{Operation: "PutRow", Hang: true}) },
		"a delayed request": func(e *emulator.Emulator) { e.Inject(emulator.Fault{Operation: "PutRow", Delay: time.Hour}) },
		"a paused request":  func(e *emulator.Emulator) { e.Pause() },
	}
	for name, hold := range waits {
		for _, size := range []int{10, 100_000} {
			t.Run(fmt.Sprintf("end %s of %d bytes at once, and it is not handled", name, size), func(t *testing.T) {
				bubble(t, func(t *testing.T, e *emulator.Emulator, r *raw) {
					hold(e)
					r.client.Timeout = 3 * time.Second
					if err := r.putText("t", 1, size); err == nil {
						t.Error("there was an answer")
					}
					synctest.Wait()
					if n := requests(); n != 0 {
						t.Errorf("the emulator is handling %d requests", n)
					}
					r.client.Timeout = 0
					e.Resume()
					e.ClearFaults()
					time.Sleep(2 * time.Hour)
					expect(t, "the row exists", r.hasRow("t", 1), false)
				})
			})
		}
	}
	t.Run("are those that disconnect: a request may wait for longer than the time allowed for reading a body", func(t *testing.T) {
		for name, hold := range waits {
			if name == "a hanging request" {
				continue
			}
			for _, size := range []int{10, 100_000} {
				bubble(t, func(t *testing.T, e *emulator.Emulator, r *raw) {
					hold(e)
					time.AfterFunc(time.Hour, e.Resume)
					began := time.Now()
					if err := r.putText("t", 1, size); err != nil {
						t.Errorf("%s of %d bytes: %v", name, size, err)
					}
					expect(t, "duration", time.Since(began), time.Hour)
				})
			}
		}
	})
	t.Run("do not prevent the connection's next request", func(t *testing.T) {
		bubble(t, func(t *testing.T, e *emulator.Emulator, r *raw) {
			e.Pause()
			time.AfterFunc(time.Hour, e.Resume)
			for range 3 {
				if err := r.putText("t", 1, 100_000); err != nil {
					t.Error(err)
				}
				time.Sleep(time.Minute + time.Second)
			}
		})
	})
	t.Run("are like the end of the emulator: what waits for Resume is not handled", func(t *testing.T) {
		dir := t.TempDir()
		e := start(t, emulator.Options{DataDir: dir})
		r := newRaw(t, e)
		r.createIntTable("t", 0, 1, true)
		e.Pause()
		done := make(chan error, 1)
		go func() { done <- r.putText("t", 1, 10) }()
		for e.Stats().Operations["PutRow"].Requests == 0 {
			time.Sleep(time.Millisecond)
		}
		if err := e.Close(); err != nil {
			t.Fatal(err)
		}
		if err := <-done; err == nil {
			t.Error("the request was answered")
		}
		e = start(t, emulator.Options{DataDir: dir})
		expect(t, "the row exists", newRaw(t, e).hasRow("t", 1), false)
	})
	t.Run("in the middle of the body are not waited for", func(t *testing.T) {
		bubble(t, func(t *testing.T, e *emulator.Emulator, r *raw) {
			e.Pause()
			body, half := io.Pipe()
			req, err := http.NewRequest(http.MethodPost, r.base+"/PutRow", body)
			if err != nil {
				t.Fatal(err)
			}
			req.ContentLength = 1000
			done := make(chan error, 1)
			go func() {
				_, err := r.client.Do(req)
				done <- err
			}()
			half.Write(make([]byte, 500))
			leaves := errors.New("the client disconnects")
			half.CloseWithError(leaves)
			if err := <-done; !errors.Is(err, leaves) {
				t.Errorf("got %v", err)
			}
			synctest.Wait()
			if n := requests(); n != 0 {
				t.Errorf("the emulator is handling %d requests", n)
			}
		})
	})
	t.Run("with a body that is too large are answered before any fault", func(t *testing.T) {
		bubble(t, func(t *testing.T, e *emulator.Emulator, r *raw) {
			e.Inject(emulator.Fault{Operation: "PutRow", Hang: true})
			if _, err := r.postBytes("/PutRow", make([]byte, 9<<20)); err == nil || !strings.Contains(err.Error(), "OTSRequestBodyTooLarge") {
				t.Errorf("got %v", err)
			}
		})
	})
}
