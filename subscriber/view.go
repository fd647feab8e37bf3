package subscriber

import (
	"cmp"
	"context"
	"fmt"
	"slices"
	"time"

	"github.com/aliyun/aliyun-tablestore-go-sdk/tunnel"

	"github.com/watermill-ots/watermill-ots/ack"
	"github.com/watermill-ots/watermill-ots/internal/tunnelapi"
)

// TunnelView is a tunnel as the service sees it: every channel with the client that
// holds it, in this process or in others. A subscriber knows its own channels
// better (ChannelStatus); what it cannot know without asking is whether
// anybody reads the others.
type TunnelView struct {
	Time  time.Time `json:"time"`  // when the service answered, by this machine's clock
	Stage string    `json:"stage"` // what the tunnel does, in the service's words

	Clients  []ViewClient  `json:"clients"`  // those that hold channels, silent ones first
	Channels []ViewChannel `json:"channels"` // orphans first, then those that lag most
	Orphans  int           `json:"orphans"`  // channels whose State is ViewOrphan

	// Lag is that of the channel that is farthest behind; 0 while only base data is read.
	Lag time.Duration `json:"lag_ns"`

	// Error is why the service could not be asked since, or not about everything.
	Error string `json:"error,omitempty"`
}

// ViewClient is a tunnel client that holds channels.
type ViewClient struct {
	ID       string    `json:"id"`  // given by the service; begins with the client's tag
	Own      bool      `json:"own"` // it is one of this subscription
	Channels int       `json:"channels"`
	LastRead time.Time `json:"last_read,omitzero"` // of any of its channels, by the service's clock
	Silent   bool      `json:"silent"`             // it reads nothing any more: it is dead, or hangs
}

// ViewState says whether a client reads a channel.
type ViewState string

// The states of a channel in a TunnelView.
const (
	ViewHeld     ViewState = "held"     // a client holds it
	ViewOrphan   ViewState = "orphan"   // a client holds it that reads none of its channels; it stands still
	ViewWaiting  ViewState = "waiting"  // no client holds it: the service hands it out soon, or when the channels before it have ended
	ViewFinished ViewState = "finished" // it was read to its end
)

// ViewChannel is a channel of a tunnel.
type ViewChannel struct {
	ID       string    `json:"id"`
	ClientID string    `json:"client_id,omitempty"`
	Own      bool      `json:"own"`    // a client of this subscription holds it
	Status   string    `json:"status"` // in the service's words, such as "OPEN"
	State    ViewState `json:"state"`
	Base     bool      `json:"base"`

	// Position is the time up to which the channel was read, as far as the service
	// knows; zero for base data. Lag is how long ago that is.
	Position time.Time     `json:"position,omitzero"`
	Lag      time.Duration `json:"lag_ns"`
	LastRead time.Time     `json:"last_read,omitzero"` // by the service's clock
}

const (
	// orphanAfter is how long, at least, a client must not have read any of its channels to
	// count as silent. An idle channel is read once in MaxPollInterval, which is taken to be
	// the same in all processes of a fleet; other SDKs take up to 5 s.
	orphanAfter = 15 * time.Second
	// confirmAfter is how much later a second look confirms that a client is silent: a
	// channel that has just moved to another client was not read for a moment.
	confirmAfter = 3 * time.Second
	// viewTimeout bounds the calls of one look.
	viewTimeout = 10 * time.Second
)

// askView asks the service how the tunnel is. What it says besides an error is of use.
func (s *subscription) askView(ctx context.Context) (v *TunnelView, err error) {
	defer func() { // the SDK dereferences fields of the answers that may be missing
		if p := recover(); p != nil {
			err = fmt.Errorf("describing %s: the answer is incomplete: %w", s.topic, ack.NewPanicError("the SDK", p))
		}
	}()
	ctx, cancel := context.WithTimeout(ctx, viewTimeout)
	defer cancel()
	err = s.endpoint.Call(ctx, "describe", func(api *tunnel.TunnelApi) error {
		resp, err := api.DescribeTunnel(&tunnel.DescribeTunnelRequest{TableName: s.table, TunnelName: s.tunnel})
		if err == nil {
			v = viewOf(resp)
		}
		return err
	})
	if err != nil {
		return nil, err
	}
	err = s.endpoint.Call(ctx, "getrpo", func(api *tunnel.TunnelApi) error {
		resp, err := api.GetRpo(&tunnel.GetRpoRequest{TunnelId: s.tunnelID})
		if err == nil {
			v.addReads(resp)
		}
		return err
	})
	return v, err
}

