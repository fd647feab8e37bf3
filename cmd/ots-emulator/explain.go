package main

import (
	"errors"
	"fmt"
	"io/fs"
	"net"
	"runtime"
	"strconv"
	"syscall"

	"github.com/watermill-ots/watermill-ots/emulator"
)

// explainStart names the flag that an error of emulator.Start is about, and says
// what to do. The options' own errors name theirs.
func (s *settings) explainStart(err error) error {
	for _, about := range []error{emulator.ErrDataDirInUse, emulator.ErrDataDirForeign, emulator.ErrDataDirDamaged} {
		if errors.Is(err, about) {
			return fmt.Errorf("--data-dir %s: %w", s.options.DataDir, err)
		}
	}
	return explainAddress("--addr", s.options.Addr, err)
}

// explainAddress names the flag whose address cannot be listened on, and says
// what to do where that is known. Errors about other things stay as they are.
func explainAddress(flag, addr string, err error) error {
	var op *net.OpError
	if !errors.As(err, &op) || op.Op != "listen" {
		return err
	}
	advice := ""
	var errno syscall.Errno
	switch errors.As(err, &errno); {
	case errno == syscall.EADDRINUSE || runtime.GOOS == "windows" && errno == wsaEADDRINUSE:
		advice = "another program, perhaps another ots-emulator, listens there already; end it, or choose another port (port 0 takes a free one): "
	case errors.Is(err, fs.ErrPermission):
		advice = "this user may not listen there; choose a port above 1023: "
	}
	return fmt.Errorf("%s %s: %s%w", flag, addr, advice, err)
}

// wsaEADDRINUSE is Windows' number of an address in use, which its
// syscall.EADDRINUSE is not.
const wsaEADDRINUSE = syscall.Errno(10048)

// explainSeedFile says why the seed file cannot be read.
func explainSeedFile(name string, err error) error {
	if _, notNumber := strconv.ParseUint(name, 10, 64); notNumber == nil && errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("--seed %s: there is no such file; --seed takes a YAML file of tables and rows, the number that decides faults is --fault-seed", name)
	}
	return fmt.Errorf("--seed: reading the file: %w", err)
}
