package router_test

import (
	"slices"
	"strings"
	"testing"

	"github.com/watermill-ots/watermill-ots/router"
)

// TestParse_broken breaks one place of a good configuration at a time. The text is what a
// person reads, so all of it counts.
func TestParse_broken(t *testing.T) {
	setEnv(t)
	for _, c := range slices.Concat(brokenForms, brokenValues, brokenMeanings) {
		t.Run(c.name, func(t *testing.T) {
			text := c.file
			if text == "" {
				text = replace(t, c.old, c.new)
			}
			_, err := router.Parse("ots.yaml", []byte(text))
			if err == nil {
				t.Fatal("no error")
			}
			if err.Error() != c.want {
				t.Errorf("got\n%s\nwant\n%s", err, c.want)
			}
			if strings.Contains(err.Error(), "very-secret") || strings.Contains(err.Error(), "hush") {
				t.Error("the error shows a secret")
			}
		})
	}
}

// tunnelKeys are the keys of a tunnel, as an error lists them.
const tunnelKeys = "batchers, checkpoint_interval, client_tag, close_timeout, empty_reads_per_second, enabled, expected_clients, failure, forward, heartbeat_interval, heartbeat_timeout, " +
	"instance, lookup, lookup_columns, max_in_flight, max_in_flight_bytes, max_poll_interval, min_poll_interval, on_end, on_gap, ordering, payload, preset, processors, scope, table_name, tunnel, tunnel_name, tunnel_view_interval, worker_size"

type brokenConfig struct {
	name     string
	old, new string // a replacement in whole
	file     string // or a file of its own
	want     string
}

