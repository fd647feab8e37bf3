package main

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"strings"
	"syscall"
	"time"

	"github.com/ThreeDotsLabs/watermill"
	"github.com/ThreeDotsLabs/watermill/message"
	"github.com/aliyun/aliyun-tablestore-go-sdk/tunnel"
	"github.com/spf13/cobra"

	"github.com/watermill-ots/watermill-ots/internal/service"
	"github.com/watermill-ots/watermill-ots/ots"
	"github.com/watermill-ots/watermill-ots/subscriber"
)

// ownTunnelPrefix begins the names of the tunnels that tail and record create and delete.
const ownTunnelPrefix = "ots-tail-"

// reading says what tail and record read.
type reading struct {
	connection
	table       string
	since       string
	base        bool
	join, force bool
}

// addFlags adds the flags of a reading.
func (r *reading) addFlags(cmd *cobra.Command) {
	f := cmd.Flags()
	f.StringVar(&r.table, "table", "", "`TABLE` to read, instead of the argument TABLE/TUNNEL")
	f.StringVar(&r.since, "since", "latest", "where the changes begin: latest, earliest (all that the stream keeps), a `TIME`, or a duration ago such as 1h")
	f.BoolVar(&r.base, "base", false, "all rows of the table first, then the changes")
	f.BoolVar(&r.join, "join", false, "read TABLE/TUNNEL itself, as one more of its clients: what is read counts as handled")
	f.BoolVar(&r.force, "force", false, "with --join: also while other clients hold channels of the tunnel")
	completeWith(cmd, "since", "latest", "earliest")
	r.connection.addFlags(cmd)
}

// topic returns the tunnel that the arguments name; without one only the table is set.
func (r *reading) topic(cmd *cobra.Command, args []string) (topic, error) {
	flags := cmd.Flags()
	switch {
	case len(args) > 1:
		return topic{}, usageError{fmt.Errorf("%s takes one argument, TABLE/TUNNEL, and was given %q, too", cmd.CommandPath(), args[1])}
	case len(args) == 1 && r.table != "":
		return topic{}, usageError{errors.New("--table replaces the argument TABLE/TUNNEL: give one of them")}
	case len(args) == 0 && r.table == "":
		return topic{}, usageError{fmt.Errorf("%s needs TABLE/TUNNEL, or --table", cmd.CommandPath())}
	case r.join && r.table != "":
		return topic{}, usageError{errors.New("--join reads a tunnel that exists: give TABLE/TUNNEL instead of --table")}
	case r.join && (flags.Changed("since") || r.base):
		return topic{}, usageError{errors.New("--since and --base are of a tunnel of its own: with --join the tunnel's checkpoints say where reading begins")}
	case r.force && !r.join:
		return topic{}, usageError{errors.New("--force is of --join, which is not set: without it no other client is disturbed")}
	case r.base && flags.Changed("since"):
		return topic{}, usageError{errors.New("--base begins with all rows, so --since has no effect: give one of them")}
	}
	if _, err := streamConfig("--since", r.since, time.Now()); err != nil {
		return topic{}, err
	}
	if len(args) == 0 {
		return topic{table: r.table}, checkTable("--table", r.table)
	}
	return parseTopic(args[0])
}

// run reads records and calls f for each, one call at a time for each channel, until f
// returns an error, the tunnel ends or ctx ends. It returns nil for errEnough and when ctx
// ends. A tunnel of its own is deleted at the end. begun is called when reading begins.
func (r *reading) run(cmd *cobra.Command, t topic, f func(*ots.Record) error, begun func(string)) (err error) {
	in, err := r.open(cmd)
	if err != nil {
		return err
	}
	defer in.close()
	ctx := cmd.Context()
	if t.tunnel != "" {
		v, _, err := in.look(ctx, t)
		if err != nil {
			return err
		}
		if r.join {
			if err := v.refuseClients(r.force); err != nil {
				return err
			}
		}
	}
	if !r.join {
		t.tunnel = ownTunnelPrefix + strings.ToLower(rand.Text()[:10])
		defer func() { err = errors.Join(err, in.removeOwn(ctx, t)) }() // also if it is not known whether it was created
		if err := in.createOwn(ctx, t, r); err != nil {
			if ctx.Err() != nil {
				return nil
			}
			return err
		}
	}
	return in.handle(ctx, cmd.ErrOrStderr(), t, f, begun)
}

// createOwn creates the tunnel that a reading deletes at its end.
func (in *instance) createOwn(ctx context.Context, t topic, r *reading) error {
	req := &tunnel.CreateTunnelRequest{Type: tunnel.TunnelTypeStream}
	if r.base {
		req.Type = tunnel.TunnelTypeBaseStream
	} else if r.since != "latest" {
		config, err := streamConfig("--since", r.since, time.Now())
		if err != nil {
			return err
		}
		req.StreamTunnelConfig = config
	}
	err := in.createTunnel(ctx, t, req)
	if err != nil && r.since != "latest" {
		return fmt.Errorf("--since %s: %w; a tunnel cannot begin before what the table's stream keeps, see ots table describe %s", r.since, err, t.table)
	}
	return err
}

