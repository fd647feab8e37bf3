package metrics

import (
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/watermill-ots/watermill-ots/subscriber"
)

type view = subscriber.TunnelView

// newestView returns the newest view of a tunnel among its subscriptions, or nil.
func newestView(subs []*status) (newest *view) {
	for _, s := range subs {
		if v := s.View; !s.Ended && v != nil && !v.Time.IsZero() && (newest == nil || v.Time.After(newest.Time)) {
			newest = v
		}
	}
	return newest
}

// viewGauge returns a family for a number of a tunnel in the service's view.
func viewGauge(name, help string, value func(v *view, now time.Time) float64) family[view] {
	return family[view]{
		desc: newDesc(name, help, tunnelLabels), kind: prometheus.GaugeValue,
		values: func(v *view, now time.Time, add func(float64, ...string)) { add(value(v, now)) },
	}
}

var viewFamilies = []family[view]{
	{
		desc: newDesc("tunnel_channels", "Channels of the tunnel, of all consumers, by state in the service's view: held, orphan (its client no longer reads), waiting (no client holds it), finished.", tunnelLabels, "state"),
		kind: prometheus.GaugeValue,
		values: func(v *view, _ time.Time, add func(float64, ...string)) {
			for _, state := range []subscriber.ViewState{subscriber.ViewHeld, subscriber.ViewOrphan, subscriber.ViewWaiting, subscriber.ViewFinished} {
				add(0, string(state))
			}
			for _, c := range v.Channels {
				add(1, string(c.State))
			}
		},
	},
	{
		desc: newDesc("tunnel_clients", "Tunnel clients that hold channels, of all consumers, in the service's view: reading, or silent.", tunnelLabels, "state"),
		kind: prometheus.GaugeValue,
		values: func(v *view, _ time.Time, add func(float64, ...string)) {
			for _, c := range v.Clients {
				add(count(!c.Silent), "reading")
				add(count(c.Silent), "silent")
			}
			add(0, "reading")
			add(0, "silent")
		},
	},
	viewGauge("tunnel_lag_seconds", "Age of the point up to which the channel that is farthest behind was read, of all consumers, in the service's view.",
		func(v *view, now time.Time) float64 { return v.Lag.Seconds() }),
	viewGauge("tunnel_view_age_seconds", "Age of the service's view; it grows while the service cannot be reached.",
		func(v *view, now time.Time) float64 { return max(0, now.Sub(v.Time).Seconds()) }),
}

// maxViewChannels limits the series of channels of a tunnel.
const maxViewChannels = 1000

var viewChannelDesc = newDesc("tunnel_channel_lag_seconds", "Age of the point up to which a channel of the tunnel was read, in the service's view; 0 for base data.", tunnelLabels, "channel", "client", "state")

// viewChannels sends a series for each channel that is not finished.
func viewChannels(series chan<- prometheus.Metric, t tunnel, v *view) {
	for _, c := range v.Channels[:min(len(v.Channels), maxViewChannels)] {
		if c.State != subscriber.ViewFinished {
			send(series, viewChannelDesc, prometheus.GaugeValue, c.Lag.Seconds(), t.instance, t.table, t.tunnel, label(c.ID), label(c.ClientID), string(c.State))
		}
	}
}
