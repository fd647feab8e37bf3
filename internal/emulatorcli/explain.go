package emulatorcli

import (
	"errors"
	"fmt"
	"io/fs"
	"net"
	"runtime"
	"strconv"
	"strings"
	"syscall"

	"github.com/watermill-ots/watermill-ots/emulator"
)

// explainStart names the flag that an error of emulator.Start is about, and
// says what to do.
func (s *Settings) explainStart(err error) error {
	for _, about := range []error{emulator.ErrDataDirInUse, emulator.ErrDataDirForeign, emulator.ErrDataDirDamaged} {
		if errors.Is(err, about) {
			return fmt.Errorf("--data-dir %s: %w", s.Options.DataDir, err)
		}
	}
	if named := InFlags(err); named != err {
		return named
	}
	return explainAddress("--addr", s.Options.Addr, err)
}

// InFlags returns an error about options of the emulator in the terms of flags, and other
// errors unchanged.
func InFlags(err error) error {
	var options *emulator.OptionsError
	if !errors.As(err, &options) {
		return err
	}
	return &flagsError{text: flagsOf.Replace(strings.Join(options.Faults, "\n")), err: err}
}

// flagsOf replaces the fields of emulator.Options in a text by their flags.
var flagsOf = strings.NewReplacer(
	"AccessKeyID", "--access-key-id", "AccessKeySecret", "--access-key-secret", "SecurityToken", "--security-token",
	"Region", "--region", "Assume", "--assume", "AllowedHosts", "--allowed-host",
)

// flagsError is an error in the terms of flags.
type flagsError struct {
	text string
	err  error
}

func (e *flagsError) Error() string { return e.text }

func (e *flagsError) Unwrap() error { return e.err }

// explainAddress names the flag with the address that cannot be used, and says
// what to do if that is known. It returns other errors unchanged.
func explainAddress(flag, addr string, err error) error {
	var op *net.OpError
	if !errors.As(err, &op) || op.Op != "listen" {
		return err
	}
	advice := ""
	var errno syscall.Errno
	var form *net.AddrError
	switch errors.As(err, &errno); {
	case errors.As(err, &form):
		advice = "write HOST:PORT, such as 127.0.0.1:8087: "
	case errno == syscall.EADDRINUSE || runtime.GOOS == "windows" && errno == wsaEADDRINUSE:
		advice = "another program, perhaps another ots-emulator, listens there already; end it, or choose another port (port 0 picks a free one): "
	case errors.Is(err, fs.ErrPermission):
		advice = "this user may not listen there; choose a port above 1023: "
	}
	return fmt.Errorf("%s %s: %s%w", flag, addr, advice, err)
}

// wsaEADDRINUSE is Windows' error number for an address in use;
// syscall.EADDRINUSE has another value there.
const wsaEADDRINUSE = syscall.Errno(10048)

// explainSeedFile says why the seed file cannot be read.
func explainSeedFile(name string, err error) error {
	if _, notNumber := strconv.ParseUint(name, 10, 64); notNumber == nil && errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("--seed %s: there is no such file; --seed takes a YAML file of tables and rows, the seed of random faults is --fault-seed", name)
	}
	return fmt.Errorf("--seed: reading the file: %w", err)
}
