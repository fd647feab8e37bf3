package router_test

import (
	"context"
	"errors"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/ThreeDotsLabs/watermill/message"
	"github.com/aliyun/aliyun-tablestore-go-sdk/tunnel"

	"github.com/watermill-ots/watermill-ots/batching"
	"github.com/watermill-ots/watermill-ots/emulator"
	"github.com/watermill-ots/watermill-ots/internal/testbed"
	"github.com/watermill-ots/watermill-ots/router"
	"github.com/watermill-ots/watermill-ots/subscriber"
)

// withOther adds a tunnel "other" to a file of fileFor or offline.
func withOther(yaml, more string) string {
	return yaml + "  other:\n    instance: main\n    table_name: " + testbed.Table + "\n    tunnel_name: other\n" + more
}

func TestRun_leaves_out_disabled_pipelines(t *testing.T) {
	both(t, func(t *testing.T, asked bool) {
		bed := testbed.New(t, emulator.Options{})
		log := logLines{all: new(lockedLines)}
		r := buildLogging(t, withOther(fileFor(bed, ""), "    enabled: false\n    tunnel: {create: true}\n    payload: nobody-registers-this\n    batchers: {default: }\n"), log)
		if asked {
			r.Watermill()
		}
		j := newJournal()
		if err := r.Handle("numbers", router.Handlers{Process: func(msg *message.Message) error { j.add(msg); return nil }}); err != nil {
			t.Fatal(err)
		}
		var observed []string
		err := r.Observe(router.Observers{
			Start: func(pipelines []router.Observed) error {
				for _, p := range pipelines {
					observed = append(observed, p.Name)
				}
				return nil
			},
			OnBatch: func(name string) func(batching.Handled) { t.Errorf("OnBatch is called for %q", name); return nil },
		})
		if err != nil {
			t.Fatal(err)
		}
		start(t, r)
		bed.PutAll(3, 1)
		testbed.Eventually(t, 20*time.Second, "the other one works", func() bool { return j.count() == 3 })
		if !slices.Equal(observed, []string{"numbers"}) {
			t.Errorf("observed: %v", observed)
		}
		if sub, ok := r.Subscriber("other"); ok || sub != nil {
			t.Error("the disabled pipeline has a subscriber")
		}
		if b, ok := r.Batching("other"); ok || b != nil {
			t.Error("the disabled pipeline has batches")
		}
		tunnels, err := bed.Tunnels.ListTunnel(&tunnel.ListTunnelRequest{TableName: testbed.Table})
		if err != nil || len(tunnels.Tunnels) != 1 {
			t.Errorf("there are %d tunnels, %v", len(tunnels.Tunnels), err)
		}
		if !strings.Contains(log.text(), "Some pipelines are disabled") || !strings.Contains(log.text(), "other") {
			t.Errorf("the log does not name it:\n%s", log.text())
		}
	})
}

func TestNew_refuses_a_configuration_with_all_pipelines_disabled(t *testing.T) {
	cfg := mustParse(t, withOther(offline("    enabled: false\n"), "    enabled: false\n"))
	_, err := router.New(cfg, nil)
	want := "ots.yaml:3: tunnels: all are disabled, so nothing would run; remove enabled: false from one, or choose with Config.Only"
	if err == nil || err.Error() != want || !errors.Is(err, router.ErrInvalidConfig) {
		t.Errorf("got  %v\nwant %s", err, want)
	}
	if cfg, err = cfg.Only("other"); err != nil {
		t.Fatal(err)
	}
	if _, err := router.New(cfg, nil); err != nil {
		t.Errorf("with Only: %v", err)
	}
}

func TestOnly(t *testing.T) {
	cfg := mustParse(t, withOther(offline(""), "    enabled: false\n"))
	only, err := cfg.Only("other")
	if err != nil {
		t.Fatal(err)
	}
	if !only.Tunnels["numbers"].Disabled || only.Tunnels["other"].Disabled {
		t.Errorf("got %+v", only.Tunnels)
	}
	if cfg.Tunnels["numbers"].Disabled || !cfg.Tunnels["other"].Disabled {
		t.Errorf("the original has changed: %+v", cfg.Tunnels)
	}
	for _, c := range []struct {
		names []string
		want  string
	}{
		{[]string{"numbers", "othr"}, `ots.yaml:3: tunnels: Only is called for "othr", but there is no such tunnel; did you mean "other"?`},
		{[]string{""}, `ots.yaml:3: tunnels: Only is called for "", but there is no such tunnel; tunnels are: numbers, other`},
	} {
		if _, err := cfg.Only(c.names...); err == nil || err.Error() != c.want || !errors.Is(err, router.ErrInvalidConfig) {
			t.Errorf("%q: got  %v\nwant %s", c.names, err, c.want)
		}
	}
	none, err := cfg.Only()
	if err != nil {
		t.Fatal(err)
	}
	if _, err := router.New(none, nil); err == nil || !strings.Contains(err.Error(), "all are disabled") {
		t.Errorf("New with none: %v", err)
	}
}

func TestHandle_for_a_disabled_pipeline(t *testing.T) {
	r := build(t, withOther(offline(""), "    enabled: false\n    batchers: {sqs: {batch_size: 2}}\n"))
	err := r.Handle("other", router.Handlers{Process: noProcess})
	if want := "test.yaml:13: tunnels.other.batchers.sqs: has no handler: add one to Handlers.Batches, or forward its batches to a publisher"; err == nil || err.Error() != want {
		t.Errorf("got  %v\nwant %s", err, want)
	}
	err = r.Handle("other", router.Handlers{
		Process: func(msg *message.Message) error { batching.SetBatcher(msg, "sqs"); return nil },
		Batches: batchHandlers{"sqs": noBatch},
	})
	if err != nil {
		t.Fatal(err)
	}
	out, err := r.TestRecords(context.Background(), "other", rows(2)...) // which needs no Run
	if err != nil || len(out) != 2 || out[0].Err != nil || len(out[0].Batch.Messages) != 2 {
		t.Errorf("Test: %+v, %v", out, err)
	}
	err = r.Run(context.Background())
	if want := `test.yaml:4: tunnels.numbers: has no handlers; call Handle("numbers", ...) before Run`; err == nil || err.Error() != want {
		t.Errorf("got  %v\nwant %s", err, want)
	}
}

// Of two pipelines of one tunnel, one may be enabled.
func TestParse_two_pipelines_of_one_tunnel(t *testing.T) {
	twice := offline("") + "  again:\n    instance: main\n    table_name: changes\n    tunnel_name: consumer\n"
	cfg := mustParse(t, twice+"    enabled: false\n")
	if _, err := router.New(cfg, nil); err != nil {
		t.Errorf("with one enabled: %v", err)
	}
	_, err := router.Parse("ots.yaml", []byte(twice))
	if err == nil || !strings.Contains(err.Error(), "is the tunnel of tunnels.again too") {
		t.Errorf("with both: %v", err)
	}
	both, err := cfg.Only("numbers", "again")
	if err != nil {
		t.Fatal(err)
	}
	if _, err = router.New(both, nil); err == nil || !strings.Contains(err.Error(), "is the tunnel of tunnels.again too") {
		t.Errorf("with both by Only: %v", err)
	}
}

// The source of a message is known as long as it has its context.
func TestSource_of_a_message_of_no_subscription(t *testing.T) {
	if s, ok := subscriber.SourceFromMessage(message.NewMessage("1", nil)); ok || s != (subscriber.Source{}) {
		t.Errorf("got %+v, %t", s, ok)
	}
}
