package docs

import (
	"go/ast"
	"go/parser"
	"go/token"
	"io/fs"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
)

// TestMutations_name_code_and_tests_that_exist checks the rows of the table of mutations: a file that
// is renamed or a function that moves must not leave a row behind that cannot be followed.
func TestMutations_name_code_and_tests_that_exist(t *testing.T) {
	text, err := os.ReadFile("../internal/laws/MUTATIONS.md")
	if err != nil {
		t.Fatal(err)
	}
	tests := testNames(t)
	row := regexp.MustCompile("^\\| (L[1-9]) \\| `([a-z_/]+\\.go)` ([A-Za-z_, .]+?): (.+) \\| (.+) \\|$")
	rows := 0
	for n, line := range strings.Split(string(text), "\n") {
		if !strings.HasPrefix(line, "| L") {
			continue
		}
		rows++
		m := row.FindStringSubmatch(line)
		if m == nil {
			t.Errorf("line %d is not `file` function: change | test: %s", n+1, line)
			continue
		}
		file := "../subscriber/" + m[2]
		switch pkg, _, found := strings.Cut(m[2], "/"); {
		case pkg == "ledger":
			file = "../internal/" + m[2]
		case found:
			file = "../" + m[2]
		}
		has, err := functionsOf(file)
		if err != nil {
			t.Errorf("line %d: %v", n+1, err)
			continue
		}
		for _, name := range strings.Split(m[3], ", ") {
			if !has[name] {
				t.Errorf("line %d: %s has no function %s", n+1, m[2], name)
			}
		}
		for _, test := range regexp.MustCompile("`(Test\\w+)`").FindAllStringSubmatch(m[5], -1) {
			if !tests[test[1]] {
				t.Errorf("line %d: there is no test %s", n+1, test[1])
			}
		}
	}
	if rows < 100 {
		t.Errorf("the table has %d rows: it is not read as it is written", rows)
	}
}

// functionsOf returns the names of a file's functions and methods.
func functionsOf(file string) (map[string]bool, error) {
	parsed, err := parser.ParseFile(token.NewFileSet(), file, nil, parser.SkipObjectResolution)
	if err != nil {
		return nil, err
	}
	names := make(map[string]bool)
	for _, d := range parsed.Decls {
		if f, ok := d.(*ast.FuncDecl); ok {
			names[f.Name.Name] = true
		}
	}
	return names, nil
}

// testNames returns the names of all tests of the repository.
func testNames(t *testing.T) map[string]bool {
	t.Helper()
	names := make(map[string]bool)
	err := filepath.WalkDir("..", func(path string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() || !strings.HasSuffix(path, "_test.go") {
			return err
		}
		found, err := functionsOf(path)
		for name := range found {
			names[name] = true
		}
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	return names
}