// brokenForms are wrong as YAML, in their keys or in the form of a value.
var brokenForms = []brokenConfig{
	{
		name: "empty file",
		file: `
`,
		want: "ots.yaml: the file is empty; it needs instances and tunnels",
	},
	{
		name: "only a comment",
		file: `# nothing
`,
		want: "ots.yaml: the file is empty; it needs instances and tunnels",
	},
	{
		name: "two documents",
		file: `instances: {}
---
tunnels: {}
`,
		want: "ots.yaml:2: a second document begins here; put everything into one",
	},
	{
		name: "not YAML: tab",
		old:  "    name: my-instance",
		new:  "\tname: my-instance",
		want: "ots.yaml:3: not valid YAML: the line begins with a tab; indent with spaces",
	},
	{
		name: "not YAML: open quote",
		old:  `access_key_id: "${OTS_ID}"`,
		new:  `access_key_id: "${OTS_ID}`,
		want: "ots.yaml:5: not valid YAML: found unexpected end of stream",
	},
	{
		name: "not YAML: indentation",
		old:  "    endpoint: https",
		new:  "   endpoint: https",
		want: "ots.yaml:4: not valid YAML: did not find expected key",
	},
	{
		name: "list instead of a mapping",
		file: `- instances
- tunnels
`,
		want: "ots.yaml:1: is a list; it must be a mapping (key: value)",
	},
	{
		name: "a single value",
		file: `hello
`,
		want: "ots.yaml:1: is a single value; it must be a mapping (key: value)",
	},
	{
		name: "unknown top-level key",
		old: `tunnels:
`,
		new: `tunnel:
`,
		want: `ots.yaml:16: tunnel: unknown key; did you mean "tunnels"?`,
	},
	{
		name: "unknown top-level key like none",
		old: `tunnels:
  orders`,
		new: `pipelines:
  orders`,
		want: `ots.yaml:1: tunnels: is missing or empty; at least one is needed
ots.yaml:16: pipelines: unknown key; keys here, besides x-..., are: instances, tunnels`,
	},
	{
		name: "unknown instance key",
		old:  "    pool_size: 100",
		new:  "    poolsize: 100",
		want: `ots.yaml:9: instances.main.poolsize: unknown key; did you mean "pool_size"?`,
	},
	{
		name: "unknown tunnel key",
		old:  "worker_size: 2",
		new:  "workers: 2",
		want: "ots.yaml:21: tunnels.orders.workers: unknown key; keys here are: " + tunnelKeys,
	},
	{
		name: "unknown key far from all",
		old:  "worker_size: 2",
		new:  "zzzzzzzz: 2",
		want: "ots.yaml:21: tunnels.orders.zzzzzzzz: unknown key; keys here are: " + tunnelKeys,
	},
	{
		name: "unknown processor key",
		old:  "      concurrency: 2",
		new:  "      concurency: 2",
		want: `ots.yaml:37: tunnels.orders.processors.concurency: unknown key; did you mean "concurrency"?`,
	},
	{
		name: "unknown batcher key",
		old:  "batch_size: 20",
		new:  "batch_siez: 20",
		want: `ots.yaml:41: tunnels.orders.batchers.sqs.batch_siez: unknown key; did you mean "batch_size"?`,
	},
	{
		name: "unknown failure key",
		old:  "      attempts: 3",
		new:  "      retries: 3",
		want: "ots.yaml:51: tunnels.orders.failure.retries: unknown key; keys here are: attempts, backoff_initial, backoff_max, dead_letter, give_up_after, stop_after",
	},
	{
		name: "misspelt required key",
		old: `    table_name: pxy_test
    tunnel_name: add2`,
		new: `    tabel_name: pxy_test
    tunnel_name: add2`,
		want: `ots.yaml:19: tunnels.orders.tabel_name: unknown key; did you mean "table_name"?`,
	},
	{
		name: "unknown dead letter key",
		old:  "        table: dead",
		new:  "        tabel: dead",
		want: `ots.yaml:56: tunnels.orders.failure.dead_letter.tabel: unknown key; did you mean "table"?`,
	},
	{
		name: "unknown tunnel spec key",
		old:  "      create: true",
		new:  "      created: true",
		want: `ots.yaml:31: tunnels.orders.tunnel.created: unknown key; did you mean "create"?`,
	},
	{
		name: "key twice",
		old:  "worker_size: 2",
		new: `worker_size: 2
    worker_size: 3`,
		want: "ots.yaml:22: tunnels.orders.worker_size: is given twice, first on line 21",
	},
	{
		name: "pipeline twice",
		old: `  audit:
`,
		new: `  orders:
`,
		want: "ots.yaml:57: tunnels.orders: is given twice, first on line 17",
	},
	{
		name: "stages and concurrency",
		old:  "        stages: 2",
		new: `        stages: 2
        concurrency: 2`,
		want: "ots.yaml:41: tunnels.orders.batchers.sqs.concurrency: means the same as stages on line 40; keep one of them",
	},
	{
		name: "key without a name",
		old:  "worker_size: 2",
		new:  "~: 2",
		want: "ots.yaml:21: tunnels.orders: has a key that is not a name",
	},
	{
		name: "word for a number",
		old:  "worker_size: 2",
		new:  "worker_size: two",
		want: `ots.yaml:21: tunnels.orders.worker_size: is "two"; it must be a whole number`,
	},
	{
		name: "quoted number",
		old:  "worker_size: 2",
		new:  `worker_size: "2"`,
		want: `ots.yaml:21: tunnels.orders.worker_size: is the text "2"; it must be a whole number, without quotes`,
	},
	{
		name: "fraction for a number",
		old:  "worker_size: 2",
		new:  "worker_size: 2.5",
		want: `ots.yaml:21: tunnels.orders.worker_size: is "2.5"; it must be a whole number`,
	},
	{
		name: "number too large",
		old:  "worker_size: 2",
		new:  "worker_size: 99999999999999999999",
		want: `ots.yaml:21: tunnels.orders.worker_size: is "99999999999999999999"; it must be a whole number`,
	},
	{
		name: "list for a number",
		old:  "worker_size: 2",
		new:  "worker_size: [2]",
		want: "ots.yaml:21: tunnels.orders.worker_size: is a list; it must be a whole number",
	},
	{
		name: "mapping for a number",
		old:  "worker_size: 2",
		new:  "worker_size: {n: 2}",
		want: "ots.yaml:21: tunnels.orders.worker_size: is a mapping; it must be a whole number",
	},
	{
		name: "empty value",
		old:  "worker_size: 2",
		new:  "worker_size:",
		want: "ots.yaml:21: tunnels.orders.worker_size: is empty; give a whole number, or leave the key out",
	},
	{
		name: "number for a text",
		old: `table_name: pxy_test
    tunnel_name: add2`,
		new: `table_name: 42
    tunnel_name: add2`,
		want: "ots.yaml:19: tunnels.orders.table_name: is a number; it must be a text, so put it in quotes",
	},
	{
		name: "boolean for a text",
		old:  "tunnel_name: add2",
		new:  "tunnel_name: true",
		want: "ots.yaml:20: tunnels.orders.tunnel_name: is a boolean; it must be a text, so put it in quotes",
	},
	{
		name: "text for a boolean",
		old:  "debug: false",
		new:  "debug: sometimes",
		want: `ots.yaml:11: instances.main.debug: is "sometimes"; it must be true or false`,
	},
	{
		name: "yes for a boolean",
		old:  "debug: false",
		new:  "debug: yes",
		want: `ots.yaml:11: instances.main.debug: is "yes"; it must be true or false`,
	},
	{
		name: "quoted boolean",
		old:  "debug: false",
		new:  `debug: "false"`,
		want: `ots.yaml:11: instances.main.debug: is the text "false"; it must be true or false, without quotes`,
	},
	{
		name: "text for a mapping",
		old: `    processors:
      concurrency: 2`,
		new:  "    processors: 2",
		want: "ots.yaml:36: tunnels.orders.processors: is a number; it must be a mapping (key: value)",
	},
	{
		name: "list for batchers",
		old: `    batchers:
`,
		new: `    batchers: [a]
    more:
`,
		want: `ots.yaml:38: tunnels.orders.batchers: is a list; it must be a mapping (key: value)
ots.yaml:39: tunnels.orders.more: unknown key; keys here are: ` + tunnelKeys,
	},
	{
		name: "text for an instance",
		old: `  archive:
    name: other
    endpoint: http://127.0.0.1:8087
    credentials: ram
`,
		new: `  archive: other
`,
		want: "ots.yaml:12: instances.archive: is a single value; it must be a mapping (key: value)",
	},
	{
		name: "malformed duration",
		old:  "heartbeat_timeout: 30s",
		new:  "heartbeat_timeout: 30 seconds",
		want: `ots.yaml:22: tunnels.orders.heartbeat_timeout: is "30 seconds"; it must be a duration such as 30s, 1m30s or 500ms, or a number of seconds`,
	},
	{
		name: "negative duration",
		old:  "max_poll_interval: 500ms",
		new:  "max_poll_interval: -1s",
		want: `ots.yaml:28: tunnels.orders.max_poll_interval: is "-1s"; it must be at least 1ms`,
	},
	{
		name: "zero duration",
		old:  "checkpoint_interval: 1s",
		new:  "checkpoint_interval: 0",
		want: `ots.yaml:27: tunnels.orders.checkpoint_interval: is "0"; it must be at least 1ms (leave the key out for the default: 5s)`,
	},
	{
		name: "endless duration",
		old:  "close_timeout: 15s",
		new:  "close_timeout: 1e300",
		want: `ots.yaml:29: tunnels.orders.close_timeout: is "1e300"; it must be at most 876000h, which is 100 years`,
	},
	{
		name: "malformed bytes",
		old:  "32MiB",
		new:  "32MB",
		want: `ots.yaml:26: tunnels.orders.max_in_flight_bytes: is "32MB"; it must be a number of bytes such as 65536, 512KiB or 64MiB`,
	},
	{
		name: "negative bytes",
		old:  "256KiB",
		new:  "-1",
		want: `ots.yaml:44: tunnels.orders.batchers.sqs.max_bytes: is "-1"; it must be at least 1`,
	},
	{
		name: "too many bytes",
		old:  "32MiB",
		new:  "99999999999GiB",
		want: `ots.yaml:26: tunnels.orders.max_in_flight_bytes: is "99999999999GiB"; it must be a number of bytes such as 65536, 512KiB or 64MiB`,
	},
}
