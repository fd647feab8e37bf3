package docs

import (
	"bufio"
	"go/scanner"
	"go/token"
	"io/fs"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
)

// foreign are phrases that read as translated, with what to write instead. CONTRIBUTING.md
// says why; a phrase belongs here once it has been found twice.
var foreign = []struct {
	phrase  *regexp.Regexp
	instead string
}{
	{regexp.MustCompile(`(?i)\b(come|comes|came|coming) again\b`), "is redelivered"},
	{regexp.MustCompile(`(?i)\btried again\b`), "retried"},
	{regexp.MustCompile(`(?i)\bin a way that passes\b`), "transient"},
	{regexp.MustCompile(`(?i)\b(somebody|nobody|whoever)\b`), "the name of the actor"},
	{regexp.MustCompile(`(?i)\b(is|are|be|was|were) told (of|that|by|what|when|whether)\b`), "is called, is reported to, hears of"},
	{regexp.MustCompile(`(?i)\b(go|goes|went|going) on (until|when|while|as|and|with|to|failing|although|after|before)\b`), "continues, keeps, still"},
	{regexp.MustCompile(`(?i)\b(is|are|was|were) no (whole|URL|number|integer|name|key|duration|time|address|table|letter|record|page)\b`), "is not a"},
	{regexp.MustCompile(`(?i)\bfrom (when|then|there|\w+ing) on\b`), "since, once, from"},
	{regexp.MustCompile(`(?i)\bwithout a word\b`), "silently, without logging"},
	{regexp.MustCompile(`(?i)\b(slab|letterbox|goodbye|sweeper|stirs?|stirred|relieves?|poked?)s?\b`), "a word that needs no glossary"},
	{regexp.MustCompile(`(?i)\bone after the other\b`), "in order, one at a time, in sequence"},
}

// quoted are texts that have such a phrase for a reason.
var quoted = []string{
	"USER nobody",                 // a user's name in a Containerfile
	"nobody-registers-this",       // a name in a test
	"connected is told so in the", // a test's name with the service's words
}

// thereIsNo is plain English.
var thereIsNo = regexp.MustCompile(`(?i)\bthere (is|are|was|were) no\b`)

// TestPlainEnglish_in_comments_texts_and_documents finds phrases of the list in what a person reads: comments
// and strings of Go files, and documents.
func TestPlainEnglish_in_comments_texts_and_documents(t *testing.T) {
	files := 0
	err := filepath.WalkDir("..", func(path string, d fs.DirEntry, err error) error {
		switch {
		case err != nil:
			return err
		case d.IsDir() && (d.Name() == "testdata" || d.Name() == "node_modules" || strings.HasPrefix(d.Name(), ".") && d.Name() != ".." || d.Name() == "bin"):
			return fs.SkipDir
		case path == "plain_test.go" || path == filepath.Join("..", "docs", "plain_test.go"):
			return nil
		case strings.HasSuffix(path, ".go"):
			files++
			return goTexts(path, func(line int, text string) { check(t, path, line, text) })
		case strings.HasSuffix(path, ".md") && !strings.Contains(path, "zh-CN"):
			files++
			return lines(path, func(line int, text string) { check(t, path, line, text) })
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	if files < 300 {
		t.Errorf("%d files were read: the walk does not see the repository", files)
	}
}

func check(t *testing.T, path string, line int, text string) {
	t.Helper()
	for _, q := range quoted {
		if strings.Contains(text, q) {
			return
		}
	}
	text = thereIsNo.ReplaceAllString(text, "")
	for _, f := range foreign {
		if found := f.phrase.FindString(text); found != "" {
			t.Errorf("%s:%d: %q: better %s", path, line, found, f.instead)
		}
	}
}

// goTexts calls f for the lines of comments and strings of a Go file.
func goTexts(path string, f func(line int, text string)) error {
	src, err := os.ReadFile(path)
	if err != nil {
		return err
	}
	files := token.NewFileSet()
	file := files.AddFile(path, -1, len(src))
	var s scanner.Scanner
	s.Init(file, src, nil, scanner.ScanComments)
	for {
		pos, tok, lit := s.Scan()
		switch tok {
		case token.EOF:
			return nil
		case token.COMMENT, token.STRING:
			for i, text := range strings.Split(lit, "\n") {
				f(file.Line(pos)+i, text)
			}
		}
	}
}

func lines(path string, f func(line int, text string)) error {
	src, err := os.Open(path)
	if err != nil {
		return err
	}
	defer src.Close()
	s := bufio.NewScanner(src)
	s.Buffer(nil, 1<<20)
	for n := 1; s.Scan(); n++ {
		f(n, s.Text())
	}
	return s.Err()
}
