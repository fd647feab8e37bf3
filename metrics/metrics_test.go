package metrics_test

import (
	"context"
	"errors"
	"maps"
	"os/exec"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/ThreeDotsLabs/watermill/message"
	"github.com/aliyun/aliyun-tablestore-go-sdk/tunnel"
	"github.com/cenkalti/backoff/v4"
	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/testutil/promlint"
	dto "github.com/prometheus/client_model/go"
	"go.uber.org/goleak"

	"github.com/watermill-ots/watermill-ots/batching"
	"github.com/watermill-ots/watermill-ots/emulator"
	"github.com/watermill-ots/watermill-ots/internal/testbed"
	"github.com/watermill-ots/watermill-ots/metrics"
	"github.com/watermill-ots/watermill-ots/subscriber"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// watched is a subscriber and a batching behind a registry.
type watched struct {
	*testing.T
	bed      *testbed.Bed
	metrics  *metrics.Metrics
	registry *prometheus.Registry
	sub      *subscriber.Subscriber
	batching *batching.Batching
	handle   func(ctx context.Context, b *batching.Batch) error // nil: succeed
}

// watch returns them; the subscriber is not subscribed yet.
func watch(t *testing.T, cfg metrics.Config, change ...func(*subscriber.Config)) *watched {
	t.Helper()
	w := &watched{T: t, bed: testbed.New(t, emulator.Options{}), registry: prometheus.NewPedanticRegistry()}
	var err error
	if w.metrics, err = metrics.New(cfg); err != nil {
		t.Fatal(err)
	}
	w.registry.MustRegister(w.metrics)

	sc := testbed.Config(w.bed.Emulator.Endpoint())
	sc.OnAck = w.metrics.OnAck()
	sc.TunnelViewInterval, sc.ExpectedClients = 100*time.Millisecond, 3
	sc.NackBackoff = func() backoff.BackOff { return backoff.NewConstantBackOff(time.Millisecond) }
	for _, f := range change {
		f(&sc)
	}
	if w.sub, err = subscriber.New(sc, nil); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := w.sub.Close(); err != nil {
			t.Error(err)
		}
	})
	w.batching, err = batching.New(batching.Config{
		OnBatch: w.metrics.OnBatch("orders"),
		Batchers: map[string]batching.Batcher{"default": {
			Size: 10, Timeout: 10 * time.Millisecond,
			Handler: func(ctx context.Context, b *batching.Batch) error {
				if w.handle == nil {
					return nil
				}
				return w.handle(ctx, b)
			},
		}},
	}, nil)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := w.batching.Close(); err != nil {
			t.Error(err)
		}
	})
	w.metrics.AddSubscriber(w.sub)
	w.metrics.AddBatching("orders", w.batching)
	w.metrics.AddCheck("orders", func() error { return nil })
	return w
}

// route runs a Router from the tunnel through the batching, until the end of the test.
func (w *watched) route() {
	w.Helper()
	r, err := message.NewRouter(message.RouterConfig{}, nil)
	if err != nil {
		w.Fatal(err)
	}
	r.AddMiddleware(w.batching.Middleware)
	r.AddConsumerHandler("h", testbed.Topic, w.sub, func(*message.Message) error { return nil })
	ended := make(chan error, 1)
	go func() { ended <- r.Run(context.Background()) }() // ends with Close; received below
	w.Cleanup(func() {
		if err := errors.Join(r.Close(), <-ended); err != nil {
			w.Error(err)
		}
	})
	<-r.Running()
}

// gather returns all families by name.
func (w *watched) gather() map[string]*dto.MetricFamily {
	w.Helper()
	families, err := w.registry.Gather()
	if err != nil {
		w.Fatal(err)
	}
	byName := make(map[string]*dto.MetricFamily)
	for _, f := range families {
		byName[strings.TrimPrefix(f.GetName(), metrics.Namespace+"_")] = f
	}
	return byName
}

// value returns a series of a counter or gauge, or the count of a histogram,
// whose labels have the given values besides those of the tunnel.
func value(families map[string]*dto.MetricFamily, name string, labels ...string) (v float64, found bool) {
	for _, m := range families[name].GetMetric() {
		has := func(want string) bool {
			return slices.ContainsFunc(m.Label, func(l *dto.LabelPair) bool { return l.GetName()+"="+l.GetValue() == want })
		}
		if !slices.ContainsFunc(labels, func(l string) bool { return !has(l) }) {
			found = true
			v += m.GetCounter().GetValue() + m.GetGauge().GetValue() + float64(m.GetHistogram().GetSampleCount())
		}
	}
	return v, found
}

func (w *watched) want(name string, want float64, labels ...string) {
	w.Helper()
	if got, found := value(w.gather(), name, labels...); !found || got != want {
		w.Errorf("%s%v is %v (there: %v), want %v", name, labels, got, found, want)
	}
}

