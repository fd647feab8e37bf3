package emulator_test

import (
	"maps"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/watermill-ots/watermill-ots/emulator"
	"github.com/watermill-ots/watermill-ots/emulator/internal/tables"
	"github.com/watermill-ots/watermill-ots/emulator/internal/tunnels"
)

// fidelity is a line of the table in docs/emulator.md.
type fidelity struct{ supported, note, witnesses string }

var codeSpan = regexp.MustCompile("`([^`]+)`")

// fidelityTable reads the table below the heading "Operations", by operation.
func fidelityTable(t *testing.T) map[string]fidelity {
	doc, err := os.ReadFile(filepath.Join("..", "docs", "emulator.md"))
	if err != nil {
		t.Fatal(err)
	}
	_, section, _ := strings.Cut(string(doc), "\n### Operations\n")
	table := make(map[string]fidelity)
	for line := range strings.Lines(section) {
		if strings.HasPrefix(line, "#") {
			break
		}
		cells := strings.Split(strings.TrimSpace(line), "|")
		if len(cells) != 6 || !strings.Contains(cells[1], "`") {
			continue
		}
		row := fidelity{strings.TrimSpace(cells[2]), strings.TrimSpace(cells[3]), strings.TrimSpace(cells[4])}
		for _, m := range codeSpan.FindAllStringSubmatch(cells[1], -1) {
			if _, twice := table[m[1]]; twice {
				t.Errorf("%s is in the table twice", m[1])
			}
			table[m[1]] = row
		}
	}
	return table
}

// TestFidelityTable checks that the table of operations in docs/emulator.md
// agrees with the code.
func TestFidelityTable(t *testing.T) {
	table := fidelityTable(t)
	answered := tables.Operations()
	for _, op := range tunnels.Operations() {
		answered = append(answered, "tunnel/"+op)
	}
	t.Run("lists every operation once", func(t *testing.T) {
		all := append(slices.Clone(answered), tables.Missing()...)
		for _, op := range tunnels.Missing() {
			all = append(all, "tunnel/"+op)
		}
		slices.Sort(all)
		listed := slices.Sorted(maps.Keys(table))
		for _, op := range all {
			if _, ok := table[op]; !ok {
				t.Errorf("%s is not in the table", op)
			}
		}
		for _, op := range listed {
			if !slices.Contains(all, op) {
				t.Errorf("%s is in the table and not an operation", op)
			}
		}
	})
	t.Run("says for each whether it is supported", func(t *testing.T) {
		b := newStrictBed(t, emulator.Options{})
		for op, row := range table {
			_, err := b.postBytes("/"+op, nil)
			refused := err != nil && strings.Contains(err.Error(), "OTSUnsupportOperation: Unsupported operation: '"+op+"': ")
			if refused != (row.supported == "no") || !slices.Contains([]string{"yes", "partly", "no"}, row.supported) {
				t.Errorf("%s is supported: %s; it answers %v", op, row.supported, err)
			}
			if row.supported == "partly" && row.note == "" {
				t.Errorf("the table does not say what of %s is not supported", op)
			}
		}
	})
	t.Run("names existing tests as witnesses", func(t *testing.T) {
		tests := testNames(t)
		for op, row := range table {
			named := codeSpan.FindAllStringSubmatch(row.witnesses, -1)
			if len(named) == 0 {
				t.Errorf("%s has no witness", op)
			}
			for _, m := range named {
				if !tests[m[1]] {
					t.Errorf("the witness %s of %s is not a test", m[1], op)
				}
			}
		}
	})
}

// testNames returns the names of the test functions in this directory and
// below.
func testNames(t *testing.T) map[string]bool {
	files, err := filepath.Glob("*_test.go")
	if err != nil {
		t.Fatal(err)
	}
	below, err := filepath.Glob(filepath.Join("internal", "*", "*_test.go"))
	if err != nil {
		t.Fatal(err)
	}
	function := regexp.MustCompile(`(?m)^func (Test\w+)\(`)
	names := make(map[string]bool)
	for _, file := range append(files, below...) {
		src, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		for _, m := range function.FindAllStringSubmatch(string(src), -1) {
			names[m[1]] = true
		}
	}
	return names
}
