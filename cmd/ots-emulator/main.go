// Command ots-emulator runs a Tablestore on one machine: the table API and the
// tunnel API over HTTP. See docs/emulator.md.
package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/signal"
	"syscall"
)

// Exit codes.
const (
	exitOK    = 0
	exitError = 1 // the emulator could not start or close
	exitUsage = 2 // wrong flags
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	context.AfterFunc(ctx, stop) // a second signal ends the program at once
	os.Exit(run(ctx, os.Args[1:], os.Stdout, os.Stderr))
}

// run runs the emulator until ctx ends, and returns the exit code.
func run(ctx context.Context, args []string, stdout, stderr io.Writer) int {
	s := newSettings()
	switch err := s.parse(args); {
	case errors.Is(err, errHelp):
		s.writeHelp(stdout)
		return exitOK
	case err != nil:
		fmt.Fprintf(stderr, "ots-emulator: %v; see ots-emulator --help\n", err)
		return exitUsage
	case s.version:
		fmt.Fprintln(stdout, versionText())
		return exitOK
	}
	if err := s.Serve(ctx, stdout, stderr, nil); err != nil {
		fmt.Fprintf(stderr, "ots-emulator: %v\n", err)
		return exitError
	}
	return exitOK
}