// removeOwn deletes a tunnel that createOwn may have created, also when ctx has ended.
func (in *instance) removeOwn(ctx context.Context, t topic) error {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), callTimeout)
	defer cancel()
	resp, err := in.describeTunnel(ctx, t)
	if errors.Is(err, ots.ErrTunnelGone) {
		return nil
	}
	if err == nil {
		err = in.deleteTunnel(ctx, t, resp.Tunnel.TunnelId)
	}
	if err != nil {
		return fmt.Errorf("the tunnel of this command is left: %w; run ots tunnel delete %s", err, t)
	}
	return nil
}

// flagTerms are the terms of advice for the user of this command.
var flagTerms = service.Terms{
	Endpoint: "--endpoint", Keys: "the access key", Region: "--region",
	Names: "TABLE/TUNNEL and --instance", Table: "TABLE", Create: "create it with ots tunnel create",
}

// handle subscribes to a tunnel and calls f for its records.
func (in *instance) handle(ctx context.Context, stderr io.Writer, t topic, f func(*ots.Record) error, begun func(string)) (err error) {
	cfg := in.subscriberConfig()
	cfg.Unmarshaler, cfg.Ordering, cfg.Preset = subscriber.None{}, subscriber.OrderByChannel, subscriber.PresetFleet
	cfg.TunnelViewInterval, cfg.CloseTimeout = subscriber.NoTunnelView, time.Second
	var level slog.LevelVar
	level.Set(slog.LevelError)
	logger := watermill.NewSlogLogger(slog.New(slog.NewTextHandler(stderr, &slog.HandlerOptions{Level: &level})))
	sub, err := subscriber.New(cfg, logger)
	if err != nil {
		return err // the connection was checked before
	}
	ctx, stop := context.WithCancelCause(service.WithTerms(ctx, flagTerms))
	defer stop(nil)
	done, err := sub.Handle(ctx, t.String(), func(msg *message.Message) error {
		record, ok := ots.RecordFromMessage(msg)
		if !ok {
			return errors.New("the message has no record")
		}
		err := f(record)
		if err == nil || errors.Is(err, errEnough) {
			stopFor(stop, err)
			return nil
		}
		level.Set(slog.LevelError + 1) // our caller reports err; that the record stays unsettled is meant
		stop(err)
		<-msg.Context().Done() // so that the record is not retried
		return err
	})
	if err == nil {
		begun(t.String())
		<-done
		err = sub.Err()
	}
	ended := context.Cause(ctx)
	closing := sub.Close()
	switch {
	case errors.Is(ended, errEnough), errors.Is(ended, syscall.EPIPE): // the reader of our output has enough
		return nil
	case ended != nil && !errors.Is(ended, context.Canceled):
		return ended
	case ended != nil:
		return nil // Ctrl-C
	case err != nil:
		return err
	}
	return closing
}

// stopFor stops because of err, if there is one.
func stopFor(stop context.CancelCauseFunc, err error) {
	if err != nil {
		stop(err)
	}
}

func newTunnelTail() *cobra.Command {
	var r reading
	var s selection
	var quiet bool
	cmd := &cobra.Command{
		Use:   "tail [TABLE/TUNNEL]",
		Short: "Print the changes of a table as they come, until Ctrl-C",
		Long: `tail prints the changes of a table as they come, until Ctrl-C.

It reads through a tunnel of its own, which it creates and deletes at the end: no
consumer loses a channel, and no checkpoint moves. The name of that tunnel begins with
` + ownTunnelPrefix + `; after a crash "ots tunnel delete" removes it. With --join it
reads TABLE/TUNNEL itself instead, as one more of its clients.`,
		Example: `  ots tunnel tail orders/warehouse
      the changes from now on
  ots tunnel tail --table orders --since 1h --key 7 --format json
      what happened to the row 7 in the last hour, and what happens to it
  ots tunnel tail --table orders --base --where 'row.amount > 100' --max 10
      ten rows of the table`,
		Args: cobra.ArbitraryArgs, // checked below
		RunE: func(cmd *cobra.Command, args []string) error {
			t, err := r.topic(cmd, args)
			if err != nil {
				return err
			}
			p, err := s.compile(cmd.OutOrStdout())
			if err != nil {
				return err
			}
			return r.run(cmd, t, p.print, func(topic string) {
				if !quiet {
					fmt.Fprintf(cmd.ErrOrStderr(), "Reading %s; end with Ctrl-C.\n", topic)
				}
			})
		},
	}
	r.addFlags(cmd)
	s.addFlags(cmd)
	cmd.Flags().BoolVarP(&quiet, "quiet", "q", false, "print records only")
	return cmd
}
