package metrics_test

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"net/http"
	"path"
	"strings"
	"testing"
	"time"
	"unicode/utf8"

	"github.com/aliyun/aliyun-tablestore-go-sdk/tunnel"
	"github.com/aliyun/aliyun-tablestore-go-sdk/tunnel/protocol"
	"github.com/prometheus/client_golang/prometheus"
	dto "github.com/prometheus/client_model/go"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/protoadapt"

	"github.com/watermill-ots/watermill-ots/batching"
	"github.com/watermill-ots/watermill-ots/metrics"
	"github.com/watermill-ots/watermill-ots/subscriber"
)

// alone is a Metrics in a registry, without subscribers.
func alone(t *testing.T) *watched {
	t.Helper()
	w := &watched{T: t, registry: prometheus.NewPedanticRegistry()}
	var err error
	if w.metrics, err = metrics.New(metrics.Config{}); err != nil {
		t.Fatal(err)
	}
	w.registry.MustRegister(w.metrics)
	return w
}

// failed is a status with failed calls.
func failed(table string, errors ...subscriber.ErrorCount) subscriber.SubscriptionStatus {
	return subscriber.SubscriptionStatus{Table: table, Tunnel: "u", Errors: errors}
}

// expectClean checks the values of all labels.
func expectClean(t *testing.T, families map[string]*dto.MetricFamily) {
	t.Helper()
	for name, f := range families {
		for _, m := range f.Metric {
			for _, l := range m.Label {
				if v := l.GetValue(); !utf8.ValidString(v) || strings.ContainsAny(v, "\x00\n\r\x1b") || len(v) > 310 {
					t.Errorf("%s has the label %s=%q", name, l.GetName(), v)
				}
			}
		}
	}
}

func TestMetrics_show_any_code_that_a_service_sends(t *testing.T) {
	w := alone(t)
	call := func(code string) subscriber.ErrorCount {
		return subscriber.ErrorCount{Op: "readrecords", Code: code, Count: 1}
	}
	w.metrics.AddSubscriber(fixed{failed("t",
		call("OTS\nx"), call("a\x00b"), call("\xff\xfe"), call("\xff"), call("\x1b[31m"), call(""), call("é"),
		call(strings.Repeat("é", 1000)), call(strings.Repeat("é", 1001)), call(strings.Repeat("\xff", 1<<20)),
	)})
	families := w.gather() // which fails for a label that is not UTF-8
	expectClean(t, families)
	for code, want := range map[string]float64{
		`OTS\nx`: 1, `a\x00b`: 1, `\xff\xfe`: 1, `\xff`: 1, `\x1b[31m`: 1, "": 1, "é": 1,
		strings.Repeat("é", 150) + "…": 2, // both long ones
	} {
		if got, _ := value(families, "failed_calls_total", "code="+code); got != want {
			t.Errorf("code %q: %v, want %v", code, got, want)
		}
	}
	if got, _ := value(families, "failed_calls_total"); got != 10 {
		t.Errorf("there are %v failed calls in all", got)
	}
}

// strangeCodes answers the first reads with codes that no service has, as a broken
// proxy may. The emulator refuses to inject such faults.
type strangeCodes struct {
	http.RoundTripper
	codes chan string
}

func (s strangeCodes) RoundTrip(req *http.Request) (*http.Response, error) {
	if path.Base(req.URL.Path) != "readrecords" {
		return s.RoundTripper.RoundTrip(req)
	}
	select {
	case code := <-s.codes:
		body, err := proto.Marshal(protoadapt.MessageV2Of(&protocol.Error{Code: &code}))
		return &http.Response{
			Status: "500 Internal Server Error", StatusCode: http.StatusInternalServerError, Proto: "HTTP/1.1", ProtoMajor: 1, ProtoMinor: 1,
			Header: http.Header{}, Body: io.NopCloser(bytes.NewReader(body)), ContentLength: int64(len(body)), Request: req,
		}, err
	default:
		return s.RoundTripper.RoundTrip(req)
	}
}

