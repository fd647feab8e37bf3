package main

import (
	"errors"
	"fmt"
	"time"

	"github.com/aliyun/aliyun-tablestore-go-sdk/tunnel"
	"github.com/spf13/cobra"
)

func newTunnelReset() *cobra.Command {
	var c connection
	var ask consent
	var force bool
	var d definition
	cmd := &cobra.Command{
		Use:   "reset TABLE/TUNNEL",
		Short: "Recreate a tunnel, so that it begins anew",
		Long: `reset deletes a tunnel and creates it again with the same name and type, because the
service cannot move the checkpoints of a tunnel.

A Stream tunnel then begins at --start. A BaseAndStream tunnel begins with all rows of
the table, and a BaseData tunnel delivers them once more: what they feed must bear
repeats. An end of the tunnel is kept unless it would be before the start.

reset asks before, and refuses while clients hold channels of the tunnel. If it is
interrupted after the deletion, it says how to create the tunnel.`,
		Example: `  ots tunnel reset orders/audit --start 2h
      a Stream tunnel: deliver the changes of the last two hours again
  ots tunnel reset orders/warehouse --yes
      a BaseAndStream tunnel: deliver all rows again, then all changes`,
		Args: oneArgument("TABLE/TUNNEL"),
		RunE: func(cmd *cobra.Command, args []string) error {
			now := time.Now()
			if _, err := streamConfig("--start", d.start, now); err != nil {
				return err
			}
			in, t, err := openTopic(cmd, &c, nil, args[0])
			if err != nil {
				return err
			}
			defer in.close()
			v, _, err := in.look(cmd.Context(), t)
			if err != nil {
				return err
			}
			d.typ, d.end = v.Type, v.End
			stream := tunnel.TunnelType(v.Type) == tunnel.TunnelTypeStream
			switch {
			case !stream && cmd.Flags().Changed("start"):
				return usageError{fmt.Errorf("--start is of Stream tunnels: %s is %s, which begins with all rows", t, v.Type)}
			case stream && !cmd.Flags().Changed("start"):
				return usageError{errors.New("--start is not set: a Stream tunnel needs to know where its changes begin, such as --start 1h or --start latest (which skips what was not read)")}
			}
			req, err := d.request(now)
			if err != nil {
				return err
			}
			if err := v.refuseClients(force); err != nil {
				return err
			}
			if err := ask.ask(cmd, resetText(in, v, d)); err != nil {
				return err
			}
			if err := in.deleteTunnel(cmd.Context(), t, v.ID); err != nil {
				return err
			}
			if err := in.createTunnel(cmd.Context(), t, req); err != nil {
				return fmt.Errorf("the tunnel is deleted, and could not be created again: %w; run %s", err, createCommand(t, d))
			}
			_, err = fmt.Fprintf(cmd.OutOrStdout(), "Recreated tunnel %s (%s), which begins %s.\n", t, v.Type, beginsText(d))
			return err
		},
	}
	c.addFlags(cmd)
	d.addStart(cmd, "latest")
	ask.addFlag(cmd)
	cmd.Flags().BoolVar(&force, "force", false, "also while clients hold channels of the tunnel; their subscriptions end with an error")
	return cmd
}

// beginsText says where a tunnel begins.
func beginsText(d definition) string {
	if d.typ != string(tunnel.TunnelTypeStream) {
		return "with all rows of the table"
	}
	switch d.start {
	case "latest":
		return "with the changes from now on"
	case "earliest":
		return "with the oldest change that the stream keeps"
	}
	if _, err := time.ParseDuration(d.start); err == nil {
		return "with the changes of the last " + d.start
	}
	return "with the changes since " + d.start
}

// resetText says what a reset does.
func resetText(in *instance, v tunnelView, d definition) string {
	position := "Nothing is known to be read."
	if v.Lag != nil {
		position = "It was read up to " + lagText(v.Lag) + " ago."
	}
	return fmt.Sprintf(`This deletes tunnel %s/%s of instance %s with its checkpoints, and creates it again (%s).
%s
It will begin %s.`, v.Table, v.Tunnel, in.instance(), v.Type, position, beginsText(d))
}

// createCommand returns the command that creates the tunnel.
func createCommand(t topic, d definition) string {
	command := fmt.Sprintf("ots tunnel create %s --type %s", t, d.typ)
	if d.typ == string(tunnel.TunnelTypeStream) {
		command += " --start " + d.start
	}
	if d.end != "" {
		command += " --end " + d.end
	}
	return command
}
