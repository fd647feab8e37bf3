package router_test

import (
	"errors"
	"maps"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/ThreeDotsLabs/watermill/message"
	"github.com/aliyun/aliyun-tablestore-go-sdk/tunnel"

	"github.com/watermill-ots/watermill-ots/emulator"
	"github.com/watermill-ots/watermill-ots/internal/testbed"
	"github.com/watermill-ots/watermill-ots/ots"
	"github.com/watermill-ots/watermill-ots/router"
	"github.com/watermill-ots/watermill-ots/subscriber"
)

// recreates is a pipeline that recreates its tunnel.
const recreates = "    on_gap: recreate\n"

// soon is a configuration in which other processes count as fenced after 3 seconds.
func soon(yaml string) string {
	return strings.ReplaceAll(yaml, "heartbeat_timeout: 20s", "heartbeat_timeout: 3s")
}

func TestOnGapRecreate_pipeline_continues_with_another_tunnel(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct {
		tunnel string
		breaks func(t *testing.T, bed *testbed.Bed)
	}{
		"expired": {"tunnel: {create: true, type: Stream}", func(t *testing.T, bed *testbed.Bed) {
			if err := bed.Emulator.ExpireTunnel(testbed.Table, doomed); err != nil {
				t.Fatal(err)
			}
		}},
		"deleted":              {"tunnel: {create: true, type: Stream}", func(t *testing.T, bed *testbed.Bed) { deleteTunnel(t, bed, doomed) }},
		"deleted, not created": {noCreate, func(t *testing.T, bed *testbed.Bed) { deleteTunnel(t, bed, doomed) }},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			both(t, func(t *testing.T, asked bool) {
				bed := testbed.New(t, emulator.Options{})
				former := createTunnel(t, bed, doomed, tunnel.TunnelTypeStream)
				p := runPair(t, bed, asked, soon(twoPipelines(bed, c.tunnel, recreates)))
				p.awaitRunning(t)
				p.handles(t, doomed)
				if err := bed.Emulator.Inject(emulator.Fault{Operation: "tunnel/create", Delay: time.Second}); err != nil { // long enough to be seen
					t.Fatal(err)
				}
				c.breaks(t, bed)
				testbed.Eventually(t, 20*time.Second, "it is not ready", func() bool {
					return p.observed[doomed].Ready() != nil && !p.health.Snapshot().Ready
				})
				testbed.Eventually(t, 20*time.Second, "it is ready again", func() bool {
					return p.observed[doomed].Ready() == nil && p.health.Snapshot().Ready
				})
				p.handles(t, doomed)
				p.handles(t, "numbers")
				found, err := bed.Tunnels.DescribeTunnel(&tunnel.DescribeTunnelRequest{TableName: testbed.Table, TunnelName: doomed})
				if err != nil || found.Tunnel.TunnelId == former || found.Tunnel.TunnelType != string(subscriber.BaseAndStream) {
					t.Errorf("the tunnel is %+v, %v", found, err)
				}
				for _, line := range []string{"Pipeline has ended", "Tunnel was deleted; it is recreated", "Tunnel was recreated; the pipeline continues"} {
					if strings.Contains(p.log.text(), line) {
						t.Errorf("the router says: %s", line)
					}
				}
				if err := errors.Join(p.Close(), p.awaitEnd(t)); err != nil {
					t.Errorf("what was healed is returned: %v", err)
				}
			})
		})
	}
}

func TestOnGapRecreate_pipeline_whose_tunnel_cannot_be_recreated_ends_alone(t *testing.T) {
	t.Parallel()
	both(t, func(t *testing.T, asked bool) {
		bed := testbed.New(t, emulator.Options{})
		p := runPair(t, bed, asked, soon(twoPipelines(bed, "tunnel: {create: true, type: Stream}", recreates)))
		p.awaitRunning(t)
		p.handles(t, doomed)
		if err := bed.Emulator.Inject(emulator.Fault{Operation: "tunnel/create", Code: "OTSNoPermissionAccess", Times: -1}); err != nil {
			t.Fatal(err)
		}
		deleteTunnel(t, bed, doomed)
		p.wantDoomed(t, ots.ErrAuth)
		if strings.Contains(p.log.text(), "Tunnel was deleted; it is recreated") {
			t.Error("the router recreates it beside its subscriber")
		}
	})
}

// Handlers.Phase is where a sink deletes what is gone.
func TestOnGapRecreate_pipeline_hears_of_the_end_of_base_data_with_its_snapshot(t *testing.T) {
	t.Parallel()
	bed := testbed.New(t, emulator.Options{})
	bed.PutAll(5, 1)
	r := buildLogging(t, fileFor(bed, recreates), logLines{all: new(lockedLines)})
	var mu sync.Mutex
	rows := make(map[string]bool) // snapshots of base data
	var done []string             // snapshots of StreamStarted
	err := r.Handle("numbers", router.Handlers{
		Process: func(msg *message.Message) error {
			mu.Lock()
			defer mu.Unlock()
			if msg.Metadata.Get(subscriber.MetadataPhase) == subscriber.PhaseBase {
				rows[msg.Metadata.Get(subscriber.MetadataSnapshot)] = true
			}
			return nil
		},
		Phase: func(p subscriber.Phase) {
			mu.Lock()
			defer mu.Unlock()
			if p.Kind == subscriber.StreamStarted {
				done = append(done, p.Snapshot)
			}
		},
	})
	if err != nil {
		t.Fatal(err)
	}
	ended := make(chan error, 1)
	go func() { ended <- r.Run(t.Context()) }() // ends with Close
	for n := 1; n <= 2; n++ {
		testbed.Eventually(t, 20*time.Second, "the base data is done", func() bool { mu.Lock(); defer mu.Unlock(); return len(done) == n })
		if n == 1 {
			if err := bed.Emulator.ExpireTunnel(testbed.Table, testbed.Tunnel); err != nil {
				t.Fatal(err)
			}
		}
	}
	if err := errors.Join(r.Close(), <-ended); err != nil {
		t.Error(err)
	}
	if got := slices.Sorted(maps.Keys(rows)); !slices.Equal(got, done) || len(got) != 2 || got[0] == "" {
		t.Errorf("base data of the snapshots %q, and ends of %q", got, done)
	}
}
