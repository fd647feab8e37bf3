package router_test

import (
	"errors"
	"fmt"
	"strings"
	"testing"

	"github.com/watermill-ots/watermill-ots/router"
)

func TestParse_replaces_references_to_the_environment(t *testing.T) {
	setEnv(t) // NOT_SET and OTS_TOKEN are not set
	t.Setenv("EMPTY", "")
	t.Setenv("A", "aval")
	t.Setenv("REF", "${A}")
	for _, c := range []struct{ value, want string }{
		{"${A}", "aval"},
		{"x${A}y${A}", "xavalyaval"},
		{"${A:-b}", "aval"},
		{"${EMPTY}.", "."},
		{"${EMPTY:-b}", "b"},
		{"${NOT_SET:-}.", "."},
		// Defaults nest.
		{"${A:-${NOT_SET}}", "aval"}, // not needed, so it may be missing
		{"${NOT_SET:-${A}}", "aval"},
		{"${NOT_SET:-x${EMPTY:-${A}}y}z", "xavalyz"},
		{"${NOT_SET:-${OTS_TOKEN:-c}}}", "c}"},
		// Braces in a default balance.
		{"${A:-{x}}", "aval"},
		{"${NOT_SET:-{x}}", "{x}"},
		{`${NOT_SET:-{"a": {"b": "${A}"}}}`, `{"a": {"b": "aval"}}`},
		{"${NOT_SET:-}}", "}"},
		// Braces elsewhere are what they are.
		{"{x}}{", "{x}}{"},
		{"{${A}}", "{aval}"},
		// $${ is a plain ${.
		{"$${A}", "${A}"},
		{"${NOT_SET:-$${A}}", "${A}"},
		{"${A:-$${x}y}", "aval"}, // its brace counts, too
		{"$$${A}", "$${A}"},
		{"$A $$A $", "$A $$A $"},
		// What a variable contains is not looked at again.
		{"${REF}", "${A}"},
		{"${NOT_SET:-${REF}}", "${A}"},
	} {
		cfg, err := router.Parse("ots.yaml", []byte(replace(t, "topic: bucket", "topic: '"+c.value+"'")))
		if err != nil {
			t.Errorf("%s: %v", c.value, err)
			continue
		}
		if got := cfg.Tunnels["orders"].Batchers["s3"].Forward.Topic; got != c.want {
			t.Errorf("%s became %q, want %q", c.value, got, c.want)
		}
	}
}

func TestParse_takes_files_of_other_editors(t *testing.T) {
	setEnv(t)
	want := mustParse(t, whole)
	for name, text := range map[string]string{
		"byte order mark": "\xef\xbb\xbf" + whole,
		"CRLF":            strings.ReplaceAll(whole, "\n", "\r\n"),
		"document marks":  "---\n" + whole + "...\n",
	} {
		got, err := router.Parse("ots.yaml", []byte(text))
		if err != nil {
			t.Errorf("%s: %v", name, err)
		} else if fmt.Sprintf("%+v", got.Instances) != fmt.Sprintf("%+v", want.Instances) || len(got.Tunnels) != len(want.Tunnels) {
			t.Errorf("%s: got %+v", name, got)
		}
	}
}

func TestParse_takes_templates_at_the_top(t *testing.T) {
	setEnv(t)
	cfg := mustParse(t, `x-account: &account {access_key_id: "${OTS_ID}", access_key_secret: "${OTS_SECRET}"}
x-notes: [anything, 1, {wrong: [key]}, ~, "${NOT_SET}"]
x-base: &base
  instance: main
  worker_size: 2
  max_in_flight: 10
x-large: &large
  <<: *base
  max_in_flight: 1000
x-size: &size 7
instances:
  main: {<<: *account, name: i, endpoint: https://example.com}
tunnels:
  a: {<<: *base, table_name: t, tunnel_name: a}
  b: {<<: [*large, *base], table_name: t, tunnel_name: b, worker_size: 3}
  c: {<<: *large, table_name: t, tunnel_name: c, batchers: {default: {batch_size: *size}}}
`)
	if in := cfg.Instances["main"]; in.AccessKeySecret != "very-secret" || in.Name != "i" {
		t.Errorf("the instance is %+v", in)
	}
	a, b, c := cfg.Tunnels["a"], cfg.Tunnels["b"], cfg.Tunnels["c"]
	if a.WorkerSize != 2 || a.MaxInFlight != 10 || b.WorkerSize != 3 || b.MaxInFlight != 1000 || b.Instance != "main" || c.WorkerSize != 2 || c.MaxInFlight != 1000 || c.Batchers["default"].BatchSize != 7 {
		t.Errorf("got\n%+v\n%+v\n%+v", a, b, c)
	}
}

