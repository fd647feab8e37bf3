package main

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"sync"
	"time"

	"github.com/aliyun/aliyun-tablestore-go-sdk/tunnel"
	"github.com/spf13/cobra"

	"github.com/watermill-ots/watermill-ots/emulator"
	"github.com/watermill-ots/watermill-ots/internal/emulatorcli"
	"github.com/watermill-ots/watermill-ots/ots"
)

// newEmulator returns the command emulator. Its flags are those of ots-emulator, and --demo.
func newEmulator() *cobra.Command {
	settings := emulatorcli.New("ots emulator")
	var demo bool
	var pace time.Duration
	cmd := &cobra.Command{
		Use:   "emulator",
		Short: "Run a Tablestore on this machine, for tests and to try things",
		Long: `emulator runs a Tablestore (Aliyun OTS) on this machine: the table API and the
tunnel API, for tests and development without a cloud account. docs/emulator.md
says what it imitates.

With --demo it has the table "demo" with a tunnel "orders", and writes changes to the
table for as long as it runs. Other commands find this emulator at its default address
when no connection is set.`,
		Example: `  ots emulator
      at http://127.0.0.1:8087, in memory, with any instance and credentials
  ots emulator --demo
      the same with a table that changes; try "ots tunnel tail demo/orders" beside it
  ots emulator --data-dir ./data --seed tables.yaml
      keeps everything in ./data, and creates the tables of the file that do not exist yet`,
		Args: noArguments,
		RunE: func(cmd *cobra.Command, _ []string) error {
			if err := settings.Check(); err != nil {
				return usageError{err}
			}
			if pace <= 0 {
				return usageError{fmt.Errorf("--demo-pause is %v; it takes a positive duration, such as 500ms", pace)}
			}
			if !demo && cmd.Flags().Changed("demo-pause") {
				return usageError{errors.New("--demo-pause is of the demo: it needs --demo")}
			}
			var ready func(*emulator.Emulator) error
			ctx, stop := context.WithCancel(cmd.Context())
			var writer sync.WaitGroup
			if demo {
				ready = func(e *emulator.Emulator) error {
					if err := prepareDemo(ctx, e, settings.Options); err != nil {
						return fmt.Errorf("--demo: %w", err)
					}
					writer.Go(func() { writeDemo(ctx, e, pace, settings.Options.Logger) }) // waited for below
					return nil
				}
			}
			err := settings.Serve(cmd.Context(), cmd.OutOrStdout(), cmd.ErrOrStderr(), ready)
			stop()
			writer.Wait()
			return err
		},
	}
	flags := cmd.Flags()
	flags.AddGoFlagSet(settings.Flags)
	flags.BoolVar(&demo, "demo", false, `create the table "demo" and its tunnel "orders", and change rows until the end`)
	flags.DurationVar(&pace, "demo-pause", 500*time.Millisecond, "pause between two changes of --demo")
	return cmd
}

// The table and the tunnel of the demo.
const (
	demoTable  = "demo"
	demoTunnel = "orders"
)

// prepareDemo creates the table and the tunnel of the demo, unless a data directory has them.
func prepareDemo(ctx context.Context, e *emulator.Emulator, opts emulator.Options) error {
	err := e.CreateTable(demoTable, emulator.Key("id", emulator.Integer))
	if err != nil && !isExisting(err) {
		return err
	}
	c := connection{endpoint: e.Endpoint(), instance: orDefault(opts.Instance, demoInstance), region: opts.Region}
	c.credentials = ots.Credentials{
		AccessKeyID: orDefault(opts.AccessKeyID, "demo"), AccessKeySecret: orDefault(opts.AccessKeySecret, "demo"), SecurityToken: opts.SecurityToken,
	}
	in := c.dial()
	defer in.close()
	err = in.createTunnel(ctx, topic{demoTable, demoTunnel}, &tunnel.CreateTunnelRequest{Type: tunnel.TunnelTypeBaseStream})
	if err != nil && !isExisting(err) {
		return err
	}
	return nil
}

func orDefault(value, standard string) string {
	if value == "" {
		return standard
	}
	return value
}

// demoRows is how many rows the demo's table has at most.
const demoRows = 50

// writeDemo changes a row of the demo's table after each pause, until ctx ends.
func writeDemo(ctx context.Context, e *emulator.Emulator, pause time.Duration, log *slog.Logger) {
	customers := []string{"ada", "bo", "chen", "dana", "eli"}
	exists := make(map[int64]bool)
	ticker := time.NewTicker(pause)
	defer ticker.Stop()
	for {
		id := rand.Int64N(demoRows) + 1
		key := emulator.Row{"id": id}
		var err error
		switch {
		case !exists[id]:
			err = e.Put(demoTable, emulator.Row{"id": id, "customer": customers[rand.IntN(len(customers))], "amount": float64(rand.IntN(10000)) / 100, "status": "new"})
			exists[id] = true
		case rand.IntN(4) == 0:
			err = e.Delete(demoTable, key)
			exists[id] = false
		default:
			err = e.Update(demoTable, emulator.Row{"id": id, "status": []string{"paid", "sent", "done"}[rand.IntN(3)]})
		}
		if err != nil && ctx.Err() == nil {
			log.Error("the demo cannot write", "error", err)
		}
		select {
		case <-ticker.C:
		case <-ctx.Done():
			return
		}
	}
}
