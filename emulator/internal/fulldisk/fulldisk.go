//go:build unix

// Package fulldisk lets tests play a full disk.
package fulldisk

import (
	"sync"
	"syscall"
	"testing"
)

// Limit keeps this process from making any file larger than size bytes, as a full
// disk would, until undo is called or the test ends. Such a test must not run
// beside others that write files.
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