func TestParse_checks_a_template_where_it_is_used(t *testing.T) {
	setEnv(t)
	_, err := router.Parse("ots.yaml", []byte(`x-base: &base
  worker_size: ${WORD}
  wrokers: 1
`+replace(t, "    worker_size: 2\n", "    <<: *base\n")))
	want := `ots.yaml:2: tunnels.orders.worker_size: is ${WORD}, whose value is not shown; it must be a whole number
ots.yaml:3: tunnels.orders.wrokers: unknown key; keys here are: `
	if err == nil || !strings.HasPrefix(err.Error(), want) {
		t.Errorf("got\n%v\nwant\n%s...", err, want)
	}
	// Only at the top.
	_, err = router.Parse("ots.yaml", []byte(replace(t, "    worker_size: 2\n", "    x-workers: 2\n")))
	if err == nil || !strings.Contains(err.Error(), "ots.yaml:21: tunnels.orders.x-workers: unknown key") {
		t.Errorf("got %v", err)
	}
}

// Mappings that merge each other several times are read once each: otherwise this one
// would have 10^12 keys.
func TestParse_reads_what_is_merged_often_once(t *testing.T) {
	setEnv(t)
	var templates strings.Builder
	templates.WriteString("x-0: &m0 {worker_size: 2}\n")
	for i := 1; i <= 12; i++ {
		list := strings.TrimSuffix(strings.Repeat(fmt.Sprintf("*m%d, ", i-1), 10), ", ")
		fmt.Fprintf(&templates, "x-%d: &m%d {<<: [%s]}\n", i, i, list)
	}
	cfg := mustParse(t, templates.String()+replace(t, "    worker_size: 2\n", "    <<: *m12\n"))
	if got := cfg.Tunnels["orders"].WorkerSize; got != 2 {
		t.Errorf("worker_size is %d", got)
	}
}

func TestRouter_names_the_line_of_a_name_with_dots(t *testing.T) {
	cfg := mustParse(t, `instances:
  m.n: {name: i, endpoint: "https://example.com", credentials: ram}
tunnels:
  a: {instance: m.n, table_name: t, tunnel_name: u, batchers: {b: {forward: {topic: x}}}}
  a.batchers.b: {instance: m.n, table_name: t, tunnel_name: v, batchers: {b.c: {}}}
`)
	r, err := router.New(cfg, nil)
	if err != nil {
		t.Fatal(err)
	}
	err = r.Handle("a.batchers.b", router.Handlers{})
	want := `ots.yaml:5: tunnels."a.batchers.b".batchers: Handlers.Process is nil, so no message chooses a batcher, and none is called "default"
ots.yaml:5: tunnels."a.batchers.b".batchers."b.c": has no handler: add one to Handlers.Batches, or forward its batches to a publisher`
	if err == nil || err.Error() != want {
		t.Errorf("Handle returned\n%v\nwant\n%s", err, want)
	}
	err = r.Run(t.Context())
	var ce *router.ConfigError
	if !errors.As(err, &ce) {
		t.Fatalf("Run returned %v", err)
	}
	for _, place := range []string{`ots.yaml:2: instances."m.n".credentials: `, `ots.yaml:4: tunnels.a.batchers.b.forward: no publisher called "default"`, `ots.yaml:5: tunnels."a.batchers.b": has no handlers`} {
		if !strings.Contains(err.Error(), place) {
			t.Errorf("%s is not in\n%v", place, err)
		}
	}
}
