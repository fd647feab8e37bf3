//go:build race

package pubsubtest

import (
	"os"
	"path/filepath"
	"strings"
	"syscall"
)

// suppressRaces restarts the test binary with the races suppressed that
// testdata/race.suppressions lists: the race detector reads its options only
// once, before main. It returns nil in the restarted process.
func suppressRaces() error {
	options := os.Getenv("GORACE")
	if strings.Contains(options, "suppressions=") {
		return nil
	}
	file, err := filepath.Abs("testdata/race.suppressions")
	if err != nil {
		return err
	}
	self, err := os.Executable()
	if err != nil {
		return err
	}
	if err := os.Setenv("GORACE", strings.TrimSpace(options+" suppressions="+file)); err != nil {
		return err
	}
	return syscall.Exec(self, os.Args, os.Environ())
}
