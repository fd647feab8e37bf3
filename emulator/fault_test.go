package emulator_test

import (
	"bytes"
	"errors"
	"io"
	"net/http"
	"strings"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	pb "github.com/aliyun/aliyun-tablestore-go-sdk/tablestore/otsprotocol"
	"github.com/aliyun/aliyun-tablestore-go-sdk/tunnel/protocol"

	"github.com/watermill-ots/watermill-ots/emulator"
	"github.com/watermill-ots/watermill-ots/internal/plainbuffer"
)

// putInt puts a row into a table created by createIntTable.
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

// getInt returns how often putInt was applied to the row.
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
	t.Run("affect the operation they name, after and for the given number of requests", func(t *testing.T) {
		e, r := setup(t)
		e.Inject(emulator.Fault{Operation: "UpdateRow", After: 1, Times: 2, Code: "OTSServerBusy", Message: "later"})
		var outcomes []string
		for range 5 {
			r.getInt("t", 1) // must succeed
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
	t.Run("affect one request by default, and all of them if Times is negative", func(t *testing.T) {
		e, r := setup(t)
		e.Inject(emulator.Fault{Code: "OTSServerBusy"})
		if r.putInt("t", 1) == nil || r.putInt("t", 1) != nil {
			t.Error("the fault did not hit the first request only")
		}
		e.Inject(emulator.Fault{Operation: "Update*", Times: -1, Code: "OTSServerBusy"})
		for range 10 {
			if r.putInt("t", 1) == nil {
				t.Fatal("a request succeeded")
			}
		}
		e.ClearFaults()
		if err := r.putInt("t", 1); err != nil {
			t.Error(err)
		}
	})
	t.Run("answer with any status, and an error in the service's form", func(t *testing.T) {
		e, r := setup(t)
		e.Inject(emulator.Fault{Code: "OTSNovelty", Status: 418, Message: "short and stout"})
		expect(t, "error", r.putInt("t", 1).Error(), "status 418: OTSNovelty: short and stout")
	})
	t.Run("by chance depend only on the seed", func(t *testing.T) {
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
	t.Run("reset the connection in the middle of the response", func(t *testing.T) {
		e, r := setup(t)
		e.Inject(emulator.Fault{Operation: "UpdateRow", Break: emulator.MidAnswer})
		if err := r.putInt("t", 1); !errors.Is(err, io.ErrUnexpectedEOF) && !errors.Is(err, syscall.ECONNRESET) {
			t.Errorf("got %v", err)
		}
		expect(t, "writes", r.getInt("t", 1), 1)
	})
	t.Run("change a byte of the response", func(t *testing.T) {
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
	t.Run("a delay takes as long as it says", func(t *testing.T) {
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
	t.Run("a trickling response is complete in the end", func(t *testing.T) {
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
	t.Run("during a pause nothing is answered", func(t *testing.T) {
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
