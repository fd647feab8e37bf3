package router_test

import "strings"

// brokenMeanings are well-formed, but say what cannot be.
var brokenMeanings = []brokenConfig{
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
		want: `ots.yaml:21: tunnels.orders.worker_size: is ${WORD}, whose value is not shown; it must be a whole number`,
	},
	{
		name: "malformed variable",
		old:  "${OTS_ID}",
		new:  "${OTS ID}",
		want: "ots.yaml:5: instances.main.access_key_id: has a ${ that does not begin a ${VARIABLE} or ${VARIABLE:-default}; write $${ for a plain ${",
	},
	{
		name: "open variable",
		old:  "${OTS_SECRET}",
		new:  "${OTS_SECRET",
		want: "ots.yaml:6: instances.main.access_key_secret: has a ${ that does not begin a ${VARIABLE} or ${VARIABLE:-default}; write $${ for a plain ${",
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
		name: "signature version 4 without a region",
		old:  "    debug: false",
		new:  "    signature_version: v4",
		want: "ots.yaml:2: instances.main.region: is missing; signature_version: v4 needs the region of the instance, such as cn-hangzhou",
	},
	{
		name: "region without signature version 4",
		old:  "    debug: false",
		new:  "    region: cn-hangzhou",
		want: "ots.yaml:11: instances.main.region: has no effect without signature_version: v4; set that too, or remove it",
	},
	{
		name: "region that is an endpoint",
		old:  "    debug: false",
		new: `    signature_version: v4
    region: cn-hangzhou.ots.aliyuncs.com`,
		want: `ots.yaml:12: instances.main.region: is "cn-hangzhou.ots.aliyuncs.com"; a region is written as in cn-hangzhou, in lower case and without the rest of the endpoint`,
	},
	{
		name: "region from the environment",
		old:  "    debug: false",
		new: `    signature_version: v4
    region: ${OTS_ID}`,
		want: "ots.yaml:12: instances.main.region: is ${OTS_ID}, whose value is not shown; a region is written as in cn-hangzhou, in lower case and without the rest of the endpoint",
	},
	{
		name: "unknown signature version",
		old:  "    debug: false",
		new: `    signature_version: v3
    region: cn-hangzhou`,
		want: `ots.yaml:11: instances.main.signature_version: is "v3"; did you mean "v2"?`,
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
		want: "ots.yaml:4: instances.main.endpoint: must have nothing before or after the host: no user, path, query or fragment",
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
		want: `ots.yaml:19: tunnels.orders.table_name: is "pxy/test"; a table's name has up to 255 letters, digits and underscores, and does not begin with a digit`,
	},
	{
		name: "tunnel name with a slash",
		old:  "tunnel_name: add2",
		new:  "tunnel_name: pxy/add2",
		want: `ots.yaml:20: tunnels.orders.tunnel_name: is "pxy/add2"; a tunnel's name has up to 255 letters, digits, underscores and hyphens`,
	},
	{
		name: "dead letter table with a dash",
		old:  "table: dead",
		new:  "table: dead-letters",
		want: `ots.yaml:56: tunnels.orders.failure.dead_letter.table: is "dead-letters"; a table's name has up to 255 letters, digits and underscores, and does not begin with a digit`,
	},
	{
		name: "same tunnel twice",
		old:  "tunnel_name: audit",
		new:  "tunnel_name: add2",
		want: "ots.yaml:20: tunnels.orders.tunnel_name: is the tunnel of tunnels.audit too: each would get a part of the records; give each its own tunnel",
	},
	{
		name: "heartbeat timeout below the interval",
		old:  "heartbeat_timeout: 30s",
		new:  "heartbeat_timeout: 10s",
		want: "ots.yaml:22: tunnels.orders.heartbeat_timeout: heartbeat_timeout is 10s and heartbeat_interval 10s: the timeout, in whole seconds, must be at least 14s, or one heartbeat without an answer loses the channels; three times the interval is a good choice",
	},
	{
		name: "heartbeat interval above the default timeout",
		old: `    heartbeat_timeout: 30s
    heartbeat_interval: 10`,
		new:  "    heartbeat_interval: 10m",
		want: "ots.yaml:22: tunnels.orders.heartbeat_interval: heartbeat_timeout is 5m0s and heartbeat_interval 10m0s: the timeout, in whole seconds, must be at least 13m20s, or one heartbeat without an answer loses the channels; three times the interval is a good choice",
	},
	{
		name: "shortest poll interval above the longest",
		old:  "max_poll_interval: 500ms",
		new:  "max_poll_interval: 500ms\n    min_poll_interval: 501ms",
		want: "ots.yaml:29: tunnels.orders.min_poll_interval: is 501ms; it must not exceed max_poll_interval, which is 500ms",
	},
	{
		name: "shortest poll interval above the default of the longest",
		old:  "max_poll_interval: 500ms",
		new:  "min_poll_interval: 2s",
		want: "ots.yaml:28: tunnels.orders.min_poll_interval: is 2s; it must not exceed max_poll_interval, which is 1s",
	},
	{
		name: "start before 1970",
		old:  "start: earliest",
		new:  "start: 1960-01-01T00:00:00Z",
		want: "ots.yaml:33: tunnels.orders.tunnel.start: is 1960-01-01T00:00:00Z; it must be after the beginning of 1970, from which the service counts, and before the end of 2261",
	},
	{
		name: "end beyond the service's nanoseconds",
		old:  "end: 2030-01-31T00:00:00Z",
		new:  "end: 2300-01-31T00:00:00Z",
		want: "ots.yaml:34: tunnels.orders.tunnel.end: is 2300-01-31T00:00:00Z; it must be after the beginning of 1970, from which the service counts, and before the end of 2261",
	},
	{
		name: "heartbeat interval above the preset's timeout",
		old:  "preset: fleet",
		new:  "preset: fleet\n    heartbeat_interval: 30s",
		want: "ots.yaml:64: tunnels.audit.heartbeat_interval: heartbeat_timeout is 20s and heartbeat_interval 30s: the timeout, in whole seconds, must be at least 40s, or one heartbeat without an answer loses the channels; three times the interval is a good choice",
	},
	{
		name: "unknown preset",
		old:  "preset: fleet",
		new:  "preset: swarm",
		want: `ots.yaml:63: tunnels.audit.preset: is "swarm"; possible values are: fleet`,
	},
	{
		name: "client tag that is not ASCII",
		old:  "client_tag: audit-0",
		new:  "client_tag: prüfung",
		want: `ots.yaml:64: tunnels.audit.client_tag: is "prüfung"; use at most 128 printable ASCII characters`,
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
		name: "recreation of a tunnel with a start and an end",
		old:  "    ordering: key",
		new:  "    ordering: key\n    on_gap: recreate",
		want: `ots.yaml:34: tunnels.orders.tunnel.start: excludes on_gap: recreate: the tunnels that it creates begin with all rows, at their creation
ots.yaml:35: tunnels.orders.tunnel.end: excludes on_gap: recreate: the tunnels that it creates have no end`,
	},
	{
		name: "recreation of a backfill",
		file: strings.NewReplacer("ordering: key", "on_gap: recreate", "type: Stream", "type: BaseData", "      start: earliest\n", "", "      end: 2030-01-31T00:00:00Z\n", "").Replace(whole),
		want: "ots.yaml:32: tunnels.orders.tunnel.type: is BaseData, which excludes on_gap: recreate: what that creates is BaseAndStream; repeat a backfill with a tunnel of another name",
	},
	{
		name: "unknown on_gap",
		old:  "ordering: key",
		new:  "on_gap: recreat",
		want: `ots.yaml:24: tunnels.orders.on_gap: is "recreat"; did you mean "recreate"?`,
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
		want: "ots.yaml:51: tunnels.orders.failure.attempts: has no effect without dead_letter: messages are retried without limit; add dead_letter",
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
		want: "ots.yaml:55: tunnels.orders.failure.dead_letter.table: is the table whose changes are handled: its dead letters would come back as changes; use another one",
	},
	{
		name: "instance of a dead letter topic",
		old:  "{publisher: kafka, topic: dead}",
		new:  "{instance: main, topic: dead}",
		want: "ots.yaml:62: tunnels.audit.failure.dead_letter.instance: has no effect with topic; it is the instance of a table",
	},
	{
		name: "publisher of a dead letter table",
		old: `        table: dead
`,
		new: `        table: dead
        publisher: kafka
`,
		want: "ots.yaml:57: tunnels.orders.failure.dead_letter.publisher: has no effect with table; it is the publisher of a topic",
	},
	{
		name: "empty dead letter",
		old:  "{dead_letter: {publisher: kafka, topic: dead}}",
		new:  "{dead_letter: }",
		want: "ots.yaml:62: tunnels.audit.failure.dead_letter: is empty; fill it in or leave it out",
	},
	{
		name: "unknown scope",
		old:  "scope: channel",
		new:  "scope: chanel",
		want: `ots.yaml:68: tunnels.audit.scope: is "chanel"; did you mean "channel"?`,
	},
	{
		name: "unknown scope like none",
		old:  "scope: channel",
		new:  "scope: 'per process'",
		want: `ots.yaml:68: tunnels.audit.scope: is "per process"; possible values are: channel, tunnel, worker`,
	},
	{
		name: "scope of nothing",
		old: `    scope: channel
    processors: {concurrency: 4}
`,
		new: `    scope: worker
`,
		want: "ots.yaml:68: tunnels.audit.scope: has no effect without batchers and processors.concurrency, which it is about; set one of them, or leave scope out",
	},
	{
		name: "enabled that is neither true nor false",
		old:  "enabled: true",
		new:  "enabled: no",
		want: `ots.yaml:67: tunnels.audit.enabled: is "no"; it must be true or false`,
	},
	{
		name: "fault of a disabled tunnel",
		old: `    enabled: true
    scope: channel`,
		new: `    enabled: false
    scope: chanel`,
		want: `ots.yaml:68: tunnels.audit.scope: is "chanel"; did you mean "channel"?`,
	},
	{
		name: "merge of a text",
		old:  "        stages: 2",
		new:  "        <<: 2",
		want: "ots.yaml:40: tunnels.orders.batchers.sqs: merges a number; << takes mappings",
	},
}
