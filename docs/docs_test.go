// Package docs holds the project's documentation to its code.
package docs

import (
	"fmt"
	"go/ast"
	"go/parser"
	"go/token"
	"io/fs"
	"os"
	"path/filepath"
	"reflect"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"
	"unicode"

	"github.com/watermill-ots/watermill-ots/health"
	"github.com/watermill-ots/watermill-ots/ots"
	"github.com/watermill-ots/watermill-ots/router"
	"github.com/watermill-ots/watermill-ots/subscriber"
)

const (
	english  = "../README.md"
	chinese  = "../README.zh-CN.md"
	index    = "README.md" // of this folder
	settings = "settings.md"
)

// public are the packages that programs import.
var public = []string{"ots", "ack", "subscriber", "batching", "router", "publisher", "metrics", "tracing", "health", "emulator"}

func read(t *testing.T, path string) string {
	t.Helper()
	content, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	return string(content)
}

// documents returns the paths of all Markdown files.
func documents(t *testing.T) []string {
	t.Helper()
	documents := []string{"../CHANGELOG.md", "../examples/README.md", english, chinese}
	here, err := filepath.Glob("*.md")
	if err != nil || len(here) < 10 {
		t.Fatalf("only %d documents were found: %v", len(here), err)
	}
	return append(documents, here...)
}

// block is fenced code of a document.
type block struct{ language, code string }

// blocks returns a document's code, and what is left of it.
func blocks(doc string) (code []block, prose string) {
	var rest strings.Builder
	inside, indent := false, "" // of a fence in a list
	for line := range strings.Lines(doc) {
		text := strings.TrimLeft(line, " ")
		switch language, fence := strings.CutPrefix(text, "```"); {
		case fence && !inside:
			indent = line[:len(line)-len(text)]
			code, inside = append(code, block{language: strings.TrimSpace(language)}), true
		case fence:
			inside = false
		case inside:
			code[len(code)-1].code += strings.TrimPrefix(line, indent)
		default:
			rest.WriteString(line)
		}
	}
	return code, rest.String()
}

var (
	heading = regexp.MustCompile(`(?m)^(#+) (.+)$`)
	link    = regexp.MustCompile(`\]\(([^)\s]+)\)|src(?:set)?="([^"]+)"`)
	mark    = regexp.MustCompile(`[^\p{L}\p{N}\-_ ]`)
	linked  = regexp.MustCompile(`\[([^\]]*)\]\([^)]*\)`)
)

// anchors are the names that GitHub gives to a document's headings.
func anchors(doc string) (names []string) {
	_, prose := blocks(doc)
	for _, h := range heading.FindAllStringSubmatch(prose, -1) {
		text := linked.ReplaceAllString(h[2], "$1")
		names = append(names, strings.ReplaceAll(mark.ReplaceAllString(strings.ToLower(text), ""), " ", "-"))
	}
	return names
}

// links are where a document points to.
func links(doc string) (targets []string) {
	_, prose := blocks(doc)
	prose = regexp.MustCompile("`[^`\n]*`").ReplaceAllString(prose, "") // code has brackets, too
	for _, l := range link.FindAllStringSubmatch(prose, -1) {
		targets = append(targets, l[1]+l[2])
	}
	return targets
}

func TestLinks_lead_to_files_and_headings_that_exist(t *testing.T) {
	for _, path := range documents(t) {
		for _, target := range links(read(t, path)) {
			if strings.Contains(target, "://") {
				continue
			}
			file, anchor, _ := strings.Cut(target, "#")
			to := path
			if file != "" {
				to = filepath.Join(filepath.Dir(path), file)
			}
			if _, err := os.Stat(to); err != nil {
				t.Errorf("%s: %s leads nowhere", path, target)
			} else if anchor != "" && !slices.Contains(anchors(read(t, to)), anchor) {
				t.Errorf("%s: %s has no such heading; there are %q", path, target, anchors(read(t, to)))
			}
		}
	}
}

func TestIndex_leads_to_every_document(t *testing.T) {
	targets := links(read(t, index))
	for _, path := range documents(t) {
		if path != index && path != chinese && !slices.Contains(targets, path) {
			t.Errorf("docs/README.md has no link to %s", path)
		}
	}
	if !slices.Contains(links(read(t, english)), "docs/README.md") {
		t.Error("README.md has no link to docs/README.md")
	}
}

