package router_test

import (
	"fmt"
	"testing"

	"github.com/watermill-ots/watermill-ots/batching"
	"github.com/watermill-ots/watermill-ots/router"
	"github.com/watermill-ots/watermill-ots/subscriber"
)

// What the schema and the docs say about defaults is what the packages do.
func TestDefaults_in_tags_are_those_of_the_code(t *testing.T) {
	want := map[string]any{
		"Tunnel.worker_size":            subscriber.DefaultWorkerSize,
		"Tunnel.heartbeat_timeout":      fmt.Sprintf("%.0fs", subscriber.DefaultHeartbeatTimeout.Seconds()),
		"Tunnel.heartbeat_interval":     subscriber.DefaultHeartbeatInterval,
		"Tunnel.ordering":               subscriber.Config{}.Ordering,
		"Tunnel.max_in_flight":          subscriber.DefaultMaxInFlight,
		"Tunnel.max_in_flight_bytes":    fmt.Sprintf("%dMiB", subscriber.DefaultMaxInFlightBytes>>20),
		"Tunnel.checkpoint_interval":    subscriber.DefaultCheckpointInterval,
		"Tunnel.min_poll_interval":      subscriber.DefaultMinPollInterval,
		"Tunnel.max_poll_interval":      subscriber.DefaultMaxPollInterval,
		"Tunnel.empty_reads_per_second": subscriber.DefaultEmptyReadsPerSecond,
		"Tunnel.close_timeout":          subscriber.DefaultCloseTimeout,
		"Tunnel.payload":                router.DefaultPayload,
		"TunnelSpec.type":               subscriber.BaseAndStream,
		"Batcher.concurrency":           batching.DefaultConcurrency,
		"Batcher.batch_size":            batching.DefaultSize,
		"Batcher.batch_timeout":         batching.DefaultTimeout,
		"Target.publisher":              router.DefaultPublisher,
		"DeadLetterTarget.publisher":    router.DefaultPublisher,
		"Failure.attempts":              router.DefaultAttempts,
		"Failure.backoff_initial":       router.DefaultBackoffInitial,
		"Failure.backoff_max":           router.DefaultBackoffMax,
		"Tunnel.tunnel_view_interval":   subscriber.DefaultTunnelViewInterval,
	}
	found := 0
	for _, s := range sections(t) {
		for _, k := range s.keys {
			if w, ok := want[s.typ.Name()+"."+k.name]; ok {
				found++
				if got := k.tag.Get("default"); got != fmt.Sprint(w) {
					t.Errorf("%s.%s: the tag says %q, the code %v", s.typ.Name(), k.name, got, w)
				}
			}
		}
	}
	if found != len(want) {
		t.Errorf("%d of %d keys were found", found, len(want))
	}
}
