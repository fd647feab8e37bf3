package emulator_test

import (
	"bytes"
	"compress/zlib"
	"context"
	"crypto/hmac"
	"crypto/sha1"
	"encoding/base64"
	"errors"
	"io"
	"net/http"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	"github.com/aliyun/aliyun-tablestore-go-sdk/tablestore"
	pb "github.com/aliyun/aliyun-tablestore-go-sdk/tablestore/otsprotocol"
	"github.com/aliyun/aliyun-tablestore-go-sdk/tunnel/protocol"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/protoadapt"

	"github.com/watermill-ots/watermill-ots/emulator"
	"github.com/watermill-ots/watermill-ots/internal/plainbuffer"
)

// putInt puts a row of a table made by createIntTable.
func (r *raw) putInt(table string, id int64) error {
	row := &plainbuffer.Row{
		PrimaryKey: []plainbuffer.Cell{{Name: "id", HasValue: true, Value: plainbuffer.IntegerValue(id)}},
		Cells:      []plainbuffer.Cell{{Name: "n", HasValue: true, Op: plainbuffer.Increment, Value: plainbuffer.IntegerValue(1)}},
	}
	_, err := r.post("/UpdateRow", &pb.UpdateRowRequest{
		TableName: &table, RowChange: plainbuffer.AppendRow(plainbuffer.AppendHeader(nil), row),
		Condition: &pb.Condition{RowExistence: ptr(pb.RowExistenceExpectation_IGNORE)},
	})
	return err
}

// getInt returns how often putInt was applied to a row.
func (r *raw) getInt(table string, id int64) int64 {
	r.t.Helper()
	key := []plainbuffer.Cell{{Name: "id", HasValue: true, Value: plainbuffer.IntegerValue(id)}}
	var resp pb.GetRowResponse
	r.must("/GetRow", &pb.GetRowRequest{TableName: &table, PrimaryKey: plainbuffer.AppendPrimaryKey(nil, key), MaxVersions: ptr(int32(1))}, &resp)
	if len(resp.Row) == 0 {
		return 0
	}
	var row plainbuffer.Row
	if err := plainbuffer.Decode(resp.Row, &row); err != nil {
		r.t.Fatal(err)
	}
	return row.Cells[0].Value.Integer()
}

