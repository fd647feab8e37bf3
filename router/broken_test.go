package router_test

import (
	"strings"
	"testing"

	"github.com/watermill-ots/watermill-ots/router"
)

// TestParse_broken breaks one place of a good configuration at a time. The text is what a
// person reads, so all of it counts.
func TestParse_broken(t *testing.T) {
	setEnv(t)
	for _, c := range brokenConfigs {
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
			if strings.Contains(err.Error(), "very-secret") {
				t.Error("the error shows a secret")
			}
		})
	}
}

var brokenConfigs = []struct {
	name     string
	old, new string // a replacement in whole
	file     string // or a file of its own
	want     string
}{
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
ots.yaml:16: pipelines: unknown key; keys here are: instances, tunnels`,
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
		want: "ots.yaml:21: tunnels.orders.workers: unknown key; keys here are: batchers, checkpoint_interval, close_timeout, failure, forward, heartbeat_interval, heartbeat_timeout, instance, max_in_flight, max_in_flight_bytes, max_poll_interval, ordering, payload, processors, table_name, tunnel, tunnel_name, worker_size",
	},
	{
		name: "unknown key far from all",
		old:  "worker_size: 2",
		new:  "zzzzzzzz: 2",
		want: "ots.yaml:21: tunnels.orders.zzzzzzzz: unknown key; keys here are: batchers, checkpoint_interval, close_timeout, failure, forward, heartbeat_interval, heartbeat_timeout, instance, max_in_flight, max_in_flight_bytes, max_poll_interval, ordering, payload, processors, table_name, tunnel, tunnel_name, worker_size",
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
		want: "ots.yaml:51: tunnels.orders.failure.retries: unknown key; keys here are: attempts, backoff_initial, backoff_max, dead_letter",
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
ots.yaml:39: tunnels.orders.more: unknown key; keys here are: batchers, checkpoint_interval, close_timeout, failure, forward, heartbeat_interval, heartbeat_timeout, instance, max_in_flight, max_in_flight_bytes, max_poll_interval, ordering, payload, processors, table_name, tunnel, tunnel_name, worker_size`,
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
		want: `ots.yaml:29: tunnels.orders.close_timeout: is "1e300"; it must be a duration such as 30s, 1m30s or 500ms, or a number of seconds`,
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
	{
		name: "malformed time",
		old:  "end: 2030-01-31T00:00:00Z",
		new:  "end: tomorrow",
		want: `ots.yaml:34: tunnels.orders.tunnel.end: is "tomorrow"; it must be a time such as 2026-01-31T00:00:00Z`,
	},
	{
		name: "malformed start",
		old:  "start: earliest",
		new:  "start: yesterday",
		want: `ots.yaml:33: tunnels.orders.tunnel.start: is "yesterday"; it must be latest, earliest or a time such as 2026-01-31T00:00:00Z`,
	},
	{
		name: "end before start",
		old:  "start: earliest",
		new:  "start: 2031-01-01T00:00:00Z",
		want: "ots.yaml:34: tunnels.orders.tunnel.end: must be after start",
	},
	{
		name: "unknown ordering",
		old:  "ordering: key",
		new:  "ordering: keys",
		want: `ots.yaml:24: tunnels.orders.ordering: is "keys"; did you mean "key"?`,
	},
	{
		name: "unknown ordering like none",
		old:  "ordering: key",
		new:  "ordering: strict-global",
		want: `ots.yaml:24: tunnels.orders.ordering: is "strict-global"; possible values are: channel, key, none`,
	},
	{
		name: "unknown tunnel type",
		old:  "type: Stream",
		new:  "type: stream",
		want: `ots.yaml:32: tunnels.orders.tunnel.type: is "stream"; did you mean "Stream"?`,
	},
	{
		name: "zero workers",
		old:  "worker_size: 2",
		new:  "worker_size: 0",
		want: `ots.yaml:21: tunnels.orders.worker_size: is "0"; it must be at least 1 (leave the key out for the default: 1)`,
	},
	{
		name: "negative workers",
		old:  "worker_size: 2",
		new:  "worker_size: -2",
		want: `ots.yaml:21: tunnels.orders.worker_size: is "-2"; it must be at least 1`,
	},
	{
		name: "zero batch size",
		old:  "batch_size: 20",
		new:  "batch_size: 0",
		want: `ots.yaml:41: tunnels.orders.batchers.sqs.batch_size: is "0"; it must be at least 1 (leave the key out for the default: 100)`,
	},
	{
		name: "zero stages",
		old:  "stages: 2",
		new:  "stages: 0",
		want: `ots.yaml:40: tunnels.orders.batchers.sqs.stages: is "0"; it must be at least 1 (leave the key out for the default: 1)`,
	},
	{
		name: "negative processors",
		old:  "      concurrency: 2",
		new:  "      concurrency: -1",
		want: `ots.yaml:37: tunnels.orders.processors.concurrency: is "-1"; it must be at least 0`,
	},
	{
		name: "zero attempts",
		old:  "attempts: 3",
		new:  "attempts: 0",
		want: `ots.yaml:51: tunnels.orders.failure.attempts: is "0"; it must be at least 1 (leave the key out for the default: 5)`,
	},
	{
		name: "zero pool",
		old:  "pool_size: 100",
		new:  "pool_size: 0",
		want: `ots.yaml:9: instances.main.pool_size: is "0"; it must be at least 1 (leave the key out for the default: no limit)`,
	},
	{
		name: "missing variable",
		old:  "${OTS_ID}",
		new:  "${NOT_SET}",
		want: "ots.yaml:5: instances.main.access_key_id: the environment variable NOT_SET is not set; set it, or give a default: ${NOT_SET:-default}",
	},
	{
		name: "missing variable inside a text",
		old:  "topic: bucket",
		new:  "topic: my-${NOT_SET}-bucket",
		want: "ots.yaml:49: tunnels.orders.batchers.s3.forward.topic: the environment variable NOT_SET is not set; set it, or give a default: ${NOT_SET:-default}",
	},
	{
		name: "variable of the wrong type",
		old:  "worker_size: 2",
		new:  "worker_size: ${WORD}",
		want: `ots.yaml:21: tunnels.orders.worker_size: is "many" (${WORD}); it must be a whole number`,
	},
	{
		name: "malformed variable",
		old:  "${OTS_ID}",
		new:  "${OTS ID}",
		want: "ots.yaml:5: instances.main.access_key_id: has a ${ that begins no ${VARIABLE} or ${VARIABLE:-default}; write $${ for a plain ${",
	},
	{
		name: "open variable",
		old:  "${OTS_SECRET}",
		new:  "${OTS_SECRET",
		want: "ots.yaml:6: instances.main.access_key_secret: has a ${ that begins no ${VARIABLE} or ${VARIABLE:-default}; write $${ for a plain ${",
	},
	{
		name: "empty secret",
		old:  "${OTS_SECRET}",
		new:  "${OTS_TOKEN:-}",
		want: "ots.yaml:6: instances.main.access_key_secret: is missing; set it, or name a provider in credentials",
	},
	{
		name: "no instances",
		file: `tunnels:
  a: {instance: main, table_name: t, tunnel_name: u}
`,
		want: "ots.yaml:1: instances: is missing or empty; at least one is needed",
	},
	{
		name: "empty instances",
		file: `instances: {}
tunnels:
  a: {instance: main, table_name: t, tunnel_name: u}
`,
		want: "ots.yaml:1: instances: is missing or empty; at least one is needed",
	},
	{
		name: "no tunnels",
		file: `instances:
  main: {name: i, endpoint: https://example.com, access_key_id: a, access_key_secret: b}
`,
		want: "ots.yaml:1: tunnels: is missing or empty; at least one is needed",
	},
	{
		name: "no instance name",
		old: `    name: my-instance
`,
		new:  "",
		want: "ots.yaml:2: instances.main.name: is missing",
	},
	{
		name: "no endpoint",
		old: `    endpoint: http://127.0.0.1:8087
`,
		new:  "",
		want: "ots.yaml:12: instances.archive.endpoint: is missing",
	},
	{
		name: "no access key id",
		old: `    access_key_id: "${OTS_ID}"
`,
		new:  "",
		want: "ots.yaml:2: instances.main.access_key_id: is missing; set it, or name a provider in credentials",
	},
	{
		name: "no secret",
		old: `    access_key_secret: "${OTS_SECRET}"
`,
		new:  "",
		want: "ots.yaml:2: instances.main.access_key_secret: is missing; set it, or name a provider in credentials",
	},
	{
		name: "keys and credentials",
		old:  "    credentials: ram",
		new: `    credentials: ram
    access_key_id: a`,
		want: "ots.yaml:15: instances.archive.credentials: excludes access_key_id, access_key_secret and security_token; keep one or the other",
	},
	{
		name: "no table name",
		old: `    table_name: pxy_test
    tunnel_name: add2`,
		new:  "    tunnel_name: add2",
		want: "ots.yaml:17: tunnels.orders.table_name: is missing",
	},
	{
		name: "no tunnel name",
		old: `    tunnel_name: add2
`,
		new:  "",
		want: "ots.yaml:17: tunnels.orders.tunnel_name: is missing",
	},
	{
		name: "no tunnel instance",
		old: `    instance: main
`,
		new:  "",
		want: "ots.yaml:17: tunnels.orders.instance: is missing",
	},
	{
		name: "no forward topic",
		old: `          topic: bucket
`,
		new:  "",
		want: "ots.yaml:47: tunnels.orders.batchers.s3.forward.topic: is missing",
	},
	{
		name: "empty forward",
		old:  "forward: {topic: audit}",
		new:  "forward:",
		want: "ots.yaml:61: tunnels.audit.forward: is empty; fill it in or leave it out",
	},
	{
		name: "endpoint without scheme",
		old:  "https://my-instance.cn-hangzhou.ots.aliyuncs.com",
		new:  "my-instance.cn-hangzhou.ots.aliyuncs.com",
		want: "ots.yaml:4: instances.main.endpoint: must be a URL such as https://my-instance.cn-hangzhou.ots.aliyuncs.com",
	},
	{
		name: "endpoint with a path",
		old:  "aliyuncs.com",
		new:  "aliyuncs.com/my-instance",
		want: "ots.yaml:4: instances.main.endpoint: must have nothing before or after the host: no user, path or query",
	},
	{
		name: "endpoint without TLS",
		old:  "https://my-instance",
		new:  "http://my-instance",
		want: "ots.yaml:4: instances.main.endpoint: is http:// to another machine; use https://, or set allow_insecure: true",
	},
	{
		name: "overflow without a pool",
		old: `    pool_size: 100
`,
		new:  "",
		want: "ots.yaml:9: instances.main.pool_max_overflow: has no effect without pool_size; set that too",
	},
	{
		name: "instance misspelt in a tunnel",
		old: `    instance: main
`,
		new: `    instance: mian
`,
		want: `ots.yaml:18: tunnels.orders.instance: no instance is called "mian"; did you mean "main"?`,
	},
	{
		name: "instance of a tunnel unknown",
		old: `    instance: main
`,
		new: `    instance: production
`,
		want: `ots.yaml:18: tunnels.orders.instance: no instance is called "production"; instances are: archive, main`,
	},
	{
		name: "dead letter instance unknown",
		old:  "instance: archive",
		new:  "instance: archiv",
		want: `ots.yaml:55: tunnels.orders.failure.dead_letter.instance: no instance is called "archiv"; did you mean "archive"?`,
	},
	{
		name: "table name with a slash",
		old: `table_name: pxy_test
    tunnel_name: add2`,
		new: `table_name: pxy/test
    tunnel_name: add2`,
		want: `ots.yaml:19: tunnels.orders.table_name: is "pxy/test"; a table's name has up to 255 letters, digits and underscores, and begins with no digit`,
	},
	{
		name: "tunnel name with a slash",
		old:  "tunnel_name: add2",
		new:  "tunnel_name: pxy/add2",
		want: `ots.yaml:20: tunnels.orders.tunnel_name: is "pxy/add2"; a tunnel's name has no slashes and no spaces`,
	},
	{
		name: "dead letter table with a dash",
		old:  "table: dead",
		new:  "table: dead-letters",
		want: `ots.yaml:56: tunnels.orders.failure.dead_letter.table: is "dead-letters"; a table's name has up to 255 letters, digits and underscores, and begins with no digit`,
	},
	{
		name: "same tunnel twice",
		old:  "tunnel_name: audit",
		new:  "tunnel_name: add2",
		want: "ots.yaml:20: tunnels.orders.tunnel_name: is the tunnel of tunnels.audit too: each would get a part of the records; give them tunnels of their own",
	},
	{
		name: "heartbeat timeout below the interval",
		old:  "heartbeat_timeout: 30s",
		new:  "heartbeat_timeout: 10s",
		want: "ots.yaml:22: tunnels.orders.heartbeat_timeout: heartbeat_timeout (10s, in whole seconds) must be more than heartbeat_interval (10s), or channels are lost between two heartbeats",
	},
	{
		name: "heartbeat interval above the default timeout",
		old: `    heartbeat_timeout: 30s
    heartbeat_interval: 10`,
		new:  "    heartbeat_interval: 10m",
		want: "ots.yaml:22: tunnels.orders.heartbeat_interval: heartbeat_timeout (5m0s, in whole seconds) must be more than heartbeat_interval (10m0s), or channels are lost between two heartbeats",
	},
	{
		name: "heartbeat timeout below a second",
		old:  "heartbeat_timeout: 30s",
		new:  "heartbeat_timeout: 900ms",
		want: `ots.yaml:22: tunnels.orders.heartbeat_timeout: is "900ms"; it must be at least 1s`,
	},
	{
		name: "spec without create",
		old:  "create: true",
		new:  "create: false",
		want: `ots.yaml:32: tunnels.orders.tunnel.type: has no effect unless create is true
ots.yaml:33: tunnels.orders.tunnel.start: has no effect unless create is true
ots.yaml:34: tunnels.orders.tunnel.end: has no effect unless create is true`,
	},
	{
		name: "batch larger than the window",
		old:  "batch_size: 20",
		new:  "batch_size: 2001",
		want: "ots.yaml:41: tunnels.orders.batchers.sqs.batch_size: is 2001, but max_in_flight is 2000: no batch would ever be full; raise max_in_flight or lower batch_size",
	},
	{
		name: "idle above timeout",
		old:  "batch_idle: 100ms",
		new:  "batch_idle: 1s",
		want: "ots.yaml:43: tunnels.orders.batchers.sqs.batch_idle: is 1s; it must be below batch_timeout, which is 1s",
	},
	{
		name: "forward beside batchers",
		old: `    failure:
      attempts`,
		new: `    forward: {topic: all}
    failure:
      attempts`,
		want: "ots.yaml:50: tunnels.orders.forward: excludes batchers; put forward into each batcher that should publish",
	},
	{
		name: "attempts without dead letters",
		old: `      dead_letter:
        instance: archive
        table: dead
`,
		new:  "",
		want: "ots.yaml:51: tunnels.orders.failure.attempts: has no effect without dead_letter: messages are tried again for ever; add dead_letter",
	},
	{
		name: "first pause above the longest",
		old:  "backoff_initial: 200ms",
		new:  "backoff_initial: 1m",
		want: "ots.yaml:52: tunnels.orders.failure.backoff_initial: backoff_initial (1m0s) must not be more than backoff_max (10s)",
	},
	{
		name: "dead letter without a target",
		old: `        table: dead
`,
		new:  "",
		want: "ots.yaml:54: tunnels.orders.failure.dead_letter: needs a topic to publish to or a table to write to",
	},
	{
		name: "dead letter with two targets",
		old: `        table: dead
`,
		new: `        table: dead
        topic: dead
`,
		want: "ots.yaml:54: tunnels.orders.failure.dead_letter: has both a topic and a table; keep one of them",
	},
	{
		name: "dead letters into the table itself",
		old: `        instance: archive
        table: dead`,
		new:  "        table: pxy_test",
		want: "ots.yaml:55: tunnels.orders.failure.dead_letter.table: is the table whose changes are handled: its dead letters would come back as changes; take another one",
	},
	{
		name: "instance of a dead letter topic",
		old:  "{publisher: kafka, topic: dead}",
		new:  "{instance: main, topic: dead}",
		want: "ots.yaml:62: tunnels.audit.failure.dead_letter.instance: has no effect with topic; it says where a table is",
	},
	{
		name: "publisher of a dead letter table",
		old: `        table: dead
`,
		new: `        table: dead
        publisher: kafka
`,
		want: "ots.yaml:57: tunnels.orders.failure.dead_letter.publisher: has no effect with table; it says whose topic it is",
	},
	{
		name: "empty dead letter",
		old:  "{dead_letter: {publisher: kafka, topic: dead}}",
		new:  "{dead_letter: }",
		want: "ots.yaml:62: tunnels.audit.failure.dead_letter: is empty; fill it in or leave it out",
	},
	{
		name: "merge of a text",
		old:  "        stages: 2",
		new:  "        <<: 2",
		want: "ots.yaml:40: tunnels.orders.batchers.sqs: merges a number; << takes mappings",
	},
}
