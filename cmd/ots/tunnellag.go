package main

import (
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"text/tabwriter"
	"time"

	"github.com/spf13/cobra"
)

// lagView is what "ots tunnel lag" shows.
type lagView struct {
	Table    string   `json:"table"`
	Tunnel   string   `json:"tunnel"`
	Stage    string   `json:"stage"`
	Expired  bool     `json:"expired"`
	Lag      *float64 `json:"lag_seconds"` // of the channel that is farthest behind; null while it is not known
	Channels int      `json:"channels"`    // that are not at their ends
	Held     int      `json:"held"`        // of these, by clients
	Clients  int      `json:"clients"`
}

// lag sums a tunnel up.
func (v tunnelView) lag() lagView {
	l := lagView{Table: v.Table, Tunnel: v.Tunnel, Stage: v.Stage, Expired: v.Expired, Lag: v.Lag, Clients: v.Clients}
	for _, c := range v.Channels {
		if c.Status == terminated {
			continue
		}
		l.Channels++
		if c.Client != "" {
			l.Held++
		}
	}
	return l
}

func newTunnelLag() *cobra.Command {
	var c connection
	var out output
	var limit time.Duration
	cmd := &cobra.Command{
		Use:   "lag TABLE/TUNNEL",
		Short: "Print how far a tunnel is behind",
		Long: `lag prints how far the slowest channel of a tunnel is behind: how long ago the time is
up to which it was read, as the service sees it, over all clients.

With --max, the exit code is 1 if it is more than that, if the tunnel has expired, or if
the lag is not known because no change was read yet.`,
		Example: "  ots tunnel lag orders/warehouse\n  ots tunnel lag orders/warehouse --max 5m || alert",
		Args:    oneArgument("TABLE/TUNNEL"),
		RunE: func(cmd *cobra.Command, args []string) error {
			if limit < 0 {
				return usageError{fmt.Errorf("--max is %v; it takes a positive duration, such as 5m", limit)}
			}
			in, t, err := openTopic(cmd, &c, &out, args[0])
			if err != nil {
				return err
			}
			defer in.close()
			v, _, err := in.look(cmd.Context(), t)
			if err != nil {
				return err
			}
			l := v.lag()
			err = out.print(cmd.OutOrStdout(), l, func(t *tabwriter.Writer) {
				row(t, "TUNNEL", "LAG", "CHANNELS", "HELD", "CLIENTS", "STAGE")
				row(t, l.Table+"/"+l.Tunnel, lagText(l.Lag), l.Channels, l.Held, l.Clients, v.stage())
			})
			if err == nil && limit > 0 && (l.Expired || l.Lag == nil || *l.Lag > limit.Seconds()) {
				return errFailed
			}
			return err
		},
	}
	c.addFlags(cmd)
	out.addFlag(cmd)
	cmd.Flags().DurationVar(&limit, "max", 0, "`LAG` beyond which the exit code is 1 (default no limit)")
	return cmd
}

func newTunnelWatch() *cobra.Command {
	var c connection
	var out output
	var every time.Duration
	var count int
	cmd := &cobra.Command{
		Use:   "watch TABLE/TUNNEL",
		Short: "Show a tunnel again and again, until Ctrl-C",
		Long: `watch shows what describe shows, again after each --interval, until Ctrl-C. On a
terminal each view takes the place of the one before. With -o json each view is one line.`,
		Example: "  ots tunnel watch orders/warehouse\n  ots tunnel watch orders/warehouse --interval 10s -o json >> lag.jsonl",
		Args:    oneArgument("TABLE/TUNNEL"),
		RunE: func(cmd *cobra.Command, args []string) error {
			switch {
			case every < 100*time.Millisecond:
				return usageError{fmt.Errorf("--interval is %v; it takes at least 100ms", every)}
			case count < 0:
				return usageError{fmt.Errorf("--count is %d; it takes a positive number, or 0 for no limit", count)}
			}
			in, t, err := openTopic(cmd, &c, &out, args[0])
			if err != nil {
				return err
			}
			defer in.close()
			for n := 1; ; n++ {
				v, _, err := in.look(cmd.Context(), t)
				if cmd.Context().Err() != nil {
					return nil // Ctrl-C is how it ends
				}
				if err != nil {
					return err
				}
				if err := showView(cmd.OutOrStdout(), &out, v); err != nil {
					return err
				}
				if n == count || pause(cmd.Context(), every) != nil {
					return nil
				}
			}
		},
	}
	c.addFlags(cmd)
	out.addFlag(cmd)
	cmd.Flags().DurationVar(&every, "interval", 2*time.Second, "pause between two views")
	cmd.Flags().IntVar(&count, "count", 0, "number of views after which it ends (default no limit)")
	return cmd
}

// showView prints a view of watch in one write, so that a terminal does not flicker.
func showView(w io.Writer, out *output, v tunnelView) error {
	var b bytes.Buffer
	if out.format == "json" {
		line, err := json.Marshal(struct {
			Time time.Time `json:"time"`
			tunnelView
		}{time.Now().UTC(), v})
		if err != nil {
			return err
		}
		b.Write(append(line, '\n'))
	} else {
		if isTerminal(w) {
			b.WriteString("\x1b[H\x1b[2J")
		}
		t := tabwriter.NewWriter(&b, 0, 8, 2, ' ', 0)
		v.print(t)
		if err := t.Flush(); err != nil {
			return err
		}
		if !isTerminal(w) {
			b.WriteByte('\n')
		}
	}
	_, err := w.Write(b.Bytes())
	return err
}
