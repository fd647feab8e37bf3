package docs

import (
	"io/fs"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
)

// shown returns the code that readers copy: programs, Example functions and
// documents, by path.
func shown(t *testing.T) map[string]string {
	t.Helper()
	files := make(map[string]string)
	err := filepath.WalkDir("..", func(path string, d fs.DirEntry, err error) error {
		name := d.Name()
		switch {
		case err == nil && d.IsDir() && len(name) > 2 && name[0] == '.': // what CI runs is not shown
			return fs.SkipDir
		case err != nil || d.IsDir():
			return err
		case strings.HasSuffix(name, ".md"),
			strings.HasSuffix(name, ".go") && (!strings.HasSuffix(name, "_test.go") || strings.HasSuffix(name, "example_test.go")):
			files[path] = read(t, path)
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	return files
}

// TestPrograms_end_at_Ctrl_C_and_at_SIGTERM_and_at_once_at_the_second: a program that
// does not hear SIGTERM, as Kubernetes and systemd send it, dies without a drain, and
// its channels stand still until HeartbeatTimeout. One that keeps catching signals
// while it drains cannot be hurried.
func TestPrograms_end_at_Ctrl_C_and_at_SIGTERM_and_at_once_at_the_second(t *testing.T) {
	catches := regexp.MustCompile(`(?m)^.*signal\.NotifyContext\(.*\n.*\n`)
	programs := 0
	for path, text := range shown(t) {
		for _, lines := range catches.FindAllString(text, -1) {
			programs++
			if !strings.Contains(lines, "os.Interrupt, syscall.SIGTERM)\n") || !strings.Contains(lines, "context.AfterFunc(ctx, stop)") {
				t.Errorf("%s:\n%s", path, lines)
			}
		}
		if strings.Contains(text, "\nfunc main() {\n") && strings.HasSuffix(path, ".go") && !catches.MatchString(text) {
			t.Errorf("%s has a main function that catches no signals", path)
		}
	}
	if programs < 10 {
		t.Errorf("only %d programs were looked at", programs)
	}
}
