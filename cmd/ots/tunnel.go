package main

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"text/tabwriter"
	"time"

	"github.com/aliyun/aliyun-tablestore-go-sdk/tunnel"
	"github.com/aliyun/aliyun-tablestore-go-sdk/tunnel/protocol"
	"github.com/spf13/cobra"

	"github.com/watermill-ots/watermill-ots/internal/tunnelapi"
	"github.com/watermill-ots/watermill-ots/subscriber"
)

// newTunnel returns the command tunnel.
func newTunnel() *cobra.Command {
	cmd := group("tunnel", "List, create, watch, tail and reset tunnels")
	cmd.AddCommand(newTunnelList(), newTunnelDescribe(), newTunnelCreate(), newTunnelDelete(), newTunnelReset(), newTunnelLag(), newTunnelWatch(), newTunnelTail(), newTunnelRecord())
	return cmd
}

// tunnelView is a tunnel as the service shows it.
type tunnelView struct {
	Table   string    `json:"table"`
	Tunnel  string    `json:"tunnel"`
	ID      string    `json:"id"`
	Type    string    `json:"type"`
	Stage   string    `json:"stage"`
	Expired bool      `json:"expired"`
	Created time.Time `json:"created"`
	Start   string    `json:"start,omitempty"`
	End     string    `json:"end,omitempty"`

	Clients  int           `json:"clients,omitempty"` // that hold channels
	Lag      *float64      `json:"lag_seconds,omitempty"`
	Channels []channelView `json:"channels,omitempty"`
}

// channelView is a channel as the service shows it.
type channelView struct {
	ID       string    `json:"id"`
	Type     string    `json:"type"`
	Status   string    `json:"status"`
	Client   string    `json:"client,omitempty"`
	Position time.Time `json:"position,omitzero"` // up to when it was consumed
	LastRead time.Time `json:"last_read,omitzero"`
	Lag      *float64  `json:"lag_seconds,omitempty"`
}

// terminated is the status of a channel that was read to its end.
const terminated = "TERMINATED"

// viewOfTunnel returns what the service says about a tunnel, without its channels.
func viewOfTunnel(info *tunnel.TunnelInfo) tunnelView {
	v := tunnelView{
		Table: info.TableName, Tunnel: info.TunnelName, ID: info.TunnelId, Type: info.TunnelType, Stage: info.Stage,
		Expired: info.Expired, Created: info.CreateTime.UTC(),
	}
	if c := info.StreamTunnelConfig; c != nil {
		v.Start, v.End = startOf(c), ""
		if c.EndOffset > 0 {
			v.End = shownTime(time.Unix(0, int64(c.EndOffset)))
		}
	}
	return v
}

// startOf returns where a tunnel's changes begin, as --start takes it.
func startOf(c *tunnel.StreamTunnelConfig) string {
	switch {
	case c.StartOffset > 0:
		return shownTime(time.Unix(0, int64(c.StartOffset)))
	case c.Flag == protocol.StartOffsetFlag_EARLIEST:
		return "earliest"
	}
	return "latest"
}

// addChannels adds the channels of a description and what is known of their reads.
func (v *tunnelView) addChannels(resp *tunnel.DescribeTunnelResponse, reads map[string]*tunnel.RpoLatency, now time.Time) {
	clients := make(map[string]bool)
	for _, c := range resp.Channels {
		ch := channelView{ID: c.ChannelId, Type: c.ChannelType, Status: c.ChannelStatus, Client: c.ClientId}
		if p := reads[c.ChannelId]; p != nil {
			ch.LastRead = tunnelapi.SinceEpoch(p.AccessTime).UTC()
			ch.Position = tunnelapi.SinceEpoch(p.RpoTime)
		}
		if at := tunnelapi.SinceEpoch(c.ChannelRPO); at.After(ch.Position) {
			ch.Position = at
		}
		if ch.Type != string(subscriber.Stream) {
			ch.Position = time.Time{} // base data has no time
		}
		if c.ChannelStatus != terminated {
			if ch.Client != "" {
				clients[ch.Client] = true
			}
			if !ch.Position.IsZero() {
				lag := max(0, now.Sub(ch.Position)).Seconds()
				ch.Lag = &lag
				if v.Lag == nil || lag > *v.Lag {
					v.Lag = &lag
				}
			}
		}
		ch.Position = ch.Position.UTC()
		v.Channels = append(v.Channels, ch)
	}
	v.Clients = len(clients)
	slices.SortFunc(v.Channels, func(a, b channelView) int {
		return cmp.Or(cmp.Compare(a.Type, b.Type), cmp.Compare(a.ID, b.ID))
	})
}