func TestFaults(t *testing.T) {
	setup := func(t *testing.T) (*emulator.Emulator, *raw) {
		e := start(t, emulator.Options{Seed: 1})
		r := newRaw(t, e)
		r.createIntTable("t", 100, 1, true)
		return e, r
	}
	t.Run("hit the operation they name, so often, after so many", func(t *testing.T) {
		e, r := setup(t)
		e.Inject(emulator.Fault{Operation: "UpdateRow", After: 1, Times: 2, Code: "OTSServerBusy", Message: "later"})
		var outcomes []string
		for range 5 {
			r.getInt("t", 1) // must pass
			err := r.putInt("t", 1)
			if err == nil {
				outcomes = append(outcomes, "ok")
			} else {
				outcomes = append(outcomes, err.Error())
			}
		}
		busy := "status 503: OTSServerBusy: later"
		expect(t, "outcomes", strings.Join(outcomes, "; "), strings.Join([]string{"ok", busy, busy, "ok", "ok"}, "; "))
		expect(t, "writes", r.getInt("t", 1), 3)
		expect(t, "faults counted", e.Stats().Faults, 2)
	})
	t.Run("hit once unless told otherwise, and for ever when negative", func(t *testing.T) {
		e, r := setup(t)
		e.Inject(emulator.Fault{Code: "OTSServerBusy"})
		if r.putInt("t", 1) == nil || r.putInt("t", 1) != nil {
			t.Error("the fault did not hit the first request only")
		}
		e.Inject(emulator.Fault{Operation: "Update*", Times: -1, Code: "OTSServerBusy"})
		for range 10 {
			if r.putInt("t", 1) == nil {
				t.Fatal("a request passed")
			}
		}
		e.ClearFaults()
		if err := r.putInt("t", 1); err != nil {
			t.Error(err)
		}
	})
	t.Run("answer any status, with the service's form of error", func(t *testing.T) {
		e, r := setup(t)
		e.Inject(emulator.Fault{Code: "OTSNovelty", Status: 418, Message: "short and stout"})
		expect(t, "error", r.putInt("t", 1).Error(), "status 418: OTSNovelty: short and stout")
	})
	t.Run("by chance depend on the seed alone", func(t *testing.T) {
		outcome := func(seed uint64) string {
			e := start(t, emulator.Options{Seed: seed})
			r := newRaw(t, e)
			r.createIntTable("t", 100, 1, true)
			e.Inject(emulator.Fault{Operation: "UpdateRow", Times: -1, Chance: 0.5, Code: "OTSServerBusy"})
			var s strings.Builder
			for range 64 {
				if r.putInt("t", 1) == nil {
					s.WriteByte('.')
				} else {
					s.WriteByte('x')
				}
			}
			return s.String()
		}
		a, b, c := outcome(7), outcome(7), outcome(8)
		expect(t, "same seed", a, b)
		if a == c || !strings.Contains(a, ".") || !strings.Contains(a, "x") {
			t.Errorf("seed 7 gives %s, seed 8 %s", a, c)
		}
	})
	t.Run("reset the connection before the request is handled", func(t *testing.T) {
		e, r := setup(t)
		e.Inject(emulator.Fault{Operation: "UpdateRow", Break: emulator.BeforeRequest})
		if err := r.putInt("t", 1); !errors.Is(err, syscall.ECONNRESET) && !errors.Is(err, io.EOF) {
			t.Errorf("got %v", err)
		}
		expect(t, "writes", r.getInt("t", 1), 0)
	})
	t.Run("reset the connection after the request was handled", func(t *testing.T) {
		e, r := setup(t)
		e.Inject(emulator.Fault{Operation: "UpdateRow", Break: emulator.BeforeAnswer})
		if err := r.putInt("t", 1); !errors.Is(err, syscall.ECONNRESET) && !errors.Is(err, io.EOF) {
			t.Errorf("got %v", err)
		}
		expect(t, "writes", r.getInt("t", 1), 1)
	})
	t.Run("break off in the middle of the answer", func(t *testing.T) {
		e, r := setup(t)
		e.Inject(emulator.Fault{Operation: "UpdateRow", Break: emulator.MidAnswer})
		if err := r.putInt("t", 1); !errors.Is(err, io.ErrUnexpectedEOF) && !errors.Is(err, syscall.ECONNRESET) {
			t.Errorf("got %v", err)
		}
		expect(t, "writes", r.getInt("t", 1), 1)
	})
	t.Run("change a byte of the answer", func(t *testing.T) {
		e, r := setup(t)
		list := func() []byte {
			b, err := r.postBytes("/ListTable", nil)
			if err != nil {
				t.Fatal(err)
			}
			return b
		}
		good := list()
		e.Inject(emulator.Fault{Operation: "ListTable", Corrupt: true})
		if bad := list(); bytes.Equal(bad, good) || len(bad) != len(good) {
			t.Errorf("got %x instead of %x", bad, good)
		}
	})
	t.Run("deliver a request twice", func(t *testing.T) {
		e, r := setup(t)
		e.Inject(emulator.Fault{Operation: "UpdateRow", Duplicate: true})
		if err := r.putInt("t", 1); err != nil {
			t.Fatal(err)
		}
		expect(t, "writes", r.getInt("t", 1), 2)
	})
	t.Run("a checkpoint delivered twice is a sequence number mismatch though it was stored", func(t *testing.T) {
		e, r := setup(t)
		tunnelID, clientID, channels := r.openTunnel("t", protocol.TunnelType_Stream)
		var cp protocol.GetCheckpointResponse
		r.must("/tunnel/getcheckpoint", &protocol.GetCheckpointRequest{TunnelId: &tunnelID, ClientId: &clientID, ChannelId: &channels[0]}, &cp)
		e.Inject(emulator.Fault{Operation: "tunnel/checkpoint", Duplicate: true})
		_, err := r.post("/tunnel/checkpoint", &protocol.CheckpointRequest{
			TunnelId: &tunnelID, ClientId: &clientID, ChannelId: &channels[0], Checkpoint: cp.Checkpoint, SequenceNumber: ptr(cp.GetSequenceNumber() + 1),
		})
		if err == nil || !strings.Contains(err.Error(), "OTSSequenceNumberNotMatch") {
			t.Errorf("got %v", err)
		}
		before := cp.GetSequenceNumber()
		r.must("/tunnel/getcheckpoint", &protocol.GetCheckpointRequest{TunnelId: &tunnelID, ClientId: &clientID, ChannelId: &channels[0]}, &cp)
		expect(t, "stored sequence number", cp.GetSequenceNumber(), before+1)
	})
}

