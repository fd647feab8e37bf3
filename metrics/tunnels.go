package metrics

import (
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/watermill-ots/watermill-ots/subscriber"
)

type status = subscriber.SubscriptionStatus

// total returns a family for one counter of Totals.
func total(name, help string, value func(t *subscriber.Totals) uint64) family[status] {
	return family[status]{
		desc: newDesc(name, help, tunnelLabels), kind: prometheus.CounterValue,
		values: func(s *status, _ time.Time, add func(float64, ...string)) { add(float64(value(&s.Totals))) },
	}
}

// totalsBy returns a family for several counters of Totals, distinguished by a label.
func totalsBy(name, help, label string, values func(t *subscriber.Totals) map[string]uint64) family[status] {
	return family[status]{
		desc: newDesc(name, help, tunnelLabels, label), kind: prometheus.CounterValue,
		values: func(s *status, _ time.Time, add func(float64, ...string)) {
			for l, v := range values(&s.Totals) {
				add(float64(v), l)
			}
		},
	}
}

// gauge returns a family for a number of running subscriptions. Ended ones have none.
func gauge(name, help string, value func(s *status) float64) family[status] {
	return family[status]{
		desc: newDesc(name, help, tunnelLabels), kind: prometheus.GaugeValue,
		values: func(s *status, _ time.Time, add func(float64, ...string)) {
			if !s.Ended {
				add(value(s))
			}
		},
	}
}

// longest returns a family for a time in seconds; of several, the longest is exported.
func longest(name, help string, value func(s *status, now time.Time) time.Duration) family[status] {
	return family[status]{
		desc: newDesc(name, help, tunnelLabels), kind: prometheus.GaugeValue, largest: true,
		values: func(s *status, now time.Time, add func(float64, ...string)) {
			if !s.Ended {
				add(value(s, now).Seconds())
			}
		},
	}
}

// ofChannels returns the longest time of all channels.
func ofChannels(value func(c *subscriber.ChannelStatus) time.Duration) func(*status, time.Time) time.Duration {
	return func(s *status, _ time.Time) (longest time.Duration) {
		for i := range s.Channels {
			longest = max(longest, value(&s.Channels[i]))
		}
		return longest
	}
}

// channels counts the channels for which is returns true.
func channels(is func(c *subscriber.ChannelStatus) bool) func(*status) float64 {
	return func(s *status) (n float64) {
		for i := range s.Channels {
			if is(&s.Channels[i]) {
				n++
			}
		}
		return n
	}
}

