//go:build unix

package laws

import (
	"os"
	"syscall"
	"testing"
)

// stopSignal pauses a process, as if its virtual machine were paused;
// continueSignal continues it.
var stopSignal, continueSignal os.Signal = syscall.SIGSTOP, syscall.SIGCONT

// needsSignals skips a test on systems without the signals that it sends: all
// but Unix.
func needsSignals(testing.TB) {}
