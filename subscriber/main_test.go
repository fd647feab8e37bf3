package subscriber

import (
	"testing"

	"go.uber.org/goleak"
)

// TestMain fails when a goroutine is left. Tests in a synctest bubble find their
// own; this is for those with a real emulator.
func TestMain(m *testing.M) {
	// Watermill's Router waits for handlers for ever when Run could not start them.
	goleak.VerifyTestMain(m, goleak.IgnoreAnyFunction("github.com/ThreeDotsLabs/watermill/message.(*Router).watchAllHandlersStopped.func1"))
}
