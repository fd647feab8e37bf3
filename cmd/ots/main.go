// Command ots works with Tablestore tunnels. See docs/ots.md.
package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/signal"
	"syscall"

	"github.com/spf13/cobra"
)

// Exit codes.
const (
	exitOK     = 0
	exitFailed = 1 // the command did its work, and what it found is not good
	exitUsage  = 2 // wrong flags or arguments
	exitError  = 3 // the command could not do its work
)

// errFailed ends a command with exitFailed. What is wrong has been printed.
var errFailed = errors.New("not everything is well")

// usageError is an error in flags or arguments.
type usageError struct{ error }

func (e usageError) Unwrap() error { return e.error }

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	context.AfterFunc(ctx, stop) // a second signal ends the program at once
	// Without this, writing into a closed pipe (ots tunnel tail … | head) would kill the
	// program before it has cleaned up; it becomes the error of the write.
	signal.Notify(make(chan os.Signal, 1), syscall.SIGPIPE)
	os.Exit(run(ctx, os.Args[1:], os.Stdin, os.Stdout, os.Stderr))
}

// run runs one command and returns the exit code.
func run(ctx context.Context, args []string, stdin io.Reader, stdout, stderr io.Writer) int {
	root := newRoot()
	root.SetArgs(args)
	root.SetOut(stdout)
	root.SetErr(stderr)
	root.SetIn(stdin)
	err := root.ExecuteContext(ctx)
	var usage usageError
	switch {
	case err == nil, errors.Is(err, syscall.EPIPE): // the reader of our output has enough
		return exitOK
	case errors.Is(err, errFailed):
		return exitFailed
	case errors.Is(err, errDeclined):
		fmt.Fprintf(stderr, "ots: %v\n", err)
		return exitFailed
	case errors.As(err, &usage):
		fmt.Fprintf(stderr, "ots: %v; see ots --help\n", err)
		return exitUsage
	default:
		fmt.Fprintf(stderr, "ots: %v\n", err)
		return exitError
	}
}

// newRoot returns the command with its subcommands.
func newRoot() *cobra.Command {
	root := &cobra.Command{
		Use:   "ots",
		Short: "Work with Tablestore (Aliyun OTS) tunnels",
		Long: `ots works with Tablestore (Aliyun OTS) tunnels.

The connection comes from flags, from the environment (OTS_ENDPOINT, OTS_INSTANCE,
OTS_ACCESS_KEY_ID, OTS_ACCESS_KEY_SECRET, ...) or from a profile. docs/ots.md describes all
commands.

Exit codes: 0 all is well; 1 the command found something that is not; 2 wrong
flags or arguments; 3 the command could not do its work.`,
		Example: `  ots emulator --demo
  ots tunnel tail demo/orders
      a table that changes, in one terminal, and its changes in another`,
		SilenceErrors: true,
		SilenceUsage:  true,
		Args:          noSuchCommand,
		RunE:          func(cmd *cobra.Command, _ []string) error { return cmd.Help() },
	}
	root.SetFlagErrorFunc(func(_ *cobra.Command, err error) error { return usageError{err} })
	root.AddCommand(newEmulator(), newGraph(), newLagServer(), newLetters(), newLint(), newSchema(), newVerify(), newTable(), newTunnel(), newReplay(), newVersion())
	return root
}

// noSuchCommand refuses arguments of the command itself.
func noSuchCommand(cmd *cobra.Command, args []string) error {
	if len(args) == 0 {
		return nil
	}
	return usageError{fmt.Errorf("there is no command %q", args[0])}
}

// noArguments refuses arguments of a subcommand.
func noArguments(cmd *cobra.Command, args []string) error {
	if len(args) == 0 {
		return nil
	}
	return usageError{fmt.Errorf("%s takes no arguments, and was given %q; all settings are flags", cmd.CommandPath(), args[0])}
}