// A page says in its first paragraph for whom it is. The index is for everyone.
func TestPages_say_for_whom_they_are(t *testing.T) {
	addressed := regexp.MustCompile(`(?i)^(<!--.*-->\s*)?# .*\n\n(For |[^\n]*\bfor (those|users|newcomers|readers|maintainers|people|a (program|maintainer|consumer))\b)`)
	pages, err := filepath.Glob("*.md")
	if err != nil {
		t.Fatal(err)
	}
	for _, path := range pages {
		if path != index && !addressed.MatchString(read(t, path)) {
			t.Errorf("docs/%s does not begin with for whom it is", path)
		}
	}
}

// words counts what a person reads outside of code: link targets and tags are not.
func words(doc string) (n int) {
	_, prose := blocks(doc)
	prose = regexp.MustCompile(`\]\([^)]*\)|<[^>]*>`).ReplaceAllString(prose, " ")
	for _, w := range strings.Fields(prose) {
		if strings.ContainsFunc(w, func(r rune) bool { return unicode.IsLetter(r) || unicode.IsDigit(r) }) {
			n++
		}
	}
	return n
}

func TestReadme_is_short(t *testing.T) {
	if n := words(read(t, english)); n > 1200 {
		t.Errorf("README.md has %d words outside of code; it may have 1200", n)
	}
}

// comment matches a comment in Go, YAML or shell at the end of a line.
var comment = regexp.MustCompile(`(?m)\s+(//|#) .*$`)

func TestReadmes_are_the_same_in_both_languages(t *testing.T) {
	en, zh := read(t, english), read(t, chinese)
	codeEN, proseEN := blocks(en)
	codeZH, proseZH := blocks(zh)
	if len(codeEN) != len(codeZH) {
		t.Fatalf("one has %d pieces of code, the other %d", len(codeEN), len(codeZH))
	}
	for i, en := range codeEN {
		zh := codeZH[i]
		if comment.ReplaceAllString(en.code, "") != comment.ReplaceAllString(zh.code, "") {
			t.Errorf("the code differs:\n%s\n%s", en.code, zh.code)
		}
		for _, said := range comment.FindAllString(zh.code, -1) {
			if !strings.ContainsFunc(said, func(r rune) bool { return unicode.Is(unicode.Han, r) }) {
				t.Errorf("%s: a comment is not in Chinese: %s", chinese, said)
			}
		}
	}
	levels := func(prose string) (levels []string) {
		for _, h := range heading.FindAllStringSubmatch(prose, -1) {
			levels = append(levels, h[1])
		}
		return levels
	}
	if l, z := levels(proseEN), levels(proseZH); !slices.Equal(l, z) {
		t.Errorf("the headings differ: %v, %v", l, z)
	}
	sorted := func(doc string) []string {
		targets := slices.DeleteFunc(links(doc), func(l string) bool { return strings.HasPrefix(l, "README") || strings.HasPrefix(l, "#") })
		slices.Sort(targets)
		return targets
	}
	if l, z := sorted(en), sorted(zh); !slices.Equal(l, z) {
		t.Errorf("the links differ:\n%q\n%q", l, z)
	}
	quoted := func(prose string) []string {
		names := regexp.MustCompile("`[^`]+`").FindAllString(prose, -1)
		slices.Sort(names)
		return slices.Compact(names)
	}
	if q, z := quoted(proseEN), quoted(proseZH); !slices.Equal(q, z) {
		t.Errorf("the names differ:\n%q\n%q", q, z)
	}
}

// compact is code without indentation and blank lines.
func compact(code string) string {
	var out strings.Builder
	for line := range strings.Lines(code) {
		if line = strings.TrimSpace(line); line != "" {
			out.WriteString(line + "\n")
		}
	}
	return out.String()
}