// look returns a tunnel with its channels.
func (in *instance) look(ctx context.Context, t topic) (tunnelView, *tunnel.DescribeTunnelResponse, error) {
	resp, err := in.describeTunnel(ctx, t)
	if err != nil {
		return tunnelView{}, nil, err
	}
	v := viewOfTunnel(resp.Tunnel)
	var reads map[string]*tunnel.RpoLatency
	err = retried(ctx, func() error {
		return in.tunnels.Call(ctx, "getrpo", func(api *tunnel.TunnelApi) error {
			rpo, err := api.GetRpo(&tunnel.GetRpoRequest{TunnelId: resp.Tunnel.TunnelId})
			if err == nil {
				reads = tunnelapi.ReadPoints(rpo)
			}
			return err
		})
	})
	if err != nil {
		return tunnelView{}, nil, fmt.Errorf("asking how far tunnel %s was read: %w", t, in.advise(err))
	}
	v.addChannels(resp, reads, time.Now())
	return v, resp, nil
}

// lagText returns a lag for people.
func lagText(seconds *float64) string {
	if seconds == nil {
		return "-"
	}
	return shownLag(time.Duration(*seconds * float64(time.Second)))
}

// stage returns the stage of a tunnel for people.
func (v tunnelView) stage() string {
	if v.Expired {
		return v.Stage + ", EXPIRED"
	}
	return v.Stage
}

func newTunnelList() *cobra.Command {
	var c connection
	var out output
	cmd := &cobra.Command{
		Use:     "list [TABLE]",
		Short:   "List the tunnels of a table, or of all tables",
		Example: "  ots tunnel list\n  ots tunnel list orders -o json",
		Args:    atMostOne("the name of a TABLE"),
		RunE: func(cmd *cobra.Command, args []string) error {
			if err := out.check(); err != nil {
				return err
			}
			for _, name := range args {
				if err := checkTable("the argument", name); err != nil {
					return err
				}
			}
			in, err := c.open(cmd)
			if err != nil {
				return err
			}
			defer in.close()
			tables := args
			if len(args) == 0 {
				if tables, err = in.listTables(cmd.Context()); err != nil {
					return err
				}
			}
			views := []tunnelView{}
			for _, table := range tables {
				infos, err := in.listTunnels(cmd.Context(), table)
				if err != nil {
					return err
				}
				for _, info := range infos {
					views = append(views, viewOfTunnel(info))
				}
			}
			return out.print(cmd.OutOrStdout(), views, func(t *tabwriter.Writer) {
				row(t, "TUNNEL", "TYPE", "STAGE", "CREATED")
				for _, v := range views {
					row(t, v.Table+"/"+v.Tunnel, v.Type, v.stage(), shownTime(v.Created))
				}
			})
		},
	}
	c.addFlags(cmd)
	out.addFlag(cmd)
	return cmd
}

func newTunnelDescribe() *cobra.Command {
	var c connection
	var out output
	cmd := &cobra.Command{
		Use:   "describe TABLE/TUNNEL",
		Short: "Show a tunnel, its channels, who reads them and how far they are",
		Long: `describe shows a tunnel as the service sees it: over all clients, in whatever
process. LAG is how long ago the time is up to which a channel was read, by the clock of
this machine; base data has none. A client that holds no channel is not shown.`,
		Example: "  ots tunnel describe orders/warehouse\n  ots tunnel describe orders/warehouse -o json",
		Args:    oneArgument("TABLE/TUNNEL"),
		RunE: func(cmd *cobra.Command, args []string) error {
			in, t, err := openTopic(cmd, &c, &out, args[0])
			if err != nil {
				return err
			}
			defer in.close()
			v, _, err := in.look(cmd.Context(), t)
			if err != nil {
				return err
			}
			return out.print(cmd.OutOrStdout(), v, v.print)
		},
	}
	c.addFlags(cmd)
	out.addFlag(cmd)
	return cmd
}

// openTopic checks the output and the argument of a command about one tunnel, and opens the
// connection.
func openTopic(cmd *cobra.Command, c *connection, out *output, arg string) (*instance, topic, error) {
	if out != nil {
		if err := out.check(); err != nil {
			return nil, topic{}, err
		}
	}
	t, err := parseTopic(arg)
	if err != nil {
		return nil, topic{}, err
	}
	in, err := c.open(cmd)
	return in, t, err
}

