//go:build !stress

package pubsubtest

import (
	"testing"

	"github.com/ThreeDotsLabs/watermill/pubsub/tests"
)

// limitStress makes the stress test small enough for every run. TestReconnect
// has no short form, so only the suite's main run and the build tag stress
// include it.
func limitStress(t *testing.T, f *tests.Features) {
	t.Setenv("STRESS_TEST_COUNT", "2")
	f.ForceShort = true
	f.RestartServiceCommand = nil
}