func TestReadme_code_is_that_of_tests_that_compile(t *testing.T) {
	var sources []string
	files, err := filepath.Glob("../*/*_test.go")
	if err != nil {
		t.Fatal(err)
	}
	for _, f := range files {
		sources = append(sources, compact(read(t, f)))
	}
	code, _ := blocks(read(t, english))
	backfill, _ := blocks(read(t, "backfill.md"))
	gaps, _ := blocks(read(t, "gaps.md"))
	handle, _ := blocks(read(t, settings))
	checked := 0
	for _, b := range slices.Concat(code, handle, backfill, gaps) {
		if b.language != "go" || strings.HasPrefix(b.code, "package main") { // TestReadme_program runs that one
			continue
		}
		checked++
		if !slices.ContainsFunc(sources, func(s string) bool { return strings.Contains(s, compact(b.code)) }) {
			t.Errorf("no test has this:\n%s", b.code)
		}
	}
	if checked < 6 {
		t.Errorf("only %d pieces of code were checked", checked)
	}
}

// What testing.md shows as a whole file is a test here, in a package of another name.
func TestTesting_shows_a_whole_file_that_runs(t *testing.T) {
	_, file, _ := strings.Cut(read(t, "../emulator/consumer_test.go"), "\npackage emulator_test\n")
	code, _ := blocks(read(t, "testing.md"))
	if !slices.Contains(code, block{"go", "package warehouse_test\n" + file}) {
		t.Error("testing.md does not have emulator/consumer_test.go")
	}
}

// The keys that settings.md names for YAML are those of the configuration file.
func TestSettings_name_YAML_keys_that_exist(t *testing.T) {
	config, checked := read(t, "config.md"), 0
	_, prose := blocks(read(t, settings))
	for line := range strings.Lines(prose) {
		cells := strings.Split(line, "|")
		if len(cells) != 6 || !strings.Contains(cells[3], "`") {
			continue
		}
		for _, m := range regexp.MustCompile("`([^`]+)`").FindAllStringSubmatch(cells[3], -1) {
			checked++
			if !strings.Contains(config, "\n| `"+m[1]+"` ") {
				t.Errorf("settings.md: config.md has no key %s", m[1])
			}
		}
	}
	if checked < 15 {
		t.Errorf("only %d keys were checked", checked)
	}
}

func TestReadme_configuration_is_taken(t *testing.T) {
	t.Setenv("OTS_INSTANCE", "shop")
	t.Setenv("OTS_ENDPOINT", "http://127.0.0.1:8087")
	t.Setenv("OTS_ACCESS_KEY_ID", "id")
	t.Setenv("OTS_ACCESS_KEY_SECRET", "secret")
	code, _ := blocks(read(t, english))
	at := slices.IndexFunc(code, func(b block) bool { return b.language == "yaml" })
	if at < 0 {
		t.Fatal("there is none")
	}
	cfg, err := router.Parse("README.md", []byte(code[at].code))
	if err != nil {
		t.Fatal(err)
	}
	if _, err := router.New(cfg, nil); err != nil {
		t.Error(err)
	}
}

func TestSettings_payload_is_what_JSON_makes(t *testing.T) {
	msg, err := subscriber.JSON{}.Unmarshal(&ots.Record{
		Type: ots.Put, Sequence: ots.Sequence{Epoch: 1, Timestamp: 1700000000123456},
		PrimaryKey: []ots.Column{{Name: "id", Value: ots.IntegerValue(1)}},
		Columns:    []ots.Cell{{Name: "amount", Value: ots.IntegerValue(250)}},
	})
	if err != nil {
		t.Fatal(err)
	}
	if code, _ := blocks(read(t, settings)); !slices.Contains(code, block{"json", string(msg.Payload) + "\n"}) {
		t.Errorf("it does not show %s", msg.Payload)
	}
}

