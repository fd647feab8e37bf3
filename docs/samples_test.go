package docs

import (
	"encoding/json"
	"fmt"
	"maps"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	"go.yaml.in/yaml/v3"

	"github.com/watermill-ots/watermill-ots/emulator"
	"github.com/watermill-ots/watermill-ots/router"
)

// Packages that samples use, by the names that they have there.
var samplePackages = map[string]string{
	"ack": module + "ack", "batching": module + "batching", "emulator": module + "emulator", "health": module + "health",
	"metrics": module + "metrics", "ots": module + "ots", "otscontainer": module + "otscontainer", "publisher": module + "publisher",
	"router": module + "router", "subscriber": module + "subscriber", "tracing": module + "tracing",
	"watermill": "github.com/ThreeDotsLabs/watermill", "message": "github.com/ThreeDotsLabs/watermill/message",
	"middleware": "github.com/ThreeDotsLabs/watermill/message/router/middleware",
	"tablestore": "github.com/aliyun/aliyun-tablestore-go-sdk/tablestore", "tunnel": "github.com/aliyun/aliyun-tablestore-go-sdk/tunnel",
	"backoff": "github.com/cenkalti/backoff/v4", "prometheus": "github.com/prometheus/client_golang/prometheus",
	"promhttp": "github.com/prometheus/client_golang/prometheus/promhttp", "otel": "go.opentelemetry.io/otel",
	"propagation": "go.opentelemetry.io/otel/propagation",
	"context":     "context", "errors": "errors", "fmt": "fmt", "http": "net/http", "log": "log", "os": "os", "signal": "os/signal",
	"slog": "log/slog", "strings": "strings", "synctest": "testing/synctest", "syscall": "syscall", "testing": "testing", "time": "time",
}

// What samples take from the text around them.
var sampleNames = map[string]string{
	"batches":     "*batching.Batching",
	"cfg":         "router.Config",
	"ctx":         "context.Context",
	"deadLetters": "message.Subscriber",
	"e":           "*emulator.Emulator",
	"endpoint":    "string",
	"err":         "error",
	"h":           "*health.Health",
	"handler":     "message.NoPublishHandlerFunc",
	"id":          "string",
	"insert":      "batching.HandlerFunc",
	"isUrgent":    "func(*message.Message) bool",
	"key":         "*tablestore.PrimaryKey",
	"logger":      "watermill.LoggerAdapter",
	"m":           "*metrics.Metrics",
	"msg":         "*message.Message",
	"processData": "func(*ots.Record) []byte",
	"provider":    "trace.TracerProvider",
	"payload":     "[]byte",
	"pub":         "*publisher.Publisher",
	"r":           "*router.Router",
	"router":      "*message.Router",
	"save":        "func(context.Context, *ots.Record) error",
	"savePage":    "func([]*tunnel.Record) error",
	"saveAll":     "batching.HandlerFunc",
	"secret":      "string",
	"seed":        "[]byte",
	"sendToSQS":   "func(context.Context, []*message.Message) error",
	"sqs":         "message.Publisher",
	"step":        "message.HandlerFunc",
	"store":       "func(context.Context, []*message.Message) error",
	"sub":         "*subscriber.Subscriber",
	"t":           "*testing.T",
	"toS3":        "batching.HandlerFunc",
	"toSQS":       "batching.HandlerFunc",
	"topic":       "string",
	"writeToS3":   "func(context.Context, []*message.Message) error",
}

// quoting is the document that quotes code of other projects.
const quoting = "upstream.md"

var (
	selector   = regexp.MustCompile(`\b([a-z]\w*)\.[A-Z]`)
	identifier = regexp.MustCompile(`\b[a-zA-Z]\w*\b`)
	elided     = regexp.MustCompile(`(?m)^\s*(…|\.\.\.)\s*$`)
	// What a sample may leave out: the use of what it shows. The compiler says so in these words.
	harmless = regexp.MustCompile(`declared and not used|imported and not used|is not used|missing return|too many return values|^\s*(have|want) \(|too many errors|^#|^\s*$`)
)

// sample returns a program with a document's code in it: in a function whose parameters
// are what the text around it has.
func sample(code string) string {
	code = elided.ReplaceAllString(code, "")
	top := strings.HasPrefix(code, "func ") || strings.Contains(code, "\nfunc ")
	used := make(map[string]bool)
	for _, m := range identifier.FindAllString(code, -1) {
		used[m] = true
	}
	// router is Watermill's Router in some samples, and the package in the others.
	variable := strings.Contains(code, "router.Add") || strings.Contains(code, "router.Run(")
	var params []string
	text := code
	for _, name := range slices.Sorted(maps.Keys(sampleNames)) {
		declares := regexp.MustCompile(`(?m)(^|,\s)` + name + `(, \w+)* := `).MatchString(code)
		if used[name] && !declares && (name != "router" || variable) && !strings.Contains(code, "func "+name+"(") {
			params = append(params, name+" "+sampleNames[name])
			text += "\n" + sampleNames[name]
		}
	}
	imports := make(map[string]bool)
	for _, m := range selector.FindAllStringSubmatch(text, -1) {
		if path, ok := samplePackages[m[1]]; ok && (m[1] != "router" || !variable) {
			imports[path] = true
		}
	}
	if strings.Contains(text, "trace.TracerProvider") {
		imports["go.opentelemetry.io/otel/trace"] = true
	}
	var b strings.Builder
	b.WriteString("package sample\n\nimport (\n")
	for _, path := range slices.Sorted(maps.Keys(imports)) {
		fmt.Fprintf(&b, "\t%q\n", path)
	}
	b.WriteString(")\n\n")
	if top {
		b.WriteString(code)
		for _, p := range params {
			if name, typ, _ := strings.Cut(p, " "); name != "err" && name != "msg" && name != "ctx" && name != "t" && name != "e" {
				fmt.Fprintf(&b, "var %s %s\n", name, typ)
			}
		}
		return b.String()
	}
	value := strings.HasPrefix(code, "subscriber.Config{") // an expression by itself
	if value {
		code = "_ = " + code
	}
	fmt.Fprintf(&b, "func sample(%s) {\n%s}\n\nvar _ = sample\n", strings.Join(params, ", "), code)
	return b.String()
}

