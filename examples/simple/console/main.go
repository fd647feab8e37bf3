package console

import (
	"context"
	"flag"
	"fmt"
	"log/slog"
	"os"
	"os/signal"
	"syscall"
	"time"

	"github.com/ThreeDotsLabs/watermill"

	"github.com/watermill-ots/watermill-ots/examples/cli"
)

// Main is an example's main function: it reads the flags and calls run, whose context
// ends at Ctrl-C and SIGTERM. A second signal ends the program at once. duration is the
// default of -duration, which says how long the table is written to.
func Main(name string, duration time.Duration, run func(ctx context.Context, duration time.Duration, logger watermill.LoggerAdapter) error) {
	flag.DurationVar(&duration, "duration", duration, "how long the table is written to")
	verbose := flag.Bool("v", false, "log what the library does")
	cli.ParseFlags()
	var logger watermill.LoggerAdapter = watermill.NopLogger{}
	if *verbose {
		logger = watermill.NewSlogLogger(slog.New(slog.NewTextHandler(os.Stderr, &slog.HandlerOptions{Level: slog.LevelDebug})))
	}
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	context.AfterFunc(ctx, stop)
	if err := run(ctx, duration, logger); err != nil {
		fmt.Fprintf(os.Stderr, "%s: %v\n", name, err)
		os.Exit(1)
	}
}