func TestSettings_have_each_field_with_its_default(t *testing.T) {
	defaults := map[string]any{
		"WorkerSize":          subscriber.DefaultWorkerSize,
		"HeartbeatInterval":   subscriber.DefaultHeartbeatInterval,
		"HeartbeatTimeout":    subscriber.DefaultHeartbeatTimeout,
		"MaxInFlight":         subscriber.DefaultMaxInFlight,
		"MaxInFlightBytes":    fmt.Sprintf("%d MiB", subscriber.DefaultMaxInFlightBytes>>20),
		"CheckpointInterval":  subscriber.DefaultCheckpointInterval,
		"MinPollInterval":     subscriber.DefaultMinPollInterval,
		"MaxPollInterval":     subscriber.DefaultMaxPollInterval,
		"EmptyReadsPerSecond": subscriber.DefaultEmptyReadsPerSecond,
		"CloseTimeout":        subscriber.DefaultCloseTimeout,
		"StuckAfter":          subscriber.DefaultStuckAfter,
		"TunnelViewInterval":  subscriber.DefaultTunnelViewInterval,
	}
	name := regexp.MustCompile("`([A-Za-z]+)`")
	for _, path := range []string{settings} {
		table := make(map[string]string)
		for line := range strings.Lines(read(t, path)) {
			if cells := strings.Split(line, "|"); len(cells) == 5 {
				for _, m := range name.FindAllStringSubmatch(cells[1], -1) {
					table[m[1]] = strings.TrimSpace(cells[2])
				}
			}
		}
		for _, f := range reflect.VisibleFields(reflect.TypeFor[subscriber.Config]()) {
			got, ok := table[f.Name]
			if !ok {
				t.Errorf("%s: Config.%s is missing", path, f.Name)
				continue
			}
			if want, ok := defaults[f.Name]; ok && got != strings.TrimSuffix(fmt.Sprint(want), "0s") && got != fmt.Sprint(want) {
				t.Errorf("%s: the default of Config.%s is %v, not %s", path, f.Name, want, got)
			}
		}
	}
}

// go doc shows a topic of a package, a heading with its text, on one screen.
func TestPackages_have_topics_that_fit_on_a_screen(t *testing.T) {
	for _, pkg := range public {
		topic, length := "Package "+pkg, 0
		for line := range strings.Lines(read(t, filepath.Join("..", pkg, "doc.go"))) {
			if heading, ok := strings.CutPrefix(line, "// # "); ok {
				topic, length = heading, 0
			}
			if length++; length == 40 {
				t.Errorf("%s/doc.go: %s has more than 40 lines", pkg, strings.TrimSpace(topic))
			}
		}
	}
}

// A developer runs the emulator, and beside it a consumer with its page. That the emulator's
// default is the documented one is tested with the command.
func TestPorts_of_the_emulator_and_of_the_page_are_different(t *testing.T) {
	m := regexp.MustCompile("`--addr HOST:PORT` \\| where to listen, `([^`]+)` unless set").FindStringSubmatch(read(t, "emulator.md"))
	if m == nil {
		t.Fatal("emulator.md does not say where the emulator listens")
	}
	if m[1] == health.DefaultAddr || strings.Contains(read(t, "emulator.md"), "--admin-addr "+health.DefaultAddr) {
		t.Errorf("both the page and the emulator listen on %s", health.DefaultAddr)
	}
}

// The index names Example functions with the file that they are in.
func TestIndex_names_examples_that_exist(t *testing.T) {
	named := regexp.MustCompile("\\[`(Example\\w*)` in `(\\w+)`\\]\\(([^)]+)\\)").FindAllStringSubmatch(read(t, index), -1)
	for _, m := range named {
		if !strings.HasPrefix(m[3], "../"+m[2]+"/") || !strings.Contains(read(t, m[3]), "func "+m[1]+"() {") {
			t.Errorf("%s has no %s", m[3], m[1])
		}
	}
	if len(named) < 10 {
		t.Errorf("only %d examples are named", len(named))
	}
}

