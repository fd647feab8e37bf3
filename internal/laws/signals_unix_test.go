//go:build unix

package laws

import (
	"os"
	"syscall"
	"testing"
)

// stopSignal makes a process stand still, as a virtual machine that is paused;
// continueSignal lets it go on.
var stopSignal, continueSignal os.Signal = syscall.SIGSTOP, syscall.SIGCONT

// needsSignals skips a test where processes cannot be sent the signals that it
// sends: everywhere but on Unix.
func needsSignals(testing.TB) {}