func (w *watched) eventually(name string, want float64, labels ...string) {
	w.Helper()
	testbed.Eventually(w, 10*time.Second, name+" "+strings.Join(labels, " "), func() bool {
		got, found := value(w.gather(), name, labels...)
		return found && got == want
	})
}

func TestMetrics_equal_what_was_written_acked_and_nacked(t *testing.T) {
	w := watch(t, metrics.Config{})
	w.bed.CreateTunnel(tunnel.TunnelTypeStream)
	failures := 3
	w.handle = func(_ context.Context, b *batching.Batch) error { // one batch runs at once
		if failures > 0 {
			failures--
			b.Fail(b.Messages[0], errors.New("not yet"))
		}
		return nil
	}
	w.bed.PutAll(40, 2)
	w.route()
	w.eventually("messages_settled_total", 80, "outcome=acked")
	w.eventually("batch_messages_total", 80, "outcome=succeeded")
	w.want("records_read_total", 80)
	w.want("messages_settled_total", 3, "outcome=nacked")
	w.want("messages_settled_total", 0, "outcome=refused")
	w.want("batch_messages_total", 3, "outcome=failed")
	w.want("batches_failed_total", 3)
	w.want("ack_delay_seconds", 80, "table="+testbed.Table, "tunnel="+testbed.Tunnel, "ots_instance="+testbed.Instance)
	w.want("handling_seconds", 80)
	w.want("connects_total", 1)
	w.want("channels_opened_total", 1)
	w.want("channels", 1, "state=open", "type=stream")
	w.want("channels", 1) // in no other state
	w.want("subscriptions", 1, "state=running")
	w.want("clients_connected", 1)
	w.want("in_flight_records_limit", subscriber.DefaultMaxInFlight)
	w.want("in_flight_records", 0)
	w.want("failing_records", 0)

	f := w.gather()
	sum := func(name string, labels ...string) float64 { v, _ := value(f, name, labels...); return v }
	delivered, redelivered, back := sum("messages_delivered_total"), sum("messages_redelivered_total"), sum("messages_settled_total", "outcome=called_back")
	// The first attempt of a record may be called back before its message is received, and one
	// at each failure before it is known as a delivery: that one is not counted at all.
	unseen := 3.0
	if first := delivered - redelivered; first > 80 || first < 80-back-unseen || redelivered < 3 || redelivered > 3+back+unseen {
		t.Errorf("%v delivered, %v of them again, %v called back", delivered, redelivered, back)
	}
	if handled := sum("batches_total"); handled == 0 || handled != sum("batch_size_messages") || handled != sum("batch_wait_seconds") || handled != sum("batch_handling_seconds") {
		t.Errorf("%v batches, and histograms of %v, %v and %v", handled, sum("batch_size_messages"), sum("batch_wait_seconds"), sum("batch_handling_seconds"))
	}
}

func TestMetrics_exist_from_the_start_at_zero(t *testing.T) {
	w := watch(t, metrics.Config{})
	w.bed.CreateTunnel(tunnel.TunnelTypeStream)
	if _, err := w.sub.Subscribe(t.Context(), testbed.Topic); err != nil {
		t.Fatal(err)
	}
	for _, series := range []string{ // except read_bytes_total: empty answers have some bytes, too
		"records_read_total", "reads_total result=full", "reads_total result=error",
		"messages_delivered_total", "messages_redelivered_total",
		"messages_settled_total outcome=acked", "messages_settled_total outcome=nacked", "messages_settled_total outcome=refused",
		"messages_settled_total outcome=skipped", "messages_settled_total outcome=called_back", "messages_settled_total outcome=abandoned",
		"checkpoints_total result=error", "heartbeats_total result=error", "reconnects_total", "rebalances_total", "drains_total",
		"channels_ended_total end=lost", "channels_ended_total end=finished", "channels_ended_total end=closed",
		"subscriptions state=failed", "subscriptions state=draining", "subscriptions state=finished", "channels state=failing type=base",
		"in_flight_records", "in_flight_bytes", "handling_messages", "retrying_records", "failing_records", "window_full_channels",
		"oldest_unacked_age_seconds", "ack_delay_seconds", "handling_seconds",
		"batches_total trigger=size", "batches_total trigger=close", "batches_failed_total", "batch_messages_total outcome=failed",
		"batch_messages_waiting", "batch_messages_handling", "batches_running", "batches_ready",
		"batch_size_messages", "batch_wait_seconds", "batch_handling_seconds",
	} {
		name, labels, _ := strings.Cut(series, " ")
		w.want(name, 0, strings.Fields(labels)...)
	}
}