func TestMetrics_show_an_answer_with_a_strange_code(t *testing.T) {
	codes := make(chan string, 2)
	codes <- "a\x00b"
	codes <- "OTS\nx"
	w := watch(t, metrics.Config{}, func(c *subscriber.Config) { c.Transport = strangeCodes{http.DefaultTransport, codes} })
	w.bed.CreateTunnel(tunnel.TunnelTypeStream)
	w.bed.PutAll(3, 1)
	w.route()
	w.eventually("failed_calls_total", 1, "operation=readrecords", `code=a\x00b`)
	w.eventually("failed_calls_total", 1, "operation=readrecords", `code=OTS\nx`)
	w.eventually("messages_settled_total", 3, "outcome=acked")
	expectClean(t, w.gather())
	for _, e := range w.sub.Status().Subscriptions[0].Errors {
		if strings.ContainsAny(e.Code, "\x00\n") {
			t.Errorf("Status has the code %q", e.Code)
		}
	}
}

func TestMetrics_show_any_name(t *testing.T) {
	w := alone(t)
	b, err := batching.New(batching.Config{Batchers: map[string]batching.Batcher{"de\xfffault": {Handler: func(context.Context, *batching.Batch) error { return nil }}}}, nil)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = b.Close() })
	for _, name := range []string{"bad\xff", "a\x00b", "", "two\nlines"} {
		w.metrics.AddBatching(name, b)
		w.metrics.OnBatch(name)(batching.Handled{Batcher: "x\x00", Messages: 1})
		w.metrics.OnAck()(subscriber.Acked{Instance: name, Topic: name + "/" + name, Changed: time.Now()})
		w.metrics.AddSubscriber(fixed{failed(name)})
	}
	families := w.gather()
	expectClean(t, families)
	for name, labels := range map[string][]string{
		"batches_running_limit": {`pipeline=bad\xff`, `batcher=de\xfffault`},
		"batch_size_messages":   {`pipeline=a\x00b`, `batcher=x\x00`},
		"handling_seconds":      {`ots_instance=two\nlines`, `table=two\nlines`, `tunnel=two\nlines`},
		"records_read_total":    {`table=bad\xff`},
	} {
		if _, found := value(families, name, labels...); !found {
			t.Errorf("there is no %s%v", name, labels)
		}
	}
}

// The number of a tunnel's series of failed calls is limited, whatever the codes are, and
// once a code has a series its count does not decrease.
func TestMetrics_distinguish_a_limited_number_of_codes(t *testing.T) {
	w := alone(t)
	source := make(fixed, 3)
	w.metrics.AddSubscriber(source)
	total, before := 0.0, map[string]float64{}
	for round := range 5 {
		for i := range source { // the codes of later rounds sort before earlier ones
			source[i] = failed("t")
			for n := range 20 * (round + 1) {
				source[i].Errors = append(source[i].Errors, subscriber.ErrorCount{Op: fmt.Sprint("op", i), Code: fmt.Sprintf("C%03d", 999-n), Count: uint64(round + 1)})
			}
		}
		if round == 4 {
			source[2].Errors = append(source[2].Errors, subscriber.ErrorCount{Op: "late", Code: "late", Count: 3})
		}
		families := w.gather()
		series := families["failed_calls_total"].GetMetric()
		if len(series) > 104 {
			t.Fatalf("round %d has %d series", round, len(series))
		}
		sum := 0.0
		for _, m := range series {
			key, v := fmt.Sprint(m.Label), m.GetCounter().GetValue()
			if v < before[key] {
				t.Errorf("round %d: %s went from %v to %v", round, key, before[key], v)
			}
			before[key] = v
			sum += v
		}
		want := float64(3*20*(round+1)*(round+1) + 3*(round/4))
		if sum != want || sum < total {
			t.Errorf("round %d: the series add up to %v, want %v", round, sum, want)
		}
		total = sum
	}
	w.want("failed_calls_total", 5, "operation=op0", "code=C999")
	w.want("failed_calls_total", 3, "operation=other", "code=other")
	if _, found := value(w.gather(), "failed_calls_total", "operation=op1", "code=other"); !found {
		t.Error("codes beyond the bound are not counted as other")
	}
}