// print prints v for people.
func (v tunnelView) print(t *tabwriter.Writer) {
	row(t, "Tunnel", v.Table+"/"+v.Tunnel)
	row(t, "Id", v.ID)
	row(t, "Type", v.Type)
	row(t, "Stage", v.stage())
	row(t, "Created", shownTime(v.Created))
	if v.Type == string(subscriber.Stream) && v.Start != "" {
		row(t, "Begins", v.Start)
	}
	if v.End != "" {
		row(t, "Ends", v.End)
	}
	row(t, "Clients", v.Clients)
	row(t, "Lag", lagText(v.Lag))
	fmt.Fprintln(t)
	row(t, "CHANNEL", "TYPE", "STATUS", "LAG", "POSITION", "CLIENT")
	for _, c := range v.Channels {
		row(t, c.ID, c.Type, c.Status, lagText(c.Lag), shownTime(c.Position), orDash(c.Client))
	}
}

// definition is what a tunnel is created with.
type definition struct{ typ, start, end string }

// addFlags adds the flags of a definition.
func (d *definition) addFlags(cmd *cobra.Command) {
	f := cmd.Flags()
	f.StringVar(&d.typ, "type", "BaseAndStream", "`TYPE`: BaseAndStream (all rows, then all changes), Stream (only changes) or BaseData (all rows once)")
	d.addStart(cmd, "latest")
	f.StringVar(&d.end, "end", "", "`TIME` after which changes are not delivered and the tunnel ends, such as 2026-01-31T00:00:00Z (default never)")
	completeWith(cmd, "type", "BaseAndStream", "Stream", "BaseData")
}

func (d *definition) addStart(cmd *cobra.Command, standard string) {
	cmd.Flags().StringVar(&d.start, "start", standard, "where the changes of a Stream tunnel begin: latest, earliest (all that the stream keeps), a `TIME` such as 2026-01-31T00:00:00Z, or a duration ago such as 1h")
	completeWith(cmd, "start", "latest", "earliest")
}

// request returns the request that creates such a tunnel.
func (d *definition) request(now time.Time) (*tunnel.CreateTunnelRequest, error) {
	req := &tunnel.CreateTunnelRequest{Type: tunnel.TunnelType(d.typ)}
	switch req.Type {
	case tunnel.TunnelTypeBaseData, tunnel.TunnelTypeStream, tunnel.TunnelTypeBaseStream:
	default:
		return nil, usageError{fmt.Errorf("--type is %q; it takes BaseAndStream, Stream or BaseData", d.typ)}
	}
	config, err := streamConfig("--start", d.start, now)
	if err != nil {
		return nil, err
	}
	if d.start != "latest" && req.Type != tunnel.TunnelTypeStream {
		return nil, usageError{fmt.Errorf("--start is of --type Stream: a %s tunnel begins with all rows", d.typ)}
	}
	if d.end != "" {
		end, err := time.Parse(time.RFC3339, d.end)
		switch {
		case err != nil:
			return nil, usageError{fmt.Errorf("--end is %q; it takes a time such as 2026-01-31T00:00:00Z", d.end)}
		case req.Type == tunnel.TunnelTypeBaseData:
			return nil, usageError{errors.New("--end is of changes: a BaseData tunnel has none, and ends with its rows")}
		case end.Year() < 1970 || end.Year() > lastYear:
			return nil, usageError{fmt.Errorf("--end is %s; it must be between 1970 and the end of %d", d.end, lastYear)}
		case uint64(end.UnixNano()) <= config.StartOffset:
			return nil, usageError{fmt.Errorf("--end is %s; it must be after --start", d.end)}
		}
		config.EndOffset = uint64(end.UnixNano())
	}
	if *config != (tunnel.StreamTunnelConfig{Flag: protocol.StartOffsetFlag_LATEST}) {
		req.StreamTunnelConfig = config
	}
	return req, nil
}

// lastYear is the last whole year that the service's nanoseconds since 1970 can express.
const lastYear = 2261