func TestMetrics_without_hooks_have_no_histograms(t *testing.T) {
	m, err := metrics.New(metrics.Config{})
	if err != nil {
		t.Fatal(err)
	}
	b, err := batching.New(batching.Config{Batchers: map[string]batching.Batcher{"default": {Handler: func(context.Context, *batching.Batch) error { return nil }}}}, nil)
	if err != nil {
		t.Fatal(err)
	}
	m.AddBatching("orders", b)
	m.AddSubscriber(fixed{{Table: "t", Tunnel: "u"}})
	registry := prometheus.NewPedanticRegistry()
	registry.MustRegister(m)
	families, err := registry.Gather()
	if err != nil {
		t.Fatal(err)
	}
	for _, f := range families {
		if f.GetType() == dto.MetricType_HISTOGRAM {
			t.Errorf("%s is there", f.GetName())
		}
	}
	if len(families) == 0 {
		t.Error("nothing is there")
	}
}

// Scopes of a batcher share its series, and each adds its Concurrency to what may run.
func TestMetrics_of_batches_count_all_scopes_together(t *testing.T) {
	w := &watched{T: t, registry: prometheus.NewPedanticRegistry()}
	m, err := metrics.New(metrics.Config{})
	if err != nil {
		t.Fatal(err)
	}
	w.registry.MustRegister(m)
	let, held := make(chan struct{}), make(chan struct{}, 3)
	b, err := batching.New(batching.Config{
		Scope: func(msg *message.Message) string { return msg.UUID },
		Batchers: map[string]batching.Batcher{"default": {Size: 1, Concurrency: 2, Handler: func(context.Context, *batching.Batch) error {
			held <- struct{}{}
			<-let
			return nil
		}}},
	}, nil)
	if err != nil {
		t.Fatal(err)
	}
	m.AddBatching("orders", b)
	w.want("batches_running_limit", 2)
	h := b.Middleware(func(*message.Message) ([]*message.Message, error) { return nil, nil })
	var handlers sync.WaitGroup
	for _, scope := range []string{"a", "b", "c"} {
		handlers.Go(func() {
			if _, err := h(message.NewMessage(scope, nil)); err != nil {
				t.Error(err)
			}
		})
		<-held
	}
	w.want("batches_running", 3)
	w.want("batches_running_limit", 6)
	close(let)
	handlers.Wait()
	w.want("batches_running_limit", 2)
	w.want("batch_messages_total", 3, "outcome=succeeded")
}

// fixed is a Source whose status does not change.
type fixed []subscriber.SubscriptionStatus

func (f fixed) Status() subscriber.Status {
	return subscriber.Status{Time: time.Unix(1_000, 0), Instance: "i", Subscriptions: f}
}

func TestMetrics_of_one_tunnel_are_summed_up_and_of_ages_the_largest_is_exported(t *testing.T) {
	w := &watched{T: t, registry: prometheus.NewPedanticRegistry()}
	m, err := metrics.New(metrics.Config{})
	if err != nil {
		t.Fatal(err)
	}
	w.registry.MustRegister(m)
	sub := func(acked uint64, lag time.Duration, beat int64) subscriber.SubscriptionStatus {
		return subscriber.SubscriptionStatus{
			Table: "t", Tunnel: "u", InFlight: 5, MaxInFlight: 100, Lag: lag, Totals: subscriber.Totals{Acked: acked},
			Clients: []subscriber.ClientStatus{{Connected: true, LastHeartbeat: time.Unix(beat, 0)}},
			Errors:  []subscriber.ErrorCount{{Op: "readrecords", Code: "OTSServerBusy", Count: acked}},
		}
	}
	ended := sub(100, time.Hour, 1)
	ended.Ended, ended.Fatal = true, "tunnel expired"
	m.AddSubscriber(fixed{sub(1, 3*time.Second, 990), ended})
	m.AddSubscriber(fixed{sub(10, 7*time.Second, 995)})
	w.want("messages_settled_total", 111, "outcome=acked")
	w.want("failed_calls_total", 111, "operation=readrecords", "code=OTSServerBusy")
	w.want("in_flight_records", 10)
	w.want("in_flight_records_limit", 200)
	w.want("lag_seconds", 7)
	w.want("heartbeat_age_seconds", 10)
	w.want("clients_connected", 2)
	w.want("subscriptions", 2, "state=running")
	w.want("subscriptions", 1, "state=failed")
}

