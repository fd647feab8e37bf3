// Command ots-emulator runs a Tablestore on one machine: the table API and the
// tunnel API over HTTP. See docs/emulator.md.
package main

import (
	"context"
	"errors"
	"flag"
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
	exitError = 1 // the emulator could not start or not close
	exitUsage = 2 // wrong flags
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	os.Exit(run(ctx, os.Args[1:], os.Stdout, os.Stderr))
}

// run runs the emulator until ctx ends, and returns the exit code.
func run(ctx context.Context, args []string, stdout, stderr io.Writer) int {
	flags := flag.NewFlagSet("ots-emulator", flag.ContinueOnError)
	flags.SetOutput(stderr)
	var opts emulator.Options
	flags.StringVar(&opts.Addr, "addr", "127.0.0.1:8087", "`host:port` to listen on; port 0 picks a free one")
	flags.StringVar(&opts.DataDir, "data-dir", "", "`directory` that keeps tables and tunnels; empty keeps all in memory")
	flags.BoolVar(&opts.Sync, "sync", false, "flush writes to the device before they are acknowledged")
	flags.StringVar(&opts.Instance, "instance", "", "instance `name` that requests must carry; empty accepts any")
	flags.StringVar(&opts.AccessKeyID, "access-key-id", "", "access key `id`; empty accepts any credentials")
	flags.StringVar(&opts.AccessKeySecret, "access-key-secret", "", "access key `secret` that requests must be signed with")
	flags.StringVar(&opts.SecurityToken, "security-token", "", "STS `token` that requests must carry; empty accepts any or none")
	flags.Uint64Var(&opts.Seed, "seed", 0, "`number` that decides faults which happen by chance")
	admin := flags.String("admin-addr", "", "`host:port` of the admin API; empty turns it off")
	verbose := flags.Bool("v", false, "log every fault and every channel that changes hands")
	switch err := flags.Parse(args); {
	case errors.Is(err, flag.ErrHelp):
		return exitOK
	case err != nil:
		return exitUsage // flags has said what is wrong
	case flags.NArg() > 0:
		fmt.Fprintf(stderr, "ots-emulator: unexpected argument %q; all settings are flags, see -help\n", flags.Arg(0))
		return exitUsage
	}
	level := slog.LevelInfo
	if *verbose {
		level = slog.LevelDebug
	}
	opts.Logger = slog.New(slog.NewTextHandler(stderr, &slog.HandlerOptions{Level: level}))
	e, err := emulator.Start(opts)
	if err != nil {
		fmt.Fprintf(stderr, "ots-emulator: %v\n", err)
		return exitError
	}
	stopAdmin, err := serveAdmin(e, *admin, opts.Logger)
	if err != nil {
		fmt.Fprintf(stderr, "ots-emulator: %v\n", errors.Join(err, e.Close()))
		return exitError
	}
	fmt.Fprintf(stdout, "listening on %s\n", e.Endpoint())
	<-ctx.Done()
	if err := errors.Join(stopAdmin(), e.Close()); err != nil {
		fmt.Fprintf(stderr, "ots-emulator: closing: %v\n", err)
		return exitError
	}
	return exitOK
}
