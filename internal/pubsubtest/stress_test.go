//go:build stress

package pubsubtest

import (
	"testing"

	"github.com/ThreeDotsLabs/watermill/pubsub/tests"
)

// limitStress leaves the stress test as it is.
func limitStress(*testing.T, *tests.Features) {}
