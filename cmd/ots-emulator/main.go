// Command ots-emulator runs a Tablestore on one machine: the table API and the
// tunnel API over HTTP. See docs/emulator.md.
package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"os/signal"
	"syscall"

	"github.com/watermill-ots/watermill-ots/emulator"
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
	level := slog.LevelInfo
	if s.verbose {
		level = slog.LevelDebug
	}
	s.options.Logger = slog.New(slog.NewTextHandler(stderr, &slog.HandlerOptions{Level: level}))
	if err := s.serve(ctx, stdout); err != nil {
		fmt.Fprintf(stderr, "ots-emulator: %v\n", err)
		return exitError
	}
	return exitOK
}

// serve serves both APIs until ctx ends. It prints the address once everything
// is ready.
func (s *settings) serve(ctx context.Context, stdout io.Writer) (err error) {
	var seed []byte
	if s.seedFile != "" { // before anything is made in the data directory
		if seed, err = os.ReadFile(s.seedFile); err != nil {
			return explainSeedFile(s.seedFile, err)
		}
	}
	e, err := emulator.Start(s.options)
	if err != nil {
		return s.explainStart(err)
	}
	defer func() {
		if closing := e.Close(); closing != nil {
			err = errors.Join(err, fmt.Errorf("closing: %w", closing))
		}
	}()
	if s.seedFile != "" {
		if err := e.LoadSeed(s.seedFile, seed); err != nil {
			return fmt.Errorf("--seed: %w", err)
		}
	}
	stopAdmin, err := serveAdmin(e, s.adminAddr, s.options.AdminToken, s.options.Logger)
	if err != nil {
		return err
	}
	fmt.Fprintf(stdout, "listening on %s\n", e.Endpoint())
	<-ctx.Done()
	if err := stopAdmin(); err != nil {
		return fmt.Errorf("closing the admin API: %w", err)
	}
	return nil
}
