package docs

import (
	"encoding/hex"
	"go/parser"
	"go/token"
	"io/fs"
	"os"
	"path/filepath"
	"reflect"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/aliyun/aliyun-tablestore-go-sdk/tunnel/protocol"

	"github.com/watermill-ots/watermill-ots/internal/plainbuffer"
)

// sourcesWith returns the paths of all files of the repository with one of the endings.
func sourcesWith(t *testing.T, endings ...string) (paths []string) {
	t.Helper()
	err := filepath.WalkDir("..", func(path string, d fs.DirEntry, err error) error {
		switch {
		case err != nil:
			return err
		case d.IsDir() && (d.Name() == ".git" || d.Name() == "node_modules"):
			return fs.SkipDir
		case !d.IsDir() && slices.Contains(endings, filepath.Ext(path)):
			paths = append(paths, path)
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	return paths
}

// reference is how a comment names a heading of docs/protocol.md: [docs/protocol.md, Checkpoints].
var reference = regexp.MustCompile(`\[docs/protocol\.md, ([^\]]+)\]`)

func TestProtocol_has_the_headings_that_comments_name(t *testing.T) {
	var headings []string
	_, prose := blocks(read(t, "protocol.md"))
	for _, h := range heading.FindAllStringSubmatch(prose, -1) {
		headings = append(headings, h[2])
	}
	found := 0
	for _, path := range sourcesWith(t, ".go") {
		file, err := parser.ParseFile(token.NewFileSet(), path, nil, parser.ParseComments|parser.SkipObjectResolution)
		if err != nil {
			t.Fatal(err)
		}
		for _, group := range file.Comments {
			text := strings.Join(strings.Fields(group.Text()), " ")
			refs := reference.FindAllStringSubmatch(text, -1)
			if filepath.Base(path) != "protocol_test.go" && len(refs) != strings.Count(text, "docs/protocol.md") {
				t.Errorf("%s names docs/protocol.md in another form than [docs/protocol.md, Heading]: %s", path, text)
			}
			for _, ref := range refs {
				found++
				if !slices.Contains(headings, ref[1]) {
					t.Errorf("%s: docs/protocol.md has no heading %q", path, ref[1])
				}
			}
		}
	}
	if found < 10 {
		t.Errorf("%d references found: the test looks for nothing", found)
	}
}

func TestNothing_refers_to_notes_outside_of_the_repository(t *testing.T) {
	outside := []string{"[" + "facts", "[" + "D:", "shared" + "/facts"}
	for _, path := range sourcesWith(t, ".go", ".md") {
		text := read(t, path)
		for _, mark := range outside {
			if strings.Contains(text, mark) {
				t.Errorf("%s has a reference %q: name a heading of docs/protocol.md", path, mark)
			}
		}
	}
}

func TestProtocol_names_files_that_exist(t *testing.T) {
	found := 0
	for _, m := range regexp.MustCompile("`((?:internal|subscriber|emulator|publisher)/[\\w/.-]+)`").FindAllStringSubmatch(read(t, "protocol.md"), -1) {
		found++
		if _, err := os.Stat(filepath.Join("..", m[1])); err != nil {
			t.Errorf("protocol.md names %s, which is not there", m[1])
		}
	}
	if found < 10 {
		t.Errorf("%d files found: the test looks for nothing", found)
	}
}

// messages are those of the table in docs/protocol.md whose fields are compared.
var messages = []any{
	protocol.Error{}, protocol.CreateTunnelRequest{}, protocol.Tunnel{}, protocol.StreamTunnelConfig{}, protocol.CreateTunnelResponse{},
	protocol.DeleteTunnelRequest{}, protocol.DescribeTunnelRequest{}, protocol.ListTunnelRequest{}, protocol.ListTunnelResponse{},
	protocol.DescribeTunnelResponse{}, protocol.TunnelInfo{}, protocol.ChannelInfo{}, protocol.GetRpoRequest{}, protocol.GetRpoResponse{},
	protocol.ConnectRequest{}, protocol.ClientConfig{}, protocol.ConnectResponse{}, protocol.HeartbeatRequest{}, protocol.HeartbeatResponse{},
	protocol.Channel{}, protocol.ShutdownRequest{}, protocol.GetCheckpointRequest{}, protocol.GetCheckpointResponse{},
	protocol.CheckpointRequest{}, protocol.ReadRecordsRequest{}, protocol.ReadRecordsResponse{}, protocol.Record{}, protocol.Token{},
	protocol.TokenContent{}, protocol.TokenContentV2{}, protocol.ScheduleRequest{},
}

// fieldsOf returns the fields of a message as "number name rule", with the rules of the document.
func fieldsOf(message any) (fields []string) {
	tag := regexp.MustCompile(`^\w+,(\d+),(req|opt|rep),name=(\w+)`)
	rules := map[string]string{"req": "r", "opt": "o", "rep": "*"}
	for _, f := range reflect.VisibleFields(reflect.TypeOf(message)) {
		if m := tag.FindStringSubmatch(f.Tag.Get("protobuf")); m != nil {
			fields = append(fields, m[1]+" "+m[3]+" "+rules[m[2]])
		}
	}
	return fields
}

func TestProtocol_has_the_fields_of_the_SDKs_messages(t *testing.T) {
	listed := make(map[string][]string)
	field := regexp.MustCompile(`^(\d+) (\w+)(?: \w+)? ([ro*])†?(?: \(.*\))?$`)
	for line := range strings.Lines(read(t, "protocol.md")) {
		cells := strings.Split(line, "|")
		if len(cells) != 4 || !strings.HasPrefix(cells[2], " 1 ") {
			continue
		}
		var fields []string
		for text := range strings.SplitSeq(cells[2], ";") {
			m := field.FindStringSubmatch(strings.TrimSpace(text))
			if m == nil {
				t.Errorf("%s: not a field: %q", cells[1], text)
				continue
			}
			fields = append(fields, m[1]+" "+m[2]+" "+m[3])
		}
		for name := range strings.SplitSeq(cells[1], ",") {
			listed[strings.TrimSpace(name)] = fields
		}
	}
	if len(listed) != len(messages) {
		t.Errorf("%d messages are listed, %d are compared", len(listed), len(messages))
	}
	for _, message := range messages {
		name := reflect.TypeOf(message).Name()
		if want := fieldsOf(message); !slices.Equal(listed[name], want) {
			t.Errorf("%s: %q, want %q", name, listed[name], want)
		}
	}
}

func TestProtocol_example_of_a_row_decodes(t *testing.T) {
	code, _ := blocks(read(t, "protocol.md"))
	at := slices.IndexFunc(code, func(b block) bool { return strings.HasPrefix(b.code, "75000000") })
	if at < 0 {
		t.Fatal("there is none")
	}
	var digits strings.Builder
	for line := range strings.Lines(code[at].code) {
		line, _, _ = strings.Cut(line, "#")
		digits.WriteString(strings.Join(strings.Fields(line), ""))
	}
	row, err := hex.DecodeString(digits.String())
	if err != nil {
		t.Fatal(err)
	}
	var got plainbuffer.Row
	if err := plainbuffer.Decode(row, &got); err != nil {
		t.Fatal(err)
	}
	if want := (plainbuffer.Sequence{Epoch: 1, Timestamp: 1700000000123456, RowIndex: 2}); got.Sequence != want {
		t.Errorf("sequence %+v, want %+v", got.Sequence, want)
	}
	if len(got.PrimaryKey) != 1 || got.PrimaryKey[0].Value.Integer() != 7 || len(got.Cells) != 1 || got.Cells[0].Value.Str() != "hi" {
		t.Errorf("another row: %+v", got)
	}
}

// assumedMark is how docs/protocol.md marks what is not verified: [assumed A7], with others after a semicolon or comma.
var assumedMark = regexp.MustCompile(`\[([^\]]*\bassumed\b[^\]]*)\]`)

func TestProtocol_marks_what_is_assumed_with_a_number_of_the_list(t *testing.T) {
	known := make(map[string]bool)
	for _, h := range heading.FindAllStringSubmatch(read(t, "assumptions.md"), -1) {
		known[h[2]] = true
	}
	number := regexp.MustCompile(`\bA[0-9]+\b`)
	named := make(map[string]bool)
	for _, m := range assumedMark.FindAllStringSubmatch(read(t, "protocol.md"), -1) {
		ids := number.FindAllString(m[1], -1)
		if len(ids) == 0 {
			t.Errorf("[%s] has no number of docs/assumptions.md", m[1])
		}
		for _, id := range ids {
			if !known[id] {
				t.Errorf("[%s]: docs/assumptions.md has no %s", m[1], id)
			}
			named[id] = true
		}
	}
	if len(named) < 35 {
		t.Errorf("only %d assumptions are named", len(named))
	}
}