func viewOf(resp *tunnel.DescribeTunnelResponse) *TunnelView {
	v := &TunnelView{Time: time.Now(), Stage: resp.Tunnel.Stage, Clients: []ViewClient{}, Channels: []ViewChannel{}}
	for _, c := range resp.Channels {
		v.Channels = append(v.Channels, ViewChannel{
			ID: c.ChannelId, ClientID: c.ClientId, Status: c.ChannelStatus, Base: c.ChannelType != string(Stream), Position: tunnelapi.SinceEpoch(c.ChannelRPO),
		})
	}
	return v
}

// addReads adds what the service knows of reads.
func (v *TunnelView) addReads(resp *tunnel.GetRpoResponse) {
	points := tunnelapi.ReadPoints(resp)
	for i := range v.Channels {
		c := &v.Channels[i]
		if p := points[c.ID]; p != nil {
			c.LastRead = tunnelapi.SinceEpoch(p.AccessTime)
			if read := tunnelapi.SinceEpoch(p.RpoTime); read.After(c.Position) {
				c.Position = read
			}
		}
	}
}

// judge finds out which clients read their channels. own are the ids of this subscription's clients, reading
// says that one of their channels is read; suspects are the channels whose clients were silent
// at the previous check, with these clients. It returns those of this check. A client is
// silent if it has read nothing for the duration silence.
func (v *TunnelView) judge(own map[string]bool, reading bool, suspects map[string]string, silence time.Duration) map[string]string {
	newest := time.Time{}
	clients := make(map[string]*ViewClient)
	for i := range v.Channels {
		c := &v.Channels[i]
		newest = later(newest, c.LastRead)
		if c.Base {
			c.Position = time.Time{}
		} else if !c.Position.IsZero() {
			c.Lag = max(0, v.Time.Sub(c.Position))
		}
		c.Own = own[c.ClientID]
		switch {
		case c.Status == "TERMINATED":
			c.State = ViewFinished
			continue
		case c.ClientID == "":
			c.State = ViewWaiting
			continue
		}
		c.State = ViewHeld
		cl := clients[c.ClientID]
		if cl == nil {
			cl = &ViewClient{ID: c.ClientID, Own: c.Own}
			clients[c.ClientID] = cl
		}
		cl.Channels++
		cl.LastRead = later(cl.LastRead, c.LastRead)
	}
	// What this process reads was read just now by the service's clock, too. Else
	// there is only this machine's clock to compare with.
	now := newest
	if !reading {
		now = later(newest, v.Time)
	}
	found := make(map[string]string)
	for i := range v.Channels {
		c := &v.Channels[i]
		cl := clients[c.ClientID]
		// A service that does not say when channels were read knows of no silence.
		if c.State != ViewHeld || c.Own || newest.IsZero() || now.Sub(cl.LastRead) < silence {
			continue
		}
		found[c.ID] = c.ClientID
		if suspects[c.ID] == c.ClientID {
			c.State, cl.Silent = ViewOrphan, true
			v.Orphans++
		}
	}
	for _, c := range v.Channels {
		if c.State != ViewFinished {
			v.Lag = max(v.Lag, c.Lag)
		}
	}
	for _, cl := range clients {
		v.Clients = append(v.Clients, *cl)
	}
	slices.SortFunc(v.Clients, func(a, b ViewClient) int {
		return cmp.Or(first(a.Silent, b.Silent), cmp.Compare(a.ID, b.ID))
	})
	slices.SortFunc(v.Channels, func(a, b ViewChannel) int {
		return cmp.Or(first(a.State == ViewOrphan, b.State == ViewOrphan), first(b.State == ViewFinished, a.State == ViewFinished),
			cmp.Compare(b.Lag.Round(time.Second), a.Lag.Round(time.Second)), cmp.Compare(a.ID, b.ID))
	})
	return found
}

// first compares so that what is true comes first.
func first(a, b bool) int {
	switch {
	case a == b:
		return 0
	case a:
		return -1
	}
	return 1
}

func later(a, b time.Time) time.Time {
	if b.After(a) {
		return b
	}
	return a
}