// TestSamples_compile: each piece of Go in the documents is a program, a test, or what the
// compiler takes with the text around it.
func TestSamples_compile(t *testing.T) {
	type piece struct{ file, code string }
	pieces := make(map[string]piece) // by package
	overlay := struct{ Replace map[string]string }{make(map[string]string)}
	dir := t.TempDir()
	here, err := filepath.Abs(".")
	if err != nil {
		t.Fatal(err)
	}
	var packages, sources []string
	files, err := filepath.Glob("../*/*_test.go")
	if err != nil {
		t.Fatal(err)
	}
	for _, f := range append(files, "../examples/consumer/main.go") {
		sources = append(sources, compact(read(t, f)))
	}
	for _, path := range documents(t) {
		if path == quoting || path == chinese { // whose code is that of README.md
			continue
		}
		code, _ := blocks(read(t, path))
		for i, b := range code {
			if b.language != "go" || slices.ContainsFunc(sources, func(s string) bool { return strings.Contains(s, compact(b.code)) }) {
				continue // it is in a test that compiles
			}
			if strings.HasPrefix(b.code, "package ") { // as a file that is a test in another package
				continue
			}
			name := fmt.Sprintf("sample_%s_%d", strings.NewReplacer(".", "", "/", "", "-", "").Replace(path), i)
			file := filepath.Join(dir, name+".go")
			if err := os.WriteFile(file, []byte(sample(b.code)), 0o600); err != nil {
				t.Fatal(err)
			}
			overlay.Replace[filepath.Join(here, "samples", name, "sample.go")] = file
			if _, twice := pieces[name]; !twice {
				packages = append(packages, "./samples/"+name)
			}
			pieces[name] = piece{path, sample(b.code)}
		}
	}
	if len(pieces) < 20 {
		t.Errorf("only %d samples were found", len(pieces))
	}
	list, err := json.Marshal(overlay)
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(dir, "overlay.json"), list, 0o600); err != nil {
		t.Fatal(err)
	}
	out, err := exec.Command("go", append([]string{"build", "-gcflags=-e", "-overlay", filepath.Join(dir, "overlay.json")}, packages...)...).CombinedOutput()
	if err == nil {
		return
	}
	told := make(map[string]bool)
	for line := range strings.Lines(string(out)) {
		if harmless.MatchString(line) {
			continue
		}
		t.Error(strings.TrimSpace(line))
		for name, p := range pieces {
			if strings.Contains(line, name) && !told[name] {
				told[name] = true
				t.Logf("%s:\n%s", p.file, p.code)
			}
		}
	}
}

// instances are what a fragment of a configuration file leaves out.
const instances = `
instances:
  main: {name: my-instance, endpoint: "https://my-instance.cn-hangzhou.ots.aliyuncs.com", access_key_id: id, access_key_secret: secret}
`

// TestSamples_in_YAML_are_taken by what they are for: the router, the emulator, or, if they
// are for other programs, a YAML parser.
func TestSamples_in_YAML_are_taken(t *testing.T) {
	t.Setenv("OTS_ENDPOINT", "http://127.0.0.1:8087")
	for _, name := range []string{"OTS_ID", "OTS_SECRET", "OTS_INSTANCE", "OTS_ACCESS_KEY_ID", "OTS_ACCESS_KEY_SECRET"} {
		t.Setenv(name, "x")
	}
	configurations, seeds, others := 0, 0, 0
	for _, path := range documents(t) {
		code, _ := blocks(read(t, path))
		for _, b := range code {
			if b.language != "yaml" {
				continue
			}
			text := b.code
			var top map[string]any
			if err := yaml.Unmarshal([]byte(text), &top); err != nil {
				t.Errorf("%s: %v\n%s", path, err, text)
				continue
			}
			switch {
			case top["tunnels"] != nil:
				configurations++
				if top["instances"] == nil {
					text += instances
				}
				if _, err := router.Parse(path, []byte(text)); err != nil {
					t.Errorf("%v\n%s", err, text)
				}
			case top["tables"] != nil:
				seeds++
				e, err := emulator.Start(emulator.Options{InMemory: true})
				if err != nil {
					t.Fatal(err)
				}
				if err := e.LoadSeed(path, []byte(text)); err != nil {
					t.Errorf("%v\n%s", err, text)
				}
				if err := e.Close(); err != nil {
					t.Error(err)
				}
			default:
				others++
			}
		}
	}
	if configurations < 8 || seeds < 2 || others > 7 {
		t.Errorf("%d configurations, %d seeds and %d others were looked at", configurations, seeds, others)
	}
}
