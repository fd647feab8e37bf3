// Package metrics exports subscribers and batchings to Prometheus. It costs nothing in
// programs that do not import it, and they do not link Prometheus.
//
// A Metrics is a prometheus.Collector. At each scrape it turns the Status of its
// subscribers and the Stats of its batchings into series. Their counters exist anyway,
// so metrics cost nothing between scrapes. Only the histograms need callbacks, which
// cost about 200 ns for each ack: OnAck for subscriber.Config, OnBatch for
// batching.Config. Without the callbacks their series do not exist.
//
// All series are named watermill_ots_…; docs/metrics.md lists them, and docs/grafana has
// a dashboard and alert rules. Labels are the instance, the table and the tunnel (for
// batches the names of the pipeline and the batcher), and for some series an outcome, a
// state or an error code (at most 100 kinds of failed calls for each tunnel). A key is
// never a label; a channel or a client only with Config.Channels. So the number of series
// depends on the configuration, not on the data. The series of a tunnel exist at its
// first scrape, at 0.
//
// Subscriptions to one tunnel are summed up, in one or in several subscribers; of ages
// and lags the largest is exported. Counters include subscriptions that have ended.
package metrics