var tunnelFamilies = []family[status]{
	total("records_read_total", "Records read from the tunnel.", func(t *subscriber.Totals) uint64 { return t.RecordsRead }),
	total("read_bytes_total", "Bytes of the pages read from the tunnel.", func(t *subscriber.Totals) uint64 { return t.BytesRead }),
	totalsBy("reads_total", "Reads, by result: full (more was there), partial, empty, error.", "result", func(t *subscriber.Totals) map[string]uint64 {
		return map[string]uint64{"full": t.ReadsFull, "partial": t.ReadsPartial, "empty": t.ReadsEmpty, "error": t.ReadsFailed}
	}),
	total("messages_delivered_total", "Messages delivered, redeliveries included.", func(t *subscriber.Totals) uint64 { return t.Delivered }),
	total("messages_redelivered_total", "Messages delivered that were delivered before.", func(t *subscriber.Totals) uint64 { return t.Redelivered }),
	totalsBy("messages_settled_total", "Ends of deliveries: acked, nacked, called_back (an earlier message of the key failed), abandoned (channel lost or drain timed out), and of records that were not delivered: refused (by the Unmarshaler), skipped.", "outcome", func(t *subscriber.Totals) map[string]uint64 {
		return map[string]uint64{
			"acked": t.Acked, "nacked": t.Nacked - t.Refused, "refused": t.Refused, "skipped": t.Skipped,
			"called_back": t.CalledBack, "abandoned": t.Abandoned,
		}
	}),
	totalsBy("checkpoints_total", "Checkpoints, by result: ok, error.", "result", func(t *subscriber.Totals) map[string]uint64 {
		return map[string]uint64{"ok": t.Checkpoints, "error": t.CheckpointsFailed}
	}),
	totalsBy("heartbeats_total", "Heartbeats sent to the service, by result: ok, error.", "result", func(t *subscriber.Totals) map[string]uint64 {
		return map[string]uint64{"ok": t.Heartbeats, "error": t.HeartbeatsFailed}
	}),
	total("connects_total", "Sessions of tunnel clients that the service admitted.", func(t *subscriber.Totals) uint64 { return t.Connects }),
	total("reconnects_total", "Sessions begun because the previous one had ended.", func(t *subscriber.Totals) uint64 { return t.Reconnects }),
	total("channels_opened_total", "Channels opened by these clients.", func(t *subscriber.Totals) uint64 { return t.ChannelsOpened }),
	totalsBy("channels_ended_total", "Channels that ended for these clients: finished (read to the end), closed (given back), lost.", "end", func(t *subscriber.Totals) map[string]uint64 {
		return map[string]uint64{"finished": t.ChannelsFinished, "closed": t.ChannelsClosed, "lost": t.ChannelsLost}
	}),
	total("rebalances_total", "Channels given back because the service asked for them.", func(t *subscriber.Totals) uint64 { return t.Rebalances }),
	total("tunnel_recreations_total", "Tunnels that OnGapRecreate continued with, because the one before could not continue.", func(t *subscriber.Totals) uint64 { return t.Recreations }),
	total("lookup_calls_total", "Calls of BatchGetRow that read rows for Config.Lookup.", func(t *subscriber.Totals) uint64 { return t.Lookups }),
	totalsBy("lookup_rows_total", "Rows read for Config.Lookup, by result: found, gone.", "result", func(t *subscriber.Totals) map[string]uint64 {
		return map[string]uint64{"found": t.RowsLookedUp - t.RowsGone, "gone": t.RowsGone}
	}),
	total("lookup_units_total", "Read capacity units that these rows cost, as the service counts them.", func(t *subscriber.Totals) uint64 { return t.LookupUnits }),
	total("drains_total", "Drains of channels that began.", func(t *subscriber.Totals) uint64 { return t.Drains }),
	{
		desc: newDesc("subscriptions", "Subscriptions: running, draining, failed ones (1 when the tunnel is gone or expired), and finished ones (1 when it was read to its end).", tunnelLabels, "state"),
		kind: prometheus.GaugeValue,
		values: func(s *status, _ time.Time, add func(float64, ...string)) {
			add(count(!s.Ended && !s.Draining), "running")
			add(count(!s.Ended && s.Draining), "draining")
			add(count(s.Fatal != ""), "failed")
			add(count(s.Ended && s.Finished), "finished")
		},
	},
	{
		desc: newDesc("channels", "Channels that these clients have, by state and type.", tunnelLabels, "state", "type"),
		kind: prometheus.GaugeValue,
		values: func(s *status, _ time.Time, add func(float64, ...string)) {
			if s.Ended {
				return
			}
			for _, state := range channelStates {
				add(0, string(state), "base")
				add(0, string(state), "stream")
			}
			for _, c := range s.Channels {
				typ := "stream"
				if c.Base {
					typ = "base"
				}
				add(1, string(c.State), typ)
			}
		},
	},
	gauge("clients", "Tunnel clients, connected or not.", func(s *status) float64 { return float64(len(s.Clients)) }),
	gauge("clients_connected", "Tunnel clients that the service knows.", func(s *status) (n float64) {
		for _, c := range s.Clients {
			n += count(c.Connected)
		}
		return n
	}),
	gauge("in_flight_records", "Records read and not settled.", func(s *status) float64 { return float64(s.InFlight) }),
	gauge("in_flight_records_limit", "MaxInFlight.", func(s *status) float64 { return float64(s.MaxInFlight) }),
	gauge("in_flight_bytes", "Bytes of the pages that records in flight belong to.", func(s *status) float64 { return float64(s.InFlightBytes) }),
	gauge("in_flight_bytes_limit", "MaxInFlightBytes.", func(s *status) float64 { return float64(s.MaxInFlightBytes) }),
	gauge("handling_messages", "Messages with their handlers, including those that wait in batches.", func(s *status) (n float64) {
		for _, c := range s.Channels {
			n += float64(c.WithHandlers)
		}
		return n
	}),
	gauge("retrying_records", "Nacked records whose backoff is not over.", func(s *status) (n float64) {
		for _, c := range s.Channels {
			n += float64(c.Retrying)
		}
		return n
	}),
	gauge("failing_records", "Records that failed and were not acked since.", func(s *status) float64 { return float64(s.FailingTotal) }),
	gauge("window_full_channels", "Channels that are not read because too much is in flight.", channels(func(c *subscriber.ChannelStatus) bool { return c.WindowFull })),
	longest("lag_seconds", "Age of the oldest change that is not acked, or time since the last read if there is none; of the channel that is farthest behind.",
		func(s *status, _ time.Time) time.Duration { return s.Lag }),
	longest("oldest_unacked_age_seconds", "How long ago the oldest record in flight was read.", ofChannels(func(c *subscriber.ChannelStatus) time.Duration {
		if c.Oldest == nil {
			return 0
		}
		return c.Oldest.Age
	})),
	longest("checkpoint_age_seconds", "How long ago the stored checkpoint was known to be up to date with the acks.", ofChannels(func(c *subscriber.ChannelStatus) time.Duration { return c.CheckpointAge })),
	longest("poll_interval_seconds", "Pause after the last read; 0 while there is more.", ofChannels(func(c *subscriber.ChannelStatus) time.Duration { return c.PollInterval })),
	longest("heartbeat_age_seconds", "Time since the last answered heartbeat was sent.", func(s *status, now time.Time) (age time.Duration) {
		for _, c := range s.Clients {
			if !c.LastHeartbeat.IsZero() {
				age = max(age, now.Sub(c.LastHeartbeat))
			}
		}
		return age
	}),
	longest("calls_failing_seconds", "How long calls have failed in spite of retries: of all clients or channels, or of a channel that can no longer be read; 0 when calls succeed.", func(s *status, now time.Time) (d time.Duration) {
		for _, t := range s.Trouble {
			d = max(d, now.Sub(t.Since))
		}
		return d
	}),
	{
		desc: newDesc("clients_expected", "Config.ExpectedClients: tunnel clients that all processes have together; none while it is not set.", tunnelLabels),
		kind: prometheus.GaugeValue, largest: true,
		values: func(s *status, _ time.Time, add func(float64, ...string)) {
			if !s.Ended && s.ExpectedClients > 0 {
				add(float64(s.ExpectedClients))
			}
		},
	},
	longest("stream_retention_seconds", "How long the table's stream keeps changes; 0 while unknown.", func(s *status, _ time.Time) time.Duration { return s.Retention }),
}

var failedCallsDesc = newDesc("failed_calls_total", "Calls to the service that failed, by operation and by its code (or timeout, network, credentials, malformed).", tunnelLabels, "operation", "code")

// failedCalls sends the series of the failed calls of a tunnel. Their codes come from the
// service, so their number is limited here.
func (m *Metrics) failedCalls(series chan<- prometheus.Metric, t tunnel, subs []*status) {
	sums := make(map[kind]float64)
	for _, s := range subs {
		for _, e := range s.Errors {
			sums[m.kinds.of(t, kind{label(e.Op), label(e.Code)})] += float64(e.Count)
		}
	}
	for k, v := range sums {
		send(series, failedCallsDesc, prometheus.CounterValue, v, t.instance, t.table, t.tunnel, k.operation, k.code)
	}
}

var channelStates = []subscriber.ChannelState{
	subscriber.ChannelOpening, subscriber.ChannelOpen, subscriber.ChannelDraining, subscriber.ChannelFailing, subscriber.ChannelEnding,
}

func count(is bool) float64 {
	if is {
		return 1
	}
	return 0
}
