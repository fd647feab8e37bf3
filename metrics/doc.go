// Package metrics shows subscribers and batchings to Prometheus. Programs that do
// not import it pay nothing for it, nor do they link Prometheus.
//
// A Metrics is a prometheus.Collector. At each scrape it takes Status of the
// subscribers and Stats of the batchings that it was given, and makes series of
// them: the counters count anyway, so watching costs nothing between scrapes.
// Only the histograms need hooks, which cost some 200 ns for each ack: OnAck for
// subscriber.Config, OnBatch for batching.Config. Leave them out and their
// series are not there.
//
// All series are named watermill_ots_…; docs/metrics.md lists them, and
// docs/grafana has a dashboard and alert rules. Labels are the instance, the
// table and the tunnel (for batches the pipeline's and the batcher's name), and
// where it says so an outcome, a state or an error code (at most 100 kinds of failed
// calls for a tunnel): never a key, and a channel or a client only with Config.Channels. So the number of series depends on what is configured, not on
// what flows. Series of a tunnel exist from its first scrape on, at 0.
//
// Subscriptions to one tunnel are summed up, in one or in several subscribers;
// of ages and lags the largest is shown. Counters include subscriptions that have ended.
package metrics