// bubble runs f with an in-memory emulator in a synctest bubble.
func bubble(t *testing.T, f func(t *testing.T, e *emulator.Emulator, r *raw)) {
	synctest.Test(t, func(t *testing.T) {
		e, err := emulator.Start(emulator.Options{InMemory: true})
		if err != nil {
			t.Fatal(err)
		}
		transport := e.Transport()
		r := &raw{t: t, base: e.Endpoint(), client: &http.Client{Transport: transport}}
		r.createIntTable("t", 100, 1, true)
		f(t, e, r)
		transport.CloseIdleConnections()
		if err := e.Close(); err != nil {
			t.Error(err)
		}
	})
}

func TestFaultsInTime(t *testing.T) {
	t.Run("a delay is as long as it says", func(t *testing.T) {
		bubble(t, func(t *testing.T, e *emulator.Emulator, r *raw) {
			e.Inject(emulator.Fault{Operation: "UpdateRow", Delay: 20 * time.Second})
			began := time.Now()
			if err := r.putInt("t", 1); err != nil {
				t.Error(err)
			}
			expect(t, "duration", time.Since(began), 20*time.Second)
			expect(t, "writes", r.getInt("t", 1), 1)
		})
	})
	t.Run("a trickling answer is complete at last", func(t *testing.T) {
		bubble(t, func(t *testing.T, e *emulator.Emulator, r *raw) {
			e.Inject(emulator.Fault{Operation: "GetRow", Trickle: time.Second})
			if err := r.putInt("t", 1); err != nil {
				t.Error(err)
			}
			began := time.Now()
			expect(t, "value", r.getInt("t", 1), 1)
			if d := time.Since(began); d < 10*time.Second || d > 20*time.Second {
				t.Errorf("it took %v", d)
			}
		})
	})
	t.Run("a hanging request ends with its client", func(t *testing.T) {
		bubble(t, func(t *testing.T, e *emulator.Emulator, r *raw) {
			e.Inject(emulator.Fault{Operation: "UpdateRow", Hang: true})
			r.client.Timeout = time.Hour
			began := time.Now()
			if err := r.putInt("t", 1); err == nil {
				t.Error("there was an answer")
			}
			expect(t, "duration", time.Since(began), time.Hour)
			expect(t, "writes", r.getInt("t", 1), 0)
		})
	})
	t.Run("a hanging request ends with Close", func(t *testing.T) {
		bubble(t, func(t *testing.T, e *emulator.Emulator, r *raw) {
			e.Inject(emulator.Fault{Operation: "UpdateRow", Hang: true})
			done := make(chan error)
			go func() { done <- r.putInt("t", 1) }()
			synctest.Wait()
			began := time.Now()
			if err := e.Close(); err != nil {
				t.Error(err)
			}
			if err := <-done; err == nil {
				t.Error("there was an answer")
			}
			if d := time.Since(began); d > 3*time.Second {
				t.Errorf("Close took %v", d)
			}
		})
	})
	t.Run("while the world is stopped nothing is answered", func(t *testing.T) {
		bubble(t, func(t *testing.T, e *emulator.Emulator, r *raw) {
			e.Pause()
			began := time.Now()
			time.AfterFunc(time.Minute, e.Resume)
			if err := r.putInt("t", 1); err != nil {
				t.Error(err)
			}
			expect(t, "duration", time.Since(began), time.Minute)
		})
	})
	t.Run("a skewed clock expires clients", func(t *testing.T) {
		bubble(t, func(t *testing.T, e *emulator.Emulator, r *raw) {
			tunnelID, clientID, _ := r.openTunnel("t", protocol.TunnelType_Stream)
			e.SkewClock(2 * time.Hour) // the client's timeout is an hour
			_, err := r.post("/tunnel/heartbeat", &protocol.HeartbeatRequest{TunnelId: &tunnelID, ClientId: &clientID})
			if err == nil || !strings.Contains(err.Error(), "OTSResourceGone") {
				t.Errorf("got %v", err)
			}
		})
	})
}

