package health

import (
	"crypto/sha256"
	_ "embed"
	"encoding/base64"
	"net/http"
	"strings"
)

// page is the whole page: it loads only status.json, every second.
//
// It writes texts into the document only as text (textContent, attributes by
// setAttribute): keys and error texts may contain HTML from anyone.
//
//go:embed page.html
var page string

// pagePolicy allows the page its own script and style and nothing else.
var pagePolicy = strings.Join([]string{
	"default-src 'none'",
	"script-src 'sha256-" + digest(between(page, "<script>", "</script>")) + "'",
	"style-src 'sha256-" + digest(between(page, "<style>", "</style>")) + "'",
	"connect-src 'self'",
	"img-src data:",
	"base-uri 'none'",
	"form-action 'none'",
	"frame-ancestors 'none'",
}, "; ")

func between(s, from, to string) string {
	_, s, _ = strings.Cut(s, from)
	s, _, _ = strings.Cut(s, to)
	return s
}

func digest(s string) string {
	sum := sha256.Sum256([]byte(s))
	return base64.StdEncoding.EncodeToString(sum[:])
}

func servePage(w http.ResponseWriter, _ *http.Request) {
	w.Header().Set("Content-Type", "text/html; charset=utf-8")
	_, _ = w.Write([]byte(page)) // if it fails, the client is gone
}