// streamConfig reads where changes begin: latest, earliest, a time, or a duration ago.
// Offsets are nanoseconds [docs/protocol.md, Start and end of a tunnel].
func streamConfig(flag, text string, now time.Time) (*tunnel.StreamTunnelConfig, error) {
	config := &tunnel.StreamTunnelConfig{Flag: protocol.StartOffsetFlag_LATEST}
	switch text {
	case "latest":
		return config, nil
	case "earliest":
		config.Flag = protocol.StartOffsetFlag_EARLIEST
		return config, nil
	}
	at, err := time.Parse(time.RFC3339, text)
	if err != nil {
		ago, err := time.ParseDuration(text)
		if err != nil || ago <= 0 {
			return nil, usageError{fmt.Errorf("%s is %q; it takes latest, earliest, a time such as 2026-01-31T00:00:00Z or a duration ago such as 1h", flag, text)}
		}
		at = now.Add(-ago)
	}
	if at.After(now) || at.Before(time.Unix(0, 1)) {
		return nil, usageError{fmt.Errorf("%s is %q; it must be in the past", flag, text)}
	}
	config.StartOffset = uint64(at.UnixNano())
	return config, nil
}

func newTunnelCreate() *cobra.Command {
	var c connection
	var d definition
	cmd := &cobra.Command{
		Use:   "create TABLE/TUNNEL",
		Short: "Create a tunnel",
		Example: `  ots tunnel create orders/warehouse
      all rows of the table, then all changes
  ots tunnel create orders/audit --type Stream --start 1h
      the changes since an hour ago`,
		Args: oneArgument("TABLE/TUNNEL"),
		RunE: func(cmd *cobra.Command, args []string) error {
			req, err := d.request(time.Now())
			if err != nil {
				return err
			}
			in, t, err := openTopic(cmd, &c, nil, args[0])
			if err != nil {
				return err
			}
			defer in.close()
			if err := in.createTunnel(cmd.Context(), t, req); err != nil {
				if isExisting(err) {
					return fmt.Errorf("%w; see ots tunnel describe %s, or begin anew with ots tunnel reset %s", err, t, t)
				}
				return err
			}
			_, err = fmt.Fprintf(cmd.OutOrStdout(), "Created tunnel %s (%s).\n", t, d.typ)
			return err
		},
	}
	d.addFlags(cmd)
	c.addFlags(cmd)
	return cmd
}

// clientsOf returns the ids of the clients that hold channels of a tunnel, sorted.
func (v tunnelView) clientsOf() []string {
	var ids []string
	for _, c := range v.Channels {
		if c.Client != "" && c.Status != terminated && !slices.Contains(ids, c.Client) {
			ids = append(ids, c.Client)
		}
	}
	slices.Sort(ids)
	return ids
}

// refuseClients refuses while clients are connected, unless force.
func (v tunnelView) refuseClients(force bool) error {
	ids := v.clientsOf()
	if len(ids) == 0 || force {
		return nil
	}
	return fmt.Errorf("tunnel %s/%s has clients that hold its channels: %s; stop them first (a client that was killed is listed until its heartbeat timeout), or add --force", v.Table, v.Tunnel, strings.Join(ids, ", "))
}

func newTunnelDelete() *cobra.Command {
	var c connection
	var ask consent
	var force bool
	cmd := &cobra.Command{
		Use:   "delete TABLE/TUNNEL",
		Short: "Delete a tunnel and its checkpoints",
		Long: `delete deletes a tunnel and its checkpoints. The table stays as it is. It asks
before, and refuses while clients hold channels of the tunnel.`,
		Example: "  ots tunnel delete orders/warehouse\n  ots tunnel delete orders/warehouse --yes",
		Args:    oneArgument("TABLE/TUNNEL"),
		RunE: func(cmd *cobra.Command, args []string) error {
			in, t, err := openTopic(cmd, &c, nil, args[0])
			if err != nil {
				return err
			}
			defer in.close()
			v, _, err := in.look(cmd.Context(), t)
			if err != nil {
				return err
			}
			if err := v.refuseClients(force); err != nil {
				return err
			}
			if err := ask.ask(cmd, fmt.Sprintf("This deletes tunnel %s of instance %s (%s, created %s) with its checkpoints. It cannot be undone.", t, in.instance(), v.Type, shownTime(v.Created))); err != nil {
				return err
			}
			if err := in.deleteTunnel(cmd.Context(), t, v.ID); err != nil {
				return err
			}
			_, err = fmt.Fprintf(cmd.OutOrStdout(), "Deleted tunnel %s.\n", t)
			return err
		},
	}
	c.addFlags(cmd)
	ask.addFlag(cmd)
	cmd.Flags().BoolVar(&force, "force", false, "also while clients hold channels of the tunnel; their subscriptions end with an error")
	return cmd
}
