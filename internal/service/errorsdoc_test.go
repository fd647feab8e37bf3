package service_test

import (
	"flag"
	"fmt"
	"os"
	"strings"
	"testing"

	"github.com/watermill-ots/watermill-ots/internal/service"
)

var update = flag.Bool("update", false, "write docs/errors.md")

// TestDocs_list_every_answer: docs/errors.md is generated from service.Answers.
func TestDocs_list_every_answer(t *testing.T) {
	const file = "../../docs/errors.md"
	want := errorsDoc()
	if *update {
		if err := os.WriteFile(file, []byte(want), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	got, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	if string(got) != want {
		t.Errorf("%s is not what service.Answers says: run go test ./internal/service -run Docs -update", file)
	}
}

// does says what the library does about a class, of a call of the tunnel API and of the table API.
var does = map[service.Class][2]string{
	service.Transient: {"retries with backoff", "retries with backoff"},
	service.Throttled: {"retries with longer pauses", "retries with backoff"},
	service.Lost:      {"cancels the messages of the session's channels and connects again", ""},
	service.Mismatch:  {"reads the stored checkpoint, and retries with its number", ""},
	service.Auth:      {"asks for other credentials and retries; at the start it fails (`ots.ErrAuth`)", "asks for other credentials, retries once, then fails (`ots.ErrAuth`)"},
	service.Gone:      {"ends the subscription (`ots.ErrTunnelGone`, `ots.ErrTunnelExpired`); a single channel is opened again. With `OnGapRecreate` it recreates the tunnel", ""},
	service.Gap:       {"ends the subscription (`*subscriber.GapError`, `ots.ErrGap`) with an alarm, or recreates the tunnel ([gaps](gaps.md))", "fails"},
	service.Refused:   {"", "fails, with the message that it is about"},
}

func errorsDoc() string {
	var text strings.Builder
	text.WriteString(`# Error answers of the service

For those who have an error of the service before them: what it means, what this library does then, and what you should do. The table is generated from the one that the code uses
(` + "`internal/service/answers.go`" + `; ` + "`go test ./internal/service -run Docs -update`" + `). In Go, ` + "`errors.As(err, &se)`" + ` with a ` + "`*ots.ServiceError`" + `
gives code, message, status and request id. Codes that are not listed count as transient in the tunnel API, and in the table API with a status of 500 or more.

| status | code | what happened | a consumer | a publisher, dead letters | what to do | source |
|---|---|---|---|---|---|---|
`)
	for _, a := range service.Answers {
		code := "`" + a.Code + "`"
		if a.Prefix != "" {
			code += fmt.Sprintf(" with a message that begins `%s`", a.Prefix)
		}
		status := "?"
		if a.Status != 0 {
			status = fmt.Sprint(a.Status)
		}
		fmt.Fprintf(&text, "| %s | %s | %s | %s | %s | %s | %s |\n", status, code, a.Means, does[a.Tunnel][0], does[a.Table][1], a.Advice, a.Source)
	}
	return text.String()
}

func TestAnswers(t *testing.T) {
	t.Run("a_row_with_a_prefix_comes_before_those_without", func(t *testing.T) {
		seen := make(map[string]bool)
		for _, a := range service.Answers {
			if seen[a.Code] {
				t.Errorf("%s with prefix %q is never found: a row above matches first", a.Code, a.Prefix)
			}
			seen[a.Code] = seen[a.Code] || a.Prefix == ""
		}
	})
	t.Run("each_says_what_happened_and_what_to_do", func(t *testing.T) {
		for _, a := range service.Answers {
			if a.Means == "" || a.Advice == "" || a.Source == "" || does[a.Tunnel][0] == "" || does[a.Table][1] == "" {
				t.Errorf("incomplete, or of a class that does not go with the API: %+v", a)
			}
		}
	})
	for _, tc := range []struct {
		code, message string
		want          service.Class
	}{
		{"OTSTunnelServerUnavailable", "OTSTrimmedDataAccess Requested stream data is already trimmed or does not exist.", service.Gap},
		{"OTSTunnelServerUnavailable", "busy", service.Transient},
		{"OTSSomethingElse", "OTSTrimmedDataAccess Requested stream data", service.Gap},
		{"OTSResourceGone", "[tunnelservice] client not exist", service.Lost},
		{"OTSFlowControl", "", service.Throttled},
		{"OTSQuotaExhausted", "Too frequent table operations.", service.Throttled},
		{"OTSUnheardOf", "", service.Transient},
	} {
		t.Run(fmt.Sprintf("tunnel_%s_%.20s", tc.code, tc.message), func(t *testing.T) {
			if got := service.TunnelClass(tc.code, tc.message); got != tc.want {
				t.Errorf("class %d, want %d", got, tc.want)
			}
		})
	}
}
