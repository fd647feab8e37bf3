package router_test

import (
	"errors"
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"testing"
	"time"

	"github.com/watermill-ots/watermill-ots/router"
)

// whole is a configuration in which every key is set, so that any line of it
// can be broken; but for signature_version and region, which TestParse_signature
// has.
const whole = `instances:
  main:
    name: my-instance
    endpoint: https://my-instance.cn-hangzhou.ots.aliyuncs.com
    access_key_id: "${OTS_ID}"
    access_key_secret: "${OTS_SECRET}"
    security_token: "${OTS_TOKEN:-}"
    allow_insecure: false
    pool_size: 100
    pool_max_overflow: 20
    debug: false
  archive:
    name: other
    endpoint: http://127.0.0.1:8087
    credentials: ram
tunnels:
  orders:
    instance: main
    table_name: pxy_test
    tunnel_name: add2
    worker_size: 2
    heartbeat_timeout: 30s
    heartbeat_interval: 10
    ordering: key
    max_in_flight: 2000
    max_in_flight_bytes: 32MiB
    checkpoint_interval: 1s
    max_poll_interval: 500ms
    close_timeout: 15s
    tunnel:
      create: true
      type: Stream
      start: earliest
      end: 2030-01-31T00:00:00Z
    payload: json
    processors:
      concurrency: 2
    batchers:
      sqs:
        stages: 2
        batch_size: 20
        batch_timeout: 1s
        batch_idle: 100ms
        max_bytes: 256KiB
        isolate: true
      s3:
        forward:
          publisher: files
          topic: bucket
    failure:
      attempts: 3
      backoff_initial: 200ms
      backoff_max: 10s
      dead_letter:
        instance: archive
        table: dead
  audit:
    instance: main
    table_name: pxy_test
    tunnel_name: audit
    forward: {topic: audit}
    failure: {dead_letter: {publisher: kafka, topic: dead}}
    preset: fleet
    client_tag: audit-0
    expected_clients: 3
    tunnel_view_interval: 30s
    enabled: true
    scope: channel
    processors: {concurrency: 4}
`

func setEnv(t *testing.T) {
	t.Helper()
	t.Setenv("OTS_ID", "LTAI-id")
	t.Setenv("OTS_SECRET", "very-secret")
	unset(t, "OTS_TOKEN")
	unset(t, "NOT_SET")
	t.Setenv("TWO", "2")
	t.Setenv("WORD", "many")
}

// unset removes a variable until the test ends.
func unset(t *testing.T, name string) {
	t.Helper()
	t.Setenv(name, "") // has it restored
	if err := os.Unsetenv(name); err != nil {
		t.Fatal(err)
	}
}

func TestParse(t *testing.T) {
	setEnv(t)
	t.Run("reads_every_key", func(t *testing.T) {
		got, err := router.Parse("ots.yaml", []byte(whole))
		if err != nil {
			t.Fatal(err)
		}
		want := map[string]router.Instance{
			"main": {
				Name: "my-instance", Endpoint: "https://my-instance.cn-hangzhou.ots.aliyuncs.com",
				AccessKeyID: "LTAI-id", AccessKeySecret: "very-secret", PoolSize: 100, PoolMaxOverflow: 20,
			},
			"archive": {Name: "other", Endpoint: "http://127.0.0.1:8087", Credentials: "ram"},
		}
		if !reflect.DeepEqual(got.Instances, want) {
			t.Errorf("instances\n got %+v\nwant %+v", got.Instances, want)
		}
		wantOrders := router.Tunnel{
			Instance: "main", TableName: "pxy_test", TunnelName: "add2", WorkerSize: 2,
			HeartbeatTimeout: 30 * time.Second, HeartbeatInterval: 10 * time.Second,
			Ordering: "key", MaxInFlight: 2000, MaxInFlightBytes: 32 << 20,
			CheckpointInterval: time.Second, MaxPollInterval: 500 * time.Millisecond, CloseTimeout: 15 * time.Second,
			Tunnel:     router.TunnelSpec{Create: true, Type: "Stream", Start: "earliest", End: time.Date(2030, 1, 31, 0, 0, 0, 0, time.UTC)},
			Payload:    "json",
			Processors: router.Processors{Concurrency: 2},
			Batchers: map[string]router.Batcher{
				"sqs": {Concurrency: 2, BatchSize: 20, BatchTimeout: time.Second, BatchIdle: 100 * time.Millisecond, MaxBytes: 256 << 10, Isolate: true},
				"s3":  {Forward: &router.Target{Publisher: "files", Topic: "bucket"}},
			},
			Failure: router.Failure{
				Attempts: 3, BackoffInitial: 200 * time.Millisecond, BackoffMax: 10 * time.Second,
				DeadLetter: &router.DeadLetterTarget{Instance: "archive", Table: "dead"},
			},
		}
		if !reflect.DeepEqual(got.Tunnels["orders"], wantOrders) {
			t.Errorf("orders\n got %+v\nwant %+v", got.Tunnels["orders"], wantOrders)
		}
		wantAudit := router.Tunnel{
			Instance: "main", TableName: "pxy_test", TunnelName: "audit",
			Forward: &router.Target{Topic: "audit"},
			Failure: router.Failure{DeadLetter: &router.DeadLetterTarget{Publisher: "kafka", Topic: "dead"}},
			Preset:  "fleet", ClientTag: "audit-0", ExpectedClients: 3, TunnelViewInterval: 30 * time.Second,
			Enabled: true, Scope: "channel", Processors: router.Processors{Concurrency: 4},
		}
		if !reflect.DeepEqual(got.Tunnels["audit"], wantAudit) {
			t.Errorf("audit\n got %+v\nwant %+v", got.Tunnels["audit"], wantAudit)
		}
	})
	t.Run("environment_variables_are_values_of_any_type", func(t *testing.T) {
		cfg := mustParse(t, replace(t, "worker_size: 2", `worker_size: "${TWO}"`, "table_name: pxy_test\n    tunnel_name: add2", "table_name: ${NOT_SET:-pxy}_test\n    tunnel_name: add2", "topic: bucket", "topic: a$${b}"))
		o := cfg.Tunnels["orders"]
		if o.WorkerSize != 2 || o.TableName != "pxy_test" || o.Batchers["s3"].Forward.Topic != "a${b}" {
			t.Errorf("got %d, %q, %q", o.WorkerSize, o.TableName, o.Batchers["s3"].Forward.Topic)
		}
	})
	t.Run("aliases_and_merges_share_settings", func(t *testing.T) {
		cfg := mustParse(t, replace(t, "      sqs:\n", "      sqs: &sqs\n", "      s3:\n", "      more:\n        <<: *sqs\n        batch_size: 7\n      same: *sqs\n      s3:\n"))
		b := cfg.Tunnels["orders"].Batchers
		if b["same"] != b["sqs"] || b["more"].BatchSize != 7 || b["more"].Concurrency != 2 {
			t.Errorf("got %+v", b)
		}
	})
	t.Run("a_batcher_without_settings_has_the_defaults", func(t *testing.T) {
		cfg := mustParse(t, replace(t, "      sqs:\n", "      plain:\n      sqs:\n"))
		if b, ok := cfg.Tunnels["orders"].Batchers["plain"]; !ok || b != (router.Batcher{}) {
			t.Errorf("got %+v, %v", b, ok)
		}
	})
	t.Run("all_faults_come_in_one_error_in_the_order_of_lines", func(t *testing.T) {
		_, err := router.Parse("ots.yaml", []byte(replace(t, "pool_size: 100", "pool_size: many", "worker_size: 2", "worker_size: 0", "topic: bucket", "topics: bucket")))
		var ce *router.ConfigError
		if !errors.As(err, &ce) || !errors.Is(err, router.ErrInvalidConfig) {
			t.Fatalf("got %v", err)
		}
		var lines []int
		for _, f := range ce.Faults {
			lines = append(lines, f.Line)
		}
		if want := []int{9, 21, 49}; !reflect.DeepEqual(lines, want) {
			t.Errorf("lines %v, want %v:\n%v", lines, want, err)
		}
	})
	t.Run("a_file_that_is_not_there", func(t *testing.T) {
		path := filepath.Join(t.TempDir(), "none.yaml")
		_, err := router.Load(path)
		if !errors.Is(err, os.ErrNotExist) || !strings.Contains(err.Error(), path) {
			t.Errorf("got %v", err)
		}
	})
}

