//go:build !unix

package laws

import (
	"os"
	"testing"
)

// The tests that would send these are skipped by needsSignals.
var stopSignal, continueSignal os.Signal = os.Kill, os.Kill

func needsSignals(t testing.TB) {
	t.Helper()
	t.Skip("this system has no signals that stop a process, let it go on and ask it to end")
}
