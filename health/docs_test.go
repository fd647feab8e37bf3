package health_test

import (
	"go/ast"
	"go/parser"
	"go/token"
	"os"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"testing"
)

// logged returns the messages that the source in dir logs, each with its level and its
// package: "Error subscriber Channel lost". A message that is concatenated counts with
// its first text and "...".
func logged(t *testing.T, dir, from string) (lines []string) {
	t.Helper()
	files, err := filepath.Glob(filepath.Join("..", dir, "*.go"))
	if err != nil || len(files) == 0 {
		t.Fatalf("no source in %s: %v", dir, err)
	}
	fset := token.NewFileSet()
	for _, name := range files {
		if strings.HasSuffix(name, "_test.go") {
			continue
		}
		file, err := parser.ParseFile(fset, name, nil, 0)
		if err != nil {
			t.Fatal(err)
		}
		ast.Inspect(file, func(n ast.Node) bool {
			call, ok := n.(*ast.CallExpr)
			if !ok || len(call.Args) == 0 {
				return true
			}
			method, ok := call.Fun.(*ast.SelectorExpr)
			if !ok || !isLogger(method.X) {
				return true
			}
			switch level := method.Sel.Name; level {
			case "Error", "Info", "Debug", "Trace":
				lines = append(lines, level+" "+from+" "+text(call.Args[0]))
			}
			return true
		})
	}
	return lines
}

// isLogger reports whether x is a variable or a field that is called logger.
func isLogger(x ast.Expr) bool {
	switch x := x.(type) {
	case *ast.Ident:
		return x.Name == "logger"
	case *ast.SelectorExpr:
		return x.Sel.Name == "logger"
	}
	return false
}

func text(x ast.Expr) string {
	switch x := x.(type) {
	case *ast.BasicLit:
		s, _ := strconv.Unquote(x.Value)
		return s
	case *ast.BinaryExpr:
		return text(x.X) + "..."
	}
	return "..."
}

// documented returns what docs/operations.md lists, in the same form.
func documented(t *testing.T) map[string]bool {
	t.Helper()
	doc, err := os.ReadFile("../docs/operations.md")
	if err != nil {
		t.Fatal(err)
	}
	lines := make(map[string]bool)
	level := ""
	heading := regexp.MustCompile(`^### (Error|Info|Debug)`)
	row := regexp.MustCompile("^\\|(?: (Debug|Trace) \\|)? `([^`]+)`[ ⚿]*\\| (\\w+) \\|")
	for line := range strings.Lines(string(doc)) {
		if m := heading.FindStringSubmatch(line); m != nil {
			level = m[1]
		}
		if m := row.FindStringSubmatch(line); m != nil && level != "" {
			if m[1] != "" {
				level = m[1]
			}
			lines[level+" "+m[3]+" "+m[2]] = true
		}
	}
	return lines
}

func TestDocs_list_every_log_line_with_its_level(t *testing.T) {
	listed := documented(t)
	if len(listed) < 30 {
		t.Fatalf("the document lists %d lines only: %v", len(listed), listed)
	}
	used := make(map[string]bool)
	for dir, from := range map[string]string{
		"subscriber": "subscriber", "batching": "batching", "router": "router", "internal/letters": "router", "publisher": "publisher", "internal/service": "any",
	} {
		for _, line := range logged(t, dir, from) {
			found := false
			for l := range listed {
				start, open := strings.CutSuffix(line, "...")
				if l == line || open && strings.HasPrefix(l, start) {
					used[l], found = true, true
				}
			}
			// The bridge concatenates the SDK's lines.
			if !found && !strings.HasSuffix(line, " ...") {
				t.Errorf("docs/operations.md does not list: %s", line)
			}
		}
	}
	for l := range listed {
		if !used[l] && !strings.HasSuffix(l, "SDK: ...") {
			t.Errorf("docs/operations.md lists a line that is not logged: %s", l)
		}
	}
}
