//go:build unix

package emulator_test

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/aliyun/aliyun-tablestore-go-sdk/tunnel/protocol"

	"github.com/watermill-ots/watermill-ots/emulator"
	"github.com/watermill-ots/watermill-ots/emulator/internal/fulldisk"
)

// TestFullDisk runs the whole emulator on a disk that is full and later has
// space again. It must not run in parallel with tests that write files.
func TestFullDisk(t *testing.T) {
	for _, durable := range []bool{false, true} {
		t.Run(fmt.Sprintf("serves what is durable and refuses the rest, with Sync %v", durable), func(t *testing.T) {
			dir := t.TempDir()
			opts := emulator.Options{DataDir: dir, Sync: durable}
			e := start(t, opts)
			r := newRaw(t, e)
			r.createIntTable("t", 0, 1, true)
			tunnel, client, channels := r.openTunnel("t", protocol.TunnelType_Stream)
			channel := channels[0]
			checkpoint := func() (string, int64) {
				var cp protocol.GetCheckpointResponse
				r.must("/tunnel/getcheckpoint", &protocol.GetCheckpointRequest{TunnelId: &tunnel, ClientId: &client, ChannelId: &channel}, &cp)
				return cp.GetCheckpoint(), cp.GetSequenceNumber()
			}
			first, _ := checkpoint()
			read := func() (n int64, next string) {
				next = first
				for {
					var page protocol.ReadRecordsResponse
					r.must("/tunnel/readrecords", &protocol.ReadRecordsRequest{TunnelId: &tunnel, ClientId: &client, ChannelId: &channel, Token: &next}, &page)
					next = page.GetNextToken()
					if n += int64(len(page.Records)); !page.GetMayMoreRecord() {
						return n, next
					}
				}
			}
			commit := func(token string, sequence int64) error {
				_, err := r.post("/tunnel/checkpoint", &protocol.CheckpointRequest{TunnelId: &tunnel, ClientId: &client, ChannelId: &channel, Checkpoint: &token, SequenceNumber: &sequence})
				return err
			}
			beat := func() {
				r.must("/tunnel/heartbeat", &protocol.HeartbeatRequest{TunnelId: &tunnel, ClientId: &client, Channels: []*protocol.Channel{
					{ChannelId: &channel, Version: ptr(int64(1)), Status: protocol.ChannelStatus_OPEN.Enum()},
				}}, &protocol.HeartbeatResponse{})
			}
			info, err := os.Stat(filepath.Join(dir, "ots-emulator.db"))
			if err != nil {
				t.Fatal(err)
			}
			undo := fulldisk.Limit(t, info.Size()+1<<20)
			rows := int64(0)
			for ; rows < 1000; rows++ {
				if err = r.putText("t", rows, 100_000); err != nil {
					break
				}
			}
			if err == nil || !strings.Contains(err.Error(), "OTSServerUnavailable") || !strings.Contains(err.Error(), "free space") || !strings.Contains(err.Error(), dir) {
				t.Fatalf("after %d rows: %v", rows, err)
			}
			served := func(what string) {
				t.Helper()
				for id := range rows {
					if !r.hasRow("t", id) {
						t.Errorf("%s: row %d is gone", what, id)
					}
				}
				if r.hasRow("t", rows) {
					t.Errorf("%s: the refused row exists", what)
				}
				if n, _ := read(); n != rows {
					t.Errorf("%s: %d records of %d are served", what, n, rows)
				}
				beat()
				if _, sequence := checkpoint(); sequence != 0 {
					t.Errorf("%s: the checkpoint that was refused is served", what)
				}
			}
			_, next := read()
			if err := commit(next, 1); err == nil || !strings.Contains(err.Error(), "OTSTunnelServerUnavailable") || !strings.Contains(err.Error(), "free space") {
				t.Errorf("a checkpoint: %v", err)
			}
			served("while the disk is full")
			if err := e.Close(); err != nil {
				t.Fatal(err)
			}
			e = start(t, opts)
			r = newRaw(t, e)
			served("after a restart on the full disk")
			undo()
			deadline := time.Now().Add(30 * time.Second)
			for err = commit(next, 1); err != nil && time.Now().Before(deadline); err = commit(next, 1) {
				time.Sleep(20 * time.Millisecond) // until the emulator probes the disk again
			}
			if err != nil {
				t.Fatalf("a checkpoint with space: %v", err)
			}
			if err := r.putText("t", rows, 10); err != nil {
				t.Errorf("a row with space: %v", err)
			}
			if _, sequence := checkpoint(); sequence != 1 {
				t.Errorf("the checkpoint with space is %d", sequence)
			}
			if n, _ := read(); n != rows+1 {
				t.Errorf("%d records of %d are served", n, rows+1)
			}
		})
	}
	t.Run("shows no reader a row that is refused", func(t *testing.T) {
		dir := t.TempDir()
		e := start(t, emulator.Options{DataDir: dir})
		r := newRaw(t, e)
		r.createIntTable("t", 0, 1, true)
		info, err := os.Stat(filepath.Join(dir, "ots-emulator.db"))
		if err != nil {
			t.Fatal(err)
		}
		fulldisk.Limit(t, info.Size()+256<<10)
		refused, done := int64(-1), make(chan struct{})
		var wg sync.WaitGroup
		var seen sync.Map
		for range 4 {
			wg.Go(func() { // ends with done; the test waits for it
				for {
					select {
					case <-done:
						return
					default:
					}
					for id := range int64(20) {
						found, err := r.findRow("t", id)
						if err != nil {
							t.Errorf("reading row %d: %v", id, err)
							return
						}
						if found {
							seen.Store(id, true)
						}
					}
				}
			})
		}
		for id := range int64(20) {
			if err := r.putText("t", id, 50_000); err != nil {
				refused = id
				break
			}
		}
		close(done)
		wg.Wait()
		if refused < 0 {
			t.Fatal("the disk accepted everything")
		}
		if _, ok := seen.Load(refused); ok {
			t.Errorf("row %d was refused and yet read", refused)
		}
	})
}
