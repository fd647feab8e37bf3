package emulator_test

import (
	"fmt"
	"io"
	"sync/atomic"
	"testing"
	"time"

	"github.com/aliyun/aliyun-tablestore-go-sdk/tunnel"
	"go.uber.org/zap"
	"go.uber.org/zap/zapcore"

	"github.com/watermill-ots/watermill-ots/emulator"
	"github.com/watermill-ots/watermill-ots/internal/testbed"
	"github.com/watermill-ots/watermill-ots/subscriber"
)

// sdkConsumer runs the official SDK's worker until the test ends, and counts records.
func sdkConsumer(t *testing.T, b *testbed.Bed, id string, n *atomic.Int64) {
	t.Helper()
	daemon := tunnel.NewTunnelDaemon(b.Tunnels, id, &tunnel.TunnelWorkerConfig{
		HeartbeatInterval: time.Second, HeartbeatTimeout: 300 * time.Second,
		LogConfig: &tunnel.DefaultLogConfig, LogWriteSyncer: zapcore.AddSync(io.Discard),
		ProcessorFactory: &tunnel.SimpleProcessFactory{
			Logger: zap.NewNop(), CpInterval: 100 * time.Millisecond,
			ProcessFunc: func(_ *tunnel.ChannelContext, records []*tunnel.Record) error {
				n.Add(int64(len(records)))
				return nil
			},
		},
	})
	ended := make(chan error, 1)
	go func() { ended <- daemon.Run() }() // ends with Close; awaited below
	t.Cleanup(func() {
		daemon.Close()
		if err := <-ended; err != nil {
			t.Error(err)
		}
	})
}

// ourConsumer is the same with this library.
func ourConsumer(t *testing.T, b *testbed.Bed, _ string, n *atomic.Int64) {
	t.Helper()
	sub, err := subscriber.New(testbed.Config(b.Emulator.Endpoint()), nil)
	if err != nil {
		t.Fatal(err)
	}
	messages, err := sub.Subscribe(t.Context(), testbed.Topic)
	if err != nil {
		t.Fatal(err)
	}
	done := make(chan struct{})
	go func() { // ends when the output is closed; awaited below
		defer close(done)
		for msg := range messages {
			n.Add(1)
			msg.Ack()
		}
	}()
	t.Cleanup(func() {
		if err := sub.Close(); err != nil {
			t.Error(err)
		}
		<-done
	})
}

// A program can go from the official SDK's worker to this library and back: each continues
// at the other's checkpoint, and gets every record behind it and none before it.
func TestCheckpoints_of_the_official_SDK_and_ours_continue_each_other(t *testing.T) {
	const keys = 100 // records in each turn
	turns := []struct {
		name  string
		start func(*testing.T, *testbed.Bed, string, *atomic.Int64)
	}{{"SDK", sdkConsumer}, {"ours", ourConsumer}, {"SDK", sdkConsumer}, {"ours", ourConsumer}}
	for _, typ := range []tunnel.TunnelType{tunnel.TunnelTypeStream, tunnel.TunnelTypeBaseStream} {
		t.Run(string(typ), func(t *testing.T) {
			b := testbed.New(t, emulator.Options{})
			if typ == tunnel.TunnelTypeBaseStream {
				b.PutAll(keys, 1) // the base data, which the first turn reads
			}
			id := b.CreateTunnel(typ)
			for i, turn := range turns {
				ok := t.Run(fmt.Sprint("turn ", i+1, " ", turn.name), func(t *testing.T) {
					if i > 0 || typ == tunnel.TunnelTypeStream {
						b.PutAll(keys, 1)
					}
					var n atomic.Int64
					turn.start(t, b, id, &n)
					testbed.Eventually(t, time.Minute, "the turn's records are handled and stored", func() bool {
						return n.Load() >= keys && b.CommittedRecords(id) == int64(keys*(i+1))
					})
					if got := n.Load(); got != keys {
						t.Errorf("%d records, want the %d since the checkpoint", got, keys)
					}
				})
				if !ok {
					return
				}
			}
		})
	}
}
