package subscriber

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"math/rand/v2"
	"slices"
	"strings"
	"time"

	"github.com/ThreeDotsLabs/watermill"
)

const (
	// firstView is when the service is asked first. A client that gets channels has them by then.
	firstView = 5 * time.Second
	// viewsApart bounds by how much a process asks less often because of others.
	viewsApart = 4
	// namedOrphans bounds the channels and clients that a log line names.
	namedOrphans = 10
)

// viewWatch asks the service every now and then how the tunnel is, and says
// what a person wants to know of it: why there are no channels, and which are not
// read. It belongs to its goroutine.
type viewWatch struct {
	sub      *subscription
	suspects map[string]string // channels of clients that were silent at the last look, with these

	waiting string    // what was said of having no channels; empty: there are some
	orphans string    // those that were logged
	since   time.Time // since when there are some
}

// watchView is the goroutine of a viewWatch. It ends with ctx.
func (s *subscription) watchView(ctx context.Context) {
	w := &viewWatch{sub: s}
	first := firstView
	if every := s.cfg.TunnelViewInterval; every > 0 {
		first = min(first, every)
	}
	timer := time.NewTimer(first)
	defer timer.Stop()
	for {
		select {
		case <-timer.C:
			timer.Reset(w.look(ctx))
		case <-ctx.Done():
			return
		}
	}
}

// look asks the service once and returns when to do so again.
func (w *viewWatch) look(ctx context.Context) (next time.Duration) {
	s := w.sub
	if s.cfg.TunnelViewInterval == NoTunnelView {
		w.sayWaiting(nil)
		return DefaultTunnelViewInterval
	}
	v, err := s.askView(ctx)
	if ctx.Err() != nil {
		return 0
	}
	if v == nil {
		s.logger.Debug("Cannot ask how the tunnel is", watermill.LogFields{"err": err.Error()})
		s.viewFailed(err)
		w.sayWaiting(nil)
		return s.cfg.TunnelViewInterval
	}
	if err != nil {
		v.Error = err.Error()
	}
	own, reading := s.ownClients()
	before := w.suspects
	w.suspects = v.judge(own, reading, before, max(orphanAfter, 2*w.sub.cfg.MaxPollInterval))
	s.view.Store(v)
	w.sayWaiting(v)
	w.sayOrphans(v)
	for id, client := range w.suspects {
		if before[id] != client {
			return confirmAfter
		}
	}
	// All processes of a fleet ask: each the less often the more there are.
	share := min(max(1, len(v.Clients)/max(1, len(own))), viewsApart)
	interval := time.Duration(share) * s.cfg.TunnelViewInterval
	return interval - interval/5 + rand.N(2*interval/5+1)
}

// viewFailed keeps the last view and notes that it is not of now. The failure may be the
// first that is heard of an outage where there are no channels to read, so
// heartbeats find out.
func (s *subscription) viewFailed(err error) {
	v := TunnelView{Clients: []ViewClient{}, Channels: []ViewChannel{}}
	if before := s.view.Load(); before != nil {
		v = *before
	}
	v.Error = err.Error()
	s.view.Store(&v)
	s.clients.heartbeatNow()
}

// ownClients returns the ids of the clients that the service knows, and whether one of
// their channels was read within the last seconds.
func (s *subscription) ownClients() (ids map[string]bool, reading bool) {
	now := time.Now()
	st := s.status(now)
	ids = make(map[string]bool)
	for _, c := range st.Clients {
		if c.Connected {
			ids[c.ClientID] = true
		}
	}
	for _, c := range st.Channels {
		wasRead := c.PollInterval > 0 || c.Read > 0
		reading = reading || wasRead && c.State == ChannelOpen && c.FailingSince.IsZero() && !c.WindowFull
	}
	return ids, reading
}

// sayWaiting says why this subscription has no channels, once and when that changes.
func (w *viewWatch) sayWaiting(v *TunnelView) {
	s := w.sub
	st := s.status(time.Now())
	if !st.Connected || st.Draining || len(st.Channels) > 0 {
		if len(st.Channels) > 0 {
			w.waiting = ""
		}
		return
	}
	fields := watermill.LogFields{"heartbeat_timeout": s.cfg.HeartbeatTimeout.String()}
	said := "unknown"
	if v != nil {
		held, silent := holders(v)
		said = fmt.Sprint(len(v.Clients), silent)
		fields["held_by"], fields["silent"], fields["channels"] = held, silent, len(v.Channels)
	}
	if w.waiting == said {
		return
	}
	w.waiting = said
	if v != nil && len(v.Clients) == 0 {
		s.logger.Info("No channels yet: no client holds one; the service hands them out with heartbeats", fields)
		return
	}
	s.logger.Info("No channels yet: other clients hold them; those of a dead client are released HeartbeatTimeout after its last heartbeat", fields)
}

// holders says who holds how many channels, silent clients first, and which are silent.
func holders(v *TunnelView) (held, silent []string) {
	held, silent = []string{}, []string{}
	for _, c := range v.Clients {
		text := fmt.Sprintf("%s: %d channels", c.ID, c.Channels)
		if !c.LastRead.IsZero() {
			text += fmt.Sprintf(", read %v ago", max(0, v.Time.Sub(c.LastRead)).Round(time.Second))
		}
		if len(held) < namedOrphans {
			held = append(held, text)
		}
		if c.Silent {
			silent = append(silent, c.ID)
		}
	}
	return held, silent
}

var errOrphans = errors.New("a client holds channels and does not read them: it was killed, hangs, or is cut off")

// sayOrphans logs which channels of silent clients are not read, when that changes, and
// when all of them are read again.
func (w *viewWatch) sayOrphans(v *TunnelView) {
	s := w.sub
	clients := make(map[string]bool)
	var channels []string
	last := time.Time{}
	free := false // an orphan that no client holds any more, and not handed out yet
	before := strings.Fields(w.orphans)
	for _, c := range v.Channels {
		free = free || c.State == ViewWaiting && slices.Contains(before, c.ID)
		if c.State == ViewOrphan {
			clients[c.ClientID] = true
			channels = append(channels, c.ID)
			last = later(last, c.LastRead)
		}
	}
	slices.Sort(channels)
	told := strings.Join(channels, " ")
	switch {
	case told == w.orphans, told == "" && free:
		return
	case told == "":
		s.logger.Info("Every channel of the tunnel is read again", watermill.LogFields{"lasted": time.Since(w.since).Round(time.Second).String()})
	default:
		if w.orphans == "" {
			w.since = time.Now()
		}
		s.logger.Error("Some channels of the tunnel are not read; a dead client's are released HeartbeatTimeout after its last heartbeat", errOrphans, watermill.LogFields{
			"orphans": len(channels), "channels": channels[:min(len(channels), namedOrphans)],
			"clients": slices.Sorted(maps.Keys(clients)), "last_read": last.UTC().Format(time.RFC3339), "heartbeat_timeout": s.cfg.HeartbeatTimeout.String(),
		})
	}
	w.orphans = told
}