func TestHTTP(t *testing.T) {
	e := start(t, emulator.Options{})
	r := newRaw(t, e)
	do := func(method, path string, header http.Header, body io.Reader) (*http.Response, *pb.Error) {
		t.Helper()
		req, err := http.NewRequestWithContext(context.Background(), method, e.Endpoint()+path, body)
		if err != nil {
			t.Fatal(err)
		}
		for k, v := range header {
			req.Header[k] = v
		}
		resp, err := r.client.Do(req)
		if err != nil {
			t.Fatal(err)
		}
		defer resp.Body.Close()
		b, err := io.ReadAll(resp.Body)
		if err != nil {
			t.Fatal(err)
		}
		var e pb.Error
		if resp.StatusCode != http.StatusOK {
			if err := proto.Unmarshal(b, protoadapt.MessageV2Of(&e)); err != nil {
				t.Errorf("the body of status %d is no error: %v", resp.StatusCode, err)
			}
		}
		return resp, &e
	}
	for _, v := range []struct {
		name, method, path string
		header             http.Header
		body               io.Reader
		status             int
		code               string
	}{
		{"another method", "GET", "/ListTable", nil, nil, 405, "OTSMethodNotAllowed"},
		{"an unknown operation", "POST", "/MakeCoffee", nil, nil, 400, "OTSUnsupportOperation"},
		{"an unknown tunnel operation", "POST", "/tunnel/dig", nil, nil, 400, ""},
		{"no operation", "POST", "/", nil, nil, 400, "OTSUnsupportOperation"},
		{"what is no protobuf", "POST", "/PutRow", nil, strings.NewReader("\xff\xff\xff"), 400, "OTSParameterInvalid"},
		{"a body without the required fields", "POST", "/PutRow", nil, nil, 400, "OTSParameterInvalid"},
		{"a body that is too large", "POST", "/PutRow", nil, bytes.NewReader(make([]byte, 9<<20)), 413, "OTSRequestBodyTooLarge"},
		{"a body of unknown length that is too large", "POST", "/PutRow", nil, io.LimitReader(zeros{}, 9<<20), 413, "OTSRequestBodyTooLarge"},
		{"a body that is not deflated as it says", "POST", "/PutRow", http.Header{"X-Ots-Request-Compress-Type": {"deflate"}}, strings.NewReader("plain"), 400, "OTSParameterInvalid"},
	} {
		t.Run("answers "+v.name+" in the service's form", func(t *testing.T) {
			resp, e := do(v.method, v.path, v.header, v.body)
			expect(t, "status", resp.StatusCode, v.status)
			if v.code != "" {
				expect(t, "code", e.GetCode(), v.code)
			}
			if e.GetCode() == "" {
				t.Error("an error without a code")
			}
			if resp.Header.Get("x-ots-requestid") == "" {
				t.Error("there is no request id, without which the Java SDK loses the error")
			}
		})
	}
	t.Run("every answer has a request id of its own", func(t *testing.T) {
		a, _ := do("POST", "/ListTable", nil, nil)
		b, _ := do("POST", "/ListTable", nil, nil)
		if x, y := a.Header.Get("x-ots-requestid"), b.Header.Get("x-ots-requestid"); x == "" || x == y {
			t.Errorf("ids are %q and %q", x, y)
		}
	})
	t.Run("answers are signed as the Java SDK's table client verifies", func(t *testing.T) {
		// For each x-ots header, sorted: name, colon, value, line feed; then the
		// path without one; HMAC-SHA1 under the secret, behind "OTS <id>:".
		e := start(t, keys)
		s := newSDK(t, e)
		var got *http.Response
		spy := roundTripper(func(req *http.Request) (*http.Response, error) {
			resp, err := e.Transport().RoundTrip(req)
			got = resp
			return resp, err
		})
		cfg := tablestore.NewDefaultTableStoreConfig()
		cfg.Transport = spy
		s.TableStoreClient = tablestore.NewClientWithConfig(e.Endpoint(), "inst", "ak", "sk", "", cfg)
		if _, err := s.ListTable(); err != nil {
			t.Fatal(err)
		}
		text := ""
		for _, name := range []string{"x-ots-contentmd5", "x-ots-contenttype", "x-ots-date", "x-ots-requestid"} {
			if got.Header.Get(name) == "" {
				t.Errorf("%s is missing", name)
			}
			text += name + ":" + got.Header.Get(name) + "\n"
		}
		mac := hmac.New(sha1.New, []byte("sk"))
		mac.Write([]byte(text + "/ListTable"))
		expect(t, "authorization", got.Header.Get("authorization"), "OTS ak:"+base64.StdEncoding.EncodeToString(mac.Sum(nil)))
	})
	t.Run("bodies are deflated on request, both ways", func(t *testing.T) {
		r.createIntTable("deflated", 1, 1, false)
		name := "deflated"
		body, err := proto.Marshal(protoadapt.MessageV2Of(&pb.DescribeTableRequest{TableName: &name}))
		if err != nil {
			t.Fatal(err)
		}
		var b bytes.Buffer
		z := zlib.NewWriter(&b)
		z.Write(body)
		z.Close()
		req, err := http.NewRequestWithContext(t.Context(), "POST", e.Endpoint()+"/DescribeTable", &b)
		if err != nil {
			t.Fatal(err)
		}
		req.Header.Set("x-ots-request-compress-type", "deflate")
		req.Header.Set("x-ots-request-compress-size", strconv.Itoa(len(body)))
		req.Header.Set("x-ots-response-compress-type", "deflate")
		resp, err := r.client.Do(req)
		if err != nil {
			t.Fatal(err)
		}
		defer resp.Body.Close()
		plain, err := zlib.NewReader(resp.Body)
		if err != nil {
			t.Fatal(err)
		}
		answer, err := io.ReadAll(plain)
		if err != nil {
			t.Fatal(err)
		}
		var described pb.DescribeTableResponse
		if err := proto.Unmarshal(answer, protoadapt.MessageV2Of(&described)); err != nil {
			t.Fatal(err)
		}
		expect(t, "table", described.GetTableMeta().GetTableName(), name)
		expect(t, "size", resp.Header.Get("x-ots-response-compress-size"), strconv.Itoa(len(answer)))
	})
	t.Run("a body that inflates too far is refused", func(t *testing.T) {
		var b bytes.Buffer
		z := zlib.NewWriter(&b)
		io.CopyN(z, zeros{}, 100<<20)
		z.Close()
		resp, e := do("POST", "/PutRow", http.Header{"X-Ots-Request-Compress-Type": {"deflate"}}, &b)
		expect(t, "status", resp.StatusCode, 413)
		expect(t, "code", e.GetCode(), "OTSRequestBodyTooLarge")
	})
	t.Run("stats count requests, errors and bytes", func(t *testing.T) {
		before := e.Stats().Operations["PutRow"]
		do("POST", "/PutRow", nil, strings.NewReader("xxx"))
		after := e.Stats().Operations["PutRow"]
		expect(t, "requests", after.Requests-before.Requests, 1)
		expect(t, "errors", after.Errors-before.Errors, 1)
		expect(t, "bytes", after.BytesReceived-before.BytesReceived, 3)
	})
}

type roundTripper func(*http.Request) (*http.Response, error)

func (f roundTripper) RoundTrip(req *http.Request) (*http.Response, error) { return f(req) }

type zeros struct{}

func (zeros) Read(p []byte) (int, error) { clear(p); return len(p), nil }
