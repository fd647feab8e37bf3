// Package emulatorcli is the emulator as a command: its flags, and what it does until it is
// stopped. The commands ots-emulator and ots emulator share it.
package emulatorcli

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"log/slog"
	"os"

	"github.com/watermill-ots/watermill-ots/emulator"
)

// Settings are the values of the flags.
type Settings struct {
	Flags   *flag.FlagSet    // the caller parses them and then calls Check
	Options emulator.Options // what the flags set; the caller may add to it

	adminAddr string
	seedFile  string
	verbose   bool
}

// New returns settings with the defaults, for a command called name.
func New(name string) *Settings {
	s := &Settings{Flags: flag.NewFlagSet(name, flag.ContinueOnError)}
	s.Flags.SetOutput(io.Discard) // the command prints errors and help
	opts := &s.Options
	s.Flags.StringVar(&opts.Addr, "addr", "127.0.0.1:8087", "`HOST:PORT` to listen on; port 0 picks a free one")
	s.Flags.StringVar(&opts.DataDir, "data-dir", "", "`DIR` that keeps tables and tunnels; empty keeps everything in memory")
	s.Flags.BoolVar(&opts.Sync, "sync", false, "flush writes to the device, and the directory of the file, before they are acknowledged")
	s.Flags.StringVar(&s.seedFile, "seed", "", "YAML `FILE` of tables and rows to start with; existing tables are not changed")
	s.Flags.Func("allowed-host", "host `NAME` under which clients may address the emulator; repeat it for more", func(name string) error {
		opts.AllowedHosts = append(opts.AllowedHosts, name)
		return nil
	})
	s.Flags.StringVar(&opts.Instance, "instance", "", "instance `NAME` that requests must carry; empty accepts any")
	s.Flags.StringVar(&opts.AccessKeyID, "access-key-id", "", "access key `ID`; empty accepts any credentials")
	s.Flags.StringVar(&opts.AccessKeySecret, "access-key-secret", "", "access key `SECRET` that requests must be signed with")
	s.Flags.StringVar(&opts.SecurityToken, "security-token", "", "STS `TOKEN` that requests must carry; empty accepts any or none")
	s.Flags.StringVar(&opts.Region, "region", "", "`REGION` that version 4 signatures must be made for; empty accepts any")
	s.Flags.StringVar(&s.adminAddr, "admin-addr", "", "`HOST:PORT` of the admin API; empty turns it off")
	s.Flags.StringVar(&opts.AdminToken, "admin-token", "", "`TOKEN` that requests of the admin API must carry; needed where other machines can reach it")
	s.Flags.BoolVar(&opts.Lenient, "lenient", false, "accept what the official SDKs' tests send against the documentation")
	s.Flags.Func("assume", "`BEHAVIOUR` of the service to play instead of the default, which is an assumption; repeat it for more (see docs/assumptions.md)", func(name string) error {
		opts.Assume = append(opts.Assume, name)
		return nil
	})
	s.Flags.Uint64Var(&opts.Seed, "fault-seed", 0, "`NUMBER` that seeds faults which happen by chance")
	s.Flags.BoolVar(&s.verbose, "v", false, "log every fault and every channel that changes its owner")
	return s
}

// Check returns the fault of flags that do not go together.
func (s *Settings) Check() error {
	if s.Options.Sync && s.Options.DataDir == "" {
		return errors.New("--sync flushes what --data-dir keeps, which is not set")
	}
	if s.Options.AdminToken != "" && s.adminAddr == "" {
		return errors.New("--admin-token is of the admin API, which --admin-addr turns on and which is not set")
	}
	return nil
}

// Serve serves both APIs until ctx ends. It prints the address on stdout once everything is
// ready; ready, if it is set, is called before that with the emulator. Faults and changes
// of channels are logged to stderr.
func (s *Settings) Serve(ctx context.Context, stdout, stderr io.Writer, ready func(*emulator.Emulator) error) (err error) {
	level := slog.LevelInfo
	if s.verbose {
		level = slog.LevelDebug
	}
	s.Options.Logger = slog.New(slog.NewTextHandler(stderr, &slog.HandlerOptions{Level: level}))
	var seed []byte
	if s.seedFile != "" { // before anything is made in the data directory
		if seed, err = os.ReadFile(s.seedFile); err != nil {
			return explainSeedFile(s.seedFile, err)
		}
	}
	e, err := emulator.Start(s.Options)
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
	stopAdmin, err := serveAdmin(e, s.adminAddr, s.Options.AdminToken, s.Options.Logger)
	if err != nil {
		return err
	}
	defer func() {
		if closing := stopAdmin(); closing != nil {
			err = errors.Join(err, fmt.Errorf("closing the admin API: %w", closing))
		}
	}()
	if ready != nil {
		if err := ready(e); err != nil {
			return err
		}
	}
	fmt.Fprintf(stdout, "listening on %s\n", e.Endpoint())
	<-ctx.Done()
	return nil
}
