package signing

import (
	"go/ast"
	"go/parser"
	"go/token"
	"io/fs"
	"path/filepath"
	"strings"
	"testing"
)

// refused are functions of the SDK's tunnel package that put the key id where the
// secret belongs (1.8.0), and of its common package whose credentials race and
// sign wrongly at midnight. See docs/dependencies.md.
var refused = map[string]bool{
	"NewTunnelApiWithCredentialsProvider":    true,
	"NewTunnelClientWithCredentialsProvider": true,
	"CreateByCredentials":                    true,
	"V4Credentials":                          true,
}

func TestNothing_uses_the_SDKs_faulty_credentials(t *testing.T) {
	const root = "../.."
	files := 0
	err := filepath.WalkDir(root, func(path string, d fs.DirEntry, err error) error {
		switch {
		case err != nil:
			return err
		case d.IsDir() && (d.Name() == "node_modules" || d.Name() == ".git"):
			return fs.SkipDir
		case d.IsDir() || !strings.HasSuffix(path, ".go") || strings.HasSuffix(path, "_test.go"):
			return nil
		}
		files++
		set := token.NewFileSet()
		file, err := parser.ParseFile(set, path, nil, parser.SkipObjectResolution)
		if err != nil {
			return err
		}
		ast.Inspect(file, func(n ast.Node) bool {
			if sel, ok := n.(*ast.SelectorExpr); ok && refused[sel.Sel.Name] {
				t.Errorf("%s uses %s", set.Position(sel.Pos()), sel.Sel.Name)
			}
			return true
		})
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	if files < 100 {
		t.Errorf("only %d files were looked at", files)
	}
}