func TestTests_that_documents_name_exist(t *testing.T) {
	var names []string
	declared := regexp.MustCompile(`(?m)^func (Test\w+)\(`)
	err := filepath.WalkDir("..", func(path string, _ fs.DirEntry, err error) error {
		if err != nil || !strings.HasSuffix(path, "_test.go") {
			return err
		}
		source, err := os.ReadFile(path)
		for _, m := range declared.FindAllStringSubmatch(string(source), -1) {
			names = append(names, m[1])
		}
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	quoted := regexp.MustCompile("`(Test[A-Z0-9]\\w*_\\w*)(\\*?)`")
	for _, path := range documents(t) {
		for _, m := range quoted.FindAllStringSubmatch(read(t, path), -1) {
			if !slices.ContainsFunc(names, func(n string) bool { return n == m[1] || m[2] == "*" && strings.HasPrefix(n, m[1]) }) {
				t.Errorf("%s: there is no %s%s", path, m[1], m[2])
			}
		}
	}
}

func TestPackages_say_what_they_are_and_document_and_show_what_they_export(t *testing.T) {
	for _, pkg := range public {
		if !strings.HasPrefix(read(t, filepath.Join("..", pkg, "doc.go")), "// Package "+pkg+" ") {
			t.Errorf("%s/doc.go does not begin with the package's comment", pkg)
		}
		files, err := filepath.Glob(filepath.Join("..", pkg, "*.go"))
		if err != nil {
			t.Fatal(err)
		}
		examples := 0
		for _, path := range files {
			fset := token.NewFileSet()
			file, err := parser.ParseFile(fset, path, nil, parser.ParseComments)
			if err != nil {
				t.Fatal(err)
			}
			for _, d := range file.Decls {
				switch f, ok := d.(*ast.FuncDecl); {
				case !strings.HasSuffix(path, "_test.go"):
					for _, name := range undocumented(d) {
						t.Errorf("%s: %s has no comment", fset.Position(d.Pos()), name)
					}
				case ok && strings.HasPrefix(f.Name.Name, "Example"):
					examples++
				}
			}
		}
		if examples == 0 {
			t.Errorf("%s has no example", pkg)
		}
	}
}

// undocumented returns the exported names that a declaration leaves without a comment.
func undocumented(d ast.Decl) (names []string) {
	without := func(name string, comments ...*ast.CommentGroup) {
		if ast.IsExported(name) && !slices.ContainsFunc(comments, func(c *ast.CommentGroup) bool { return c != nil }) {
			names = append(names, name)
		}
	}
	switch d := d.(type) {
	case *ast.FuncDecl:
		if d.Recv == nil || ast.IsExported(receiver(d.Recv.List[0].Type)) {
			without(d.Name.Name, d.Doc)
		}
	case *ast.GenDecl:
		for _, s := range d.Specs {
			switch s := s.(type) {
			case *ast.TypeSpec:
				without(s.Name.Name, s.Doc, d.Doc)
			case *ast.ValueSpec:
				for _, n := range s.Names {
					without(n.Name, s.Doc, s.Comment, d.Doc)
				}
			}
		}
	}
	return names
}

// receiver is the name of a method's type.
func receiver(x ast.Expr) string {
	switch x := x.(type) {
	case *ast.StarExpr:
		return receiver(x.X)
	case *ast.IndexExpr:
		return receiver(x.X)
	case *ast.Ident:
		return x.Name
	}
	return strconv.Quote(fmt.Sprintf("%T", x))
}

// What a start does is said once, in the same words wherever people look.
func TestStart_is_told_in_one_sentence_in_all_places(t *testing.T) {
	const says = "At the start, what cannot succeed fails at once (credentials that are refused, no such table or tunnel, " +
		"a tunnel that has expired or is of another type), and while the service is busy, throttles, cannot be reached or " +
		"does not answer in time, Subscribe tries again with backoff, which it logs once, until it succeeds, its context ends or Close is called."
	for _, path := range []string{settings, "../subscriber/doc.go", "../subscriber/subscriber.go"} {
		text := strings.Join(strings.Fields(strings.ReplaceAll(read(t, path), "\n//", " ")), " ")
		if !strings.Contains(text, says) {
			t.Errorf("%s does not say it", path)
		}
	}
}

func TestArchitecture_names_files_that_exist(t *testing.T) {
	text := read(t, "architecture.md")
	dir, found := "", 0
	for _, m := range regexp.MustCompile("`([\\w/-]+\\.(?:go|json))`").FindAllStringSubmatch(text, -1) {
		path := m[1]
		if i := strings.LastIndex(path, "/"); i >= 0 {
			dir = path[:i] // the names that follow are in the same folder
		} else {
			path = dir + "/" + path
		}
		if _, err := os.Stat(filepath.Join("..", path)); err != nil {
			t.Errorf("architecture.md names %s, which is not there", path)
		}
		found++
	}
	for _, m := range regexp.MustCompile("`((?:internal|subscriber|emulator)/[\\w/-]+)`").FindAllStringSubmatch(text, -1) {
		if _, err := os.Stat(filepath.Join("..", m[1])); err != nil {
			t.Errorf("architecture.md names %s, which is not there", m[1])
		}
	}
	if found < 20 {
		t.Errorf("%d files found: the test looks for nothing", found)
	}
}
