//go:build !stress

package pubsubtest

import (
	"testing"

	"github.com/ThreeDotsLabs/watermill/pubsub/tests"
)

// limitStress makes the stress test small enough for every run.
func limitStress(t *testing.T, f *tests.Features) {
	t.Setenv("STRESS_TEST_COUNT", "2")
	f.ForceShort = true
}
