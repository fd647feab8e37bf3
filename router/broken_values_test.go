package router_test

// brokenValues are values that YAML or a reader could take for something else, and
// secrets in places where an error could show them. Secrets have "hush" in them.
var brokenValues = []brokenConfig{
	{
		name: "default with an open brace",
		old:  "topic: bucket",
		new:  `topic: "${NOT_SET:-{x}"`,
		want: "ots.yaml:49: tunnels.orders.batchers.s3.forward.topic: has a ${VARIABLE:-default} without its }: each { in a default needs a }; if the value has a # or a comma, put it in quotes",
	},
	{
		name: "default with an open brace of a variable that is set",
		old:  "topic: bucket",
		new:  `topic: "${TWO:-{x}"`,
		want: "ots.yaml:49: tunnels.orders.batchers.s3.forward.topic: has a ${VARIABLE:-default} without its }: each { in a default needs a }; if the value has a # or a comma, put it in quotes",
	},
	{
		name: "malformed reference in a default that is not used",
		old:  "topic: bucket",
		new:  `topic: "${TWO:-${WORD-x}}"`,
		want: "ots.yaml:49: tunnels.orders.batchers.s3.forward.topic: has a ${ that does not begin a ${VARIABLE} or ${VARIABLE:-default}; write $${ for a plain ${",
	},
	{
		name: "missing variable in a default",
		old:  "topic: bucket",
		new:  `topic: "${NOT_SET:-${OTS_TOKEN}}"`,
		want: "ots.yaml:49: tunnels.orders.batchers.s3.forward.topic: the environment variable OTS_TOKEN is not set; set it, or give a default: ${OTS_TOKEN:-default}",
	},
	{
		name: "defaults in defaults without end",
		old:  "topic: bucket",
		new:  `topic: "${A:-${A:-${A:-${A:-${A:-${A:-${A:-${A:-${A:-${A:-${A:-${A:-${A:-${A:-${A:-${A:-${A:-x}}}}}}}}}}}}}}}}}"`,
		want: "ots.yaml:49: tunnels.orders.batchers.s3.forward.topic: has more than 16 nested defaults",
	},
	{
		name: "variable in braces without quotes",
		old:  "    forward: {topic: audit}",
		new:  "    forward: {topic: ${WORD}}",
		want: `ots.yaml:61: not valid YAML: inside of { } and [ ] a ${VARIABLE} must be in quotes: "${WORD}"`,
	},
	{
		name: "variable in braces without quotes, in the middle of a value",
		old:  "    forward: {topic: audit}",
		new:  "    forward: {publisher: \"p}\", topic: it's-${WORD:-hush}-x}",
		want: `ots.yaml:61: not valid YAML: inside of { } and [ ] a ${VARIABLE} must be in quotes: "${WORD}"`,
	},
	{
		name: "variable in braces without quotes, some lines down",
		old:  "    forward: {topic: audit}",
		new:  "    forward: { # {${NOT_SET}\n      publisher: '${NOT_SET}',\n      topic: ${WORD}\n    }",
		want: `ots.yaml:63: not valid YAML: inside of { } and [ ] a ${VARIABLE} must be in quotes: "${WORD}"`,
	},
	{
		name: "variable in brackets without quotes",
		old:  "    forward: {topic: audit}",
		new:  "    forward: [${]",
		want: `ots.yaml:61: not valid YAML: inside of { } and [ ] a ${VARIABLE} must be in quotes: "${VARIABLE}"`,
	},
	{
		name: "colon in a value without quotes",
		old:  "      topic: bucket",
		new:  "      topic: ${NOT_SET:-a: b}",
		want: "ots.yaml:49: not valid YAML: mapping values are not allowed in this context; a value with a colon and a space must be in quotes",
	},
	{
		name: "secret that begins with an asterisk",
		old:  `access_key_secret: "${OTS_SECRET}"`,
		new:  `access_key_secret: *hush`,
		want: "ots.yaml:6: not valid YAML: an alias (*) has no anchor (&) before it; a value that begins with * must be in quotes",
	},
	{
		name: "secret that begins with an ampersand",
		old:  `access_key_secret: "${OTS_SECRET}"`,
		new:  `access_key_secret: &hush`,
		want: "ots.yaml:6: instances.main.access_key_secret: is empty; give a text, or leave the key out; one that begins with # or & must be in quotes",
	},
	{
		name: "secret that begins with an exclamation mark",
		old:  `access_key_secret: "${OTS_SECRET}"`,
		new:  `access_key_secret: !hush`,
		want: "ots.yaml:6: instances.main.access_key_secret: has a tag that means nothing here; leave it out, or put a value that begins with ! in quotes",
	},
	{
		name: "secret that begins with an at sign",
		old:  `access_key_secret: "${OTS_SECRET}"`,
		new:  "access_key_secret: @hush",
		want: "ots.yaml:6: not valid YAML: found character that cannot start any token; a value that begins with @, ` or % must be in quotes",
	},
	{
		name: "secret that is a number",
		old:  `access_key_secret: "${OTS_SECRET}"`,
		new:  "access_key_secret: 4711",
		want: "ots.yaml:6: instances.main.access_key_secret: is a number; it must be a text, so put it in quotes",
	},
	{
		name: "secret with a comma in braces",
		old: `    credentials: ram
`,
		new: `    credentials: ram
  more: {name: n, endpoint: "https://example.com", access_key_id: a, access_key_secret: b, hush, hush}
`,
		want: `ots.yaml:16: instances.more: has an unknown key without a value, which is not shown; if it is a part of a secret, put that in quotes
ots.yaml:16: instances.more: has an unknown key without a value, which is not shown; if it is a part of a secret, put that in quotes`,
	},
	{
		name: "endpoint with a password",
		old:  "endpoint: https://my-instance.cn",
		new:  "endpoint: https://user:hush@my-instance.cn",
		want: "ots.yaml:4: instances.main.endpoint: must have nothing before or after the host: no user, path, query or fragment",
	},
	{
		name: "endpoint with a password that is not a URL",
		old:  "endpoint: https://my-instance.cn",
		new:  "endpoint: https://user:hush%zz@my-instance.cn",
		want: "ots.yaml:4: instances.main.endpoint: must be a URL such as https://my-instance.cn-hangzhou.ots.aliyuncs.com",
	},
	{
		name: "secret as the name of a table",
		old: `table_name: pxy_test
    tunnel_name: add2`,
		new: `table_name: ${OTS_SECRET}
    tunnel_name: x${OTS_SECRET} y`,
		want: `ots.yaml:19: tunnels.orders.table_name: is ${OTS_SECRET}, whose value is not shown; a table's name has up to 255 letters, digits and underscores, and does not begin with a digit
ots.yaml:20: tunnels.orders.tunnel_name: is x${OTS_SECRET} y, whose value is not shown; a tunnel's name has up to 255 letters, digits, underscores and hyphens`,
	},
	{
		name: "secret as the name of an instance",
		old: `  orders:
    instance: main`,
		new: `  orders:
    instance: ${OTS_SECRET}`,
		want: "ots.yaml:18: tunnels.orders.instance: no instance is called ${OTS_SECRET}, whose value is not shown; instances are: archive, main",
	},
	{
		name: "secrets as a start and as the name of a dead-letter table",
		old:  "start: earliest",
		new:  "start: ${NOT_SET:-${OTS_SECRET}}",
		want: "ots.yaml:33: tunnels.orders.tunnel.start: is ${NOT_SET:-${OTS_SECRET}}, whose value is not shown; it must be latest, earliest or a time such as 2026-01-31T00:00:00Z",
	},
	{
		name: "secret as the name of a dead-letter table",
		old:  "        table: dead",
		new:  "        table: ${OTS_SECRET}",
		want: "ots.yaml:56: tunnels.orders.failure.dead_letter.table: is ${OTS_SECRET}, whose value is not shown; a table's name has up to 255 letters, digits and underscores, and does not begin with a digit",
	},
	{
		name: "secret as an ordering",
		old:  "ordering: key",
		new:  "ordering: ${OTS_SECRET}",
		want: "ots.yaml:24: tunnels.orders.ordering: is ${OTS_SECRET}, whose value is not shown; possible values are: channel, key, none",
	},
	{
		name: "empty variable for a number",
		old:  "worker_size: 2",
		new:  "worker_size: ${NOT_SET:-}",
		want: "ots.yaml:21: tunnels.orders.worker_size: is empty (${NOT_SET:-}); it must be a whole number",
	},
	{
		name: "reference of several lines",
		old:  "worker_size: 2",
		new:  `worker_size: "${NOT_SET:-a\nb}"`,
		want: `ots.yaml:21: tunnels.orders.worker_size: is "a\nb" (${NOT_SET:-a\nb}); it must be a whole number`,
	},
	{
		name: "default for a number is a word",
		old:  "worker_size: 2",
		new:  "worker_size: ${NOT_SET:-some}",
		want: `ots.yaml:21: tunnels.orders.worker_size: is "some" (${NOT_SET:-some}); it must be a whole number`,
	},
	{
		name: "number that begins with a zero",
		old:  "worker_size: 2",
		new:  "worker_size: 017",
		want: `ots.yaml:21: tunnels.orders.worker_size: is "017"; it must be a whole number`,
	},
	{
		name: "number with a tag that makes it a text",
		old:  "worker_size: 2",
		new:  "worker_size: !!str 2",
		want: `ots.yaml:21: tunnels.orders.worker_size: is the text "2"; it must be a whole number, without quotes`,
	},
	{
		name: "mapping with a tag",
		old:  "    processors:\n",
		new:  "    processors: !hush\n",
		want: "ots.yaml:36: tunnels.orders.processors: has a tag that means nothing here; leave it out, or put a value that begins with ! in quotes",
	},
	{
		name: "duration with underscores",
		old:  "close_timeout: 15s",
		new:  "close_timeout: 1_000",
		want: `ots.yaml:29: tunnels.orders.close_timeout: is "1_000"; it must be a duration such as 30s, 1m30s or 500ms, or a number of seconds`,
	},
	{
		name: "duration whose sum with others would overflow",
		old:  "close_timeout: 15s",
		new:  "close_timeout: 2562047h",
		want: `ots.yaml:29: tunnels.orders.close_timeout: is "2562047h"; it must be at most 876000h, which is 100 years`,
	},
	{
		name: "long value",
		old:  "worker_size: 2",
		new:  "worker_size: 0123456789012345678901234567890123456789012345678901234567890123456789012345678901234567890123456789é",
		want: `ots.yaml:21: tunnels.orders.worker_size: is "0123456789012345678901234567890123456789012345678901234567890123456789012345678901234567890123456789…"; it must be a whole number`,
	},
	{
		name: "merge of itself",
		old:  "      sqs:\n        stages: 2",
		new:  "      sqs: &s\n        <<: *s\n        stages: 2",
		want: "ots.yaml:39: tunnels.orders.batchers.sqs: merges itself",
	},
	{
		name: "merge of a text",
		old:  "      sqs:\n        stages: 2",
		new:  "      sqs:\n        <<: text\n        stages: 2",
		want: "ots.yaml:40: tunnels.orders.batchers.sqs: merges a single value; << takes mappings",
	},
	{
		name: "one tunnel by two names of its instance",
		file: `instances:
  a: &a {name: i, endpoint: "https://example.com", access_key_id: a, access_key_secret: b}
  b: {<<: *a, endpoint: "https://example.com/"}
tunnels:
  first: {instance: a, table_name: t, tunnel_name: u}
  second: {instance: b, table_name: t, tunnel_name: u}
`,
		want: "ots.yaml:6: tunnels.second.tunnel_name: is the tunnel of tunnels.first too: each would get a part of the records; give each its own tunnel",
	},
	{
		name: "dead letters into their own table by two names of its instance",
		file: `instances:
  a: &a {name: i, endpoint: "https://example.com", access_key_id: a, access_key_secret: b}
  b: *a
tunnels:
  first: {instance: a, table_name: t, tunnel_name: u, failure: {dead_letter: {instance: b, table: t}}}
`,
		want: "ots.yaml:5: tunnels.first.failure.dead_letter.table: is the table whose changes are handled: its dead letters would come back as changes; use another one",
	},
	{
		name: "dead letters that go in circles",
		file: `instances:
  m: {name: i, endpoint: "https://example.com", access_key_id: a, access_key_secret: b}
  n: {name: j, endpoint: "https://example.com", access_key_id: a, access_key_secret: b}
tunnels:
  a: {instance: m, table_name: ta, tunnel_name: u, failure: {dead_letter: {table: tb}}}
  b: {instance: m, table_name: tb, tunnel_name: u, failure: {dead_letter: {instance: n, table: tc}}}
  c: {instance: n, table_name: tc, tunnel_name: u, failure: {dead_letter: {instance: m, table: ta}}}
  into.them: {instance: m, table_name: td, tunnel_name: u, failure: {dead_letter: {table: tb}}}
  other: {instance: n, table_name: ta, tunnel_name: u, failure: {dead_letter: {table: tb}}}
  repair: {instance: n, table_name: tb, tunnel_name: u, failure: {dead_letter: {table: last}}}
`,
		want: `ots.yaml:5: tunnels.a.failure.dead_letter.table: is the table that tunnels.b handles, whose own dead letters lead back to the table handled here: they would go in circles for ever; use another one
ots.yaml:6: tunnels.b.failure.dead_letter.table: is the table that tunnels.c handles, whose own dead letters lead back to the table handled here: they would go in circles for ever; use another one
ots.yaml:7: tunnels.c.failure.dead_letter.table: is the table that tunnels.a handles, whose own dead letters lead back to the table handled here: they would go in circles for ever; use another one`,
	},
	{
		name: "names with dots keep their own faults and lines",
		file: `instances:
  m: {name: i, endpoint: "https://example.com", access_key_id: a, access_key_secret: b}
tunnels:
  a:
    instance: m
    table_name: t
    tunnel_name: u
    wat: 1
    batchers: {x.y: {batch_size: 0}, x: {batch_size: 0}}
  a.wat: {instance: nope, table_name: t, tunnel_name: v}
  a.wat.instance: {instance: m, table_name: 1x, tunnel_name: w}
  "a\nb": {instance: m, table_name: t}
  'a"b': {instance: m, table_name: t}
`,
		want: `ots.yaml:8: tunnels.a.wat: unknown key; keys here are: ` + tunnelKeys + `
ots.yaml:9: tunnels.a.batchers."x.y".batch_size: is "0"; it must be at least 1 (leave the key out for the default: 100)
ots.yaml:9: tunnels.a.batchers.x.batch_size: is "0"; it must be at least 1 (leave the key out for the default: 100)
ots.yaml:10: tunnels."a.wat".instance: no instance is called "nope"; instances are: m
ots.yaml:11: tunnels."a.wat.instance".table_name: is "1x"; a table's name has up to 255 letters, digits and underscores, and does not begin with a digit
ots.yaml:12: tunnels."a\nb".tunnel_name: is missing
ots.yaml:13: tunnels."a\"b".tunnel_name: is missing`,
	},
}