func mustParse(t *testing.T, yaml string) router.Config {
	t.Helper()
	cfg, err := router.Parse("ots.yaml", []byte(yaml))
	if err != nil {
		t.Fatal(err)
	}
	return cfg
}

// replace returns whole with the first of each pair, which must be in it,
// replaced by the second.
func replace(t *testing.T, pairs ...string) string {
	t.Helper()
	text := whole
	for i := 0; i < len(pairs); i += 2 {
		if !strings.Contains(text, pairs[i]) {
			t.Fatalf("%q is not in the configuration", pairs[i])
		}
		text = strings.Replace(text, pairs[i], pairs[i+1], 1)
	}
	return text
}

// Whatever line is misspelt, the error names that line.
func TestParse_names_the_line_of_any_misspelt_key(t *testing.T) {
	setEnv(t)
	lines := strings.Split(strings.TrimSuffix(whole, "\n"), "\n")
	for i, line := range lines {
		key := strings.TrimLeft(line, " ")
		if i == 0 || key == "main:" || key == "archive:" || key == "orders:" || key == "audit:" || key == "sqs:" || key == "s3:" {
			continue // names are free
		}
		broken := append([]string(nil), lines...)
		broken[i] = line[:len(line)-len(key)] + "zz_" + key
		_, err := router.Parse("ots.yaml", []byte(strings.Join(broken, "\n")))
		var ce *router.ConfigError
		if !errors.As(err, &ce) {
			t.Errorf("line %d, %q: got %v", i+1, broken[i], err)
			continue
		}
		named := false
		for _, f := range ce.Faults {
			named = named || f.Line == i+1 && strings.HasPrefix(f.Text, "unknown key")
		}
		if !named {
			t.Errorf("line %d, %q: got\n%v", i+1, broken[i], err)
		}
	}
}

// FuzzParse looks for panics, and for errors without a place.
func FuzzParse(f *testing.F) {
	f.Add(whole)
	f.Add("instances: &a {b: *a}\ntunnels: {<<: [*a, *a]}\n")
	f.Add("instances: {? [x] : y, <<: 1}\n---\n")
	f.Add("x-a: &a {<<: *a}\ntunnels: {t.u: *a, \"\\n\": !x {batchers: {a: ${B}}}}\n")
	f.Add("tunnels: {t: {table_name: '${A:-{${B:-$${c}}}}', access: \"${A:-{\", x: *s}}\n")
	f.Add("tunnels: {t: {tunnel: {end: 2030-01-31}, batchers: {\"\": {}}}}\n")
	f.Fuzz(func(t *testing.T, text string) {
		_, err := router.Parse("f.yaml", []byte(text))
		var ce *router.ConfigError
		if err != nil && (!errors.As(err, &ce) || len(ce.Faults) == 0 || !strings.HasPrefix(err.Error(), "f.yaml")) {
			t.Errorf("got %v", err)
		}
	})
}
