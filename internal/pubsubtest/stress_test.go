//go:build stress

package pubsubtest

import (
	"testing"

	"github.com/ThreeDotsLabs/watermill/pubsub/tests"
)

// limitStress does not change the stress test.
func limitStress(*testing.T, *tests.Features) {}