func TestMetrics_pass_promlint_and_have_no_label_for_channels_clients_keys_or_secrets(t *testing.T) {
	w := watch(t, metrics.Config{RPOInterval: time.Nanosecond})
	w.bed.CreateTunnel(tunnel.TunnelTypeStream)
	w.bed.Emulator.Inject(emulator.Fault{Operation: "tunnel/readrecords", Code: "OTSServerBusy"})
	w.bed.PutAll(3, 1)
	w.route()
	w.eventually("messages_settled_total", 3, "outcome=acked")
	w.eventually("failed_calls_total", 1, "operation=readrecords", "code=OTSServerBusy")
	families := w.gather()
	problems, err := promlint.NewWithMetricFamilies(slices.Collect(maps.Values(families))).Lint()
	if err != nil {
		t.Fatal(err)
	}
	for _, p := range problems {
		t.Errorf("%s: %s", p.Metric, p.Text)
	}
	known := []string{"ots_instance", "table", "tunnel", "result", "outcome", "state", "type", "end", "operation", "code", "point", "pipeline", "batcher", "trigger"}
	st := w.sub.Status().Subscriptions[0]
	for name, f := range families {
		for _, m := range f.Metric {
			for _, l := range m.Label {
				v := l.GetValue()
				if !slices.Contains(known, l.GetName()) || strings.Contains(v, testbed.KeyID) || strings.Contains(v, testbed.KeySecret) || strings.Contains(v, st.Channels[0].ID) || strings.Contains(v, "key-") {
					t.Errorf("%s has the label %s=%q", name, l.GetName(), v)
				}
			}
		}
	}
}

func TestMetrics_RPO_is_what_the_service_says(t *testing.T) {
	w := watch(t, metrics.Config{RPOInterval: time.Nanosecond})
	w.bed.CreateTunnel(tunnel.TunnelTypeStream)
	w.bed.PutAll(3, 1)
	w.route()
	w.eventually("service_records_total", 3, "point=committed")
	w.want("service_records_total", 3, "point=read")
	if lag, found := value(w.gather(), "service_lag_seconds", "point=committed"); !found || lag <= 0 || lag > 60 {
		t.Errorf("lag %v (there: %v)", lag, found)
	}
}

func TestMetrics_RPO_is_requested_once_in_its_interval_and_does_not_delay_scrapes(t *testing.T) {
	w := watch(t, metrics.Config{RPOInterval: time.Hour, RPOTimeout: 50 * time.Millisecond})
	w.bed.CreateTunnel(tunnel.TunnelTypeStream)
	if _, err := w.sub.Subscribe(t.Context(), testbed.Topic); err != nil {
		t.Fatal(err)
	}
	w.bed.Emulator.Inject(emulator.Fault{Operation: "tunnel/getrpo", Hang: true, Times: -1})
	defer w.bed.Emulator.ClearFaults()
	start := time.Now()
	w.want("rpo_requests_total", 1, "result=error")
	if took := time.Since(start); took > 5*time.Second {
		t.Errorf("a scrape took %v", took)
	}
	w.want("rpo_requests_total", 1, "result=error")
	w.want("rpo_requests_total", 0, "result=ok")
	if n := w.bed.Emulator.Stats().Operations["tunnel/getrpo"].Requests; n > 1 {
		t.Errorf("the service was asked %d times", n)
	}
}

func TestNew_lists_every_fault(t *testing.T) {
	_, err := metrics.New(metrics.Config{DelayBuckets: []float64{1, 1}, SizeBuckets: []float64{2, 1}, RPOInterval: -1, RPOTimeout: -1})
	if !errors.Is(err, metrics.ErrInvalidConfig) {
		t.Fatalf("the error is %v", err)
	}
	for _, part := range []string{"DelayBuckets has 1 after 1", "SizeBuckets has 1 after 2", "RPOInterval is -1ns", "RPOTimeout is -1ns"} {
		if !strings.Contains(err.Error(), part) {
			t.Errorf("%q is not in: %v", part, err)
		}
	}
}

// BenchmarkOnAck measures the cost of the histograms for an ack.
func BenchmarkOnAck(b *testing.B) {
	m, err := metrics.New(metrics.Config{})
	if err != nil {
		b.Fatal(err)
	}
	onAck := m.OnAck()
	a := subscriber.Acked{Instance: "shop", Topic: "orders/warehouse", Attempt: 1, Changed: time.Now(), Delay: 30 * time.Millisecond, Handling: time.Millisecond}
	b.ReportAllocs()
	b.RunParallel(func(pb *testing.PB) {
		for pb.Next() {
			onAck(a)
		}
	})
}

func TestPrometheus_is_linked_only_by_programs_that_import_metrics(t *testing.T) {
	deps, err := exec.Command("go", "list", "-deps", "../subscriber", "../batching", "../router", "../health").Output()
	if err != nil {
		t.Fatal(err)
	}
	if !strings.Contains(string(deps), "watermill-ots/subscriber\n") {
		t.Fatalf("go list tells %s", deps)
	}
	if strings.Contains(string(deps), "prometheus") {
		t.Error("it is among the dependencies of the other packages")
	}
}
