//go:build !unix

package laws

import (
	"os"
	"testing"
)

// needsSignals skips the tests that would send these.
var stopSignal, continueSignal os.Signal = os.Kill, os.Kill

func needsSignals(t testing.TB) {
	t.Helper()
	t.Skip("this system has no signals that stop a process, continue it and ask it to end")
}
