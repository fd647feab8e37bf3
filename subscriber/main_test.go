package subscriber

import (
	"testing"

	"go.uber.org/goleak"
)

// TestMain fails when a goroutine is left. Tests in a synctest bubble find their
// own; this is for those with a real emulator.
func TestMain(m *testing.M) {
	goleak.VerifyTestMain(m)
}
