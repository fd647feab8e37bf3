//go:build unix

// Package fulldisk simulates a full disk in tests.
package fulldisk

import (
	"sync"
	"syscall"
	"testing"
)

// Limit prevents this process from growing any file beyond size bytes, as a
// full disk would, until undo is called or the test ends. Such a test must not
// run in parallel with tests that write files.
func Limit(t testing.TB, size int64) (undo func()) {
	t.Helper()
	var old syscall.Rlimit
	if err := syscall.Getrlimit(syscall.RLIMIT_FSIZE, &old); err != nil {
		t.Fatal(err)
	}
	limit := old
	limit.Cur = uint64(size)
	if err := syscall.Setrlimit(syscall.RLIMIT_FSIZE, &limit); err != nil {
		t.Fatal(err)
	}
	undo = sync.OnceFunc(func() {
		if err := syscall.Setrlimit(syscall.RLIMIT_FSIZE, &old); err != nil {
			t.Error(err)
		}
	})
	t.Cleanup(undo)
	return undo
}
