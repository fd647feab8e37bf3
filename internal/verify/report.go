package verify

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"maps"
	"runtime/debug"
	"slices"
	"strings"
	"text/tabwriter"
	"time"
)

// Outcome is what a check found.
type Outcome string

// The outcomes.
const (
	Holds     Outcome = "holds"
	Refuted   Outcome = "refuted"   // the service does something else
	Skipped   Outcome = "skipped"   // it cannot be checked here
	Undecided Outcome = "undecided" // an error came between
)

// Result is the outcome of one check.
type Result struct {
	Check   string
	Proves  string // the assumption or law, such as "A4" or "L1"
	Says    string // what holds if it holds
	Outcome Outcome
	Detail  string   `json:",omitempty"` // what was measured, or what happened instead
	Answers []Answer `json:",omitempty"`
	Took    string
}

// Answer is an error answer of the service that a check got.
type Answer struct {
	Op      string
	Status  int
	Code    string
	Message string
	Request string // the service's id of the call
}

// Calls are those of one operation.
type Calls struct {
	N    int64
	Mean string // time until the answer began

	total time.Duration
}

// Cost is what a run used.
type Cost struct {
	BytesSent, BytesReceived int64
	ReadUnits, WriteUnits    int64 // capacity units of the table API; reads of tunnels answer none
}

// Report is what a run found. It shows no keys, and neither endpoint nor instance, so it
// can be attached to a public issue.
type Report struct {
	ID            string
	Started       time.Time
	Took          string
	SDK           string
	Signature     int
	Region        string `json:",omitempty"`
	ClientTimeout string // of the checks' clients
	Results       []Result
	Calls         map[string]Calls // by operation
	Cost          Cost
}

// Count returns how many results have the outcome.
func (r *Report) Count(o Outcome) (n int) {
	for _, res := range r.Results {
		if res.Outcome == o {
			n++
		}
	}
	return n
}

// CallCount returns the number of all calls.
func (r *Report) CallCount() (n int64) {
	for _, c := range r.Calls {
		n += c.N
	}
	return n
}

// Verdict returns one sentence about the run.
func (r *Report) Verdict() string {
	s := fmt.Sprintf("%d of %d checks hold", r.Count(Holds), len(r.Results))
	for _, o := range []Outcome{Refuted, Undecided, Skipped} {
		if n := r.Count(o); n > 0 {
			s += fmt.Sprintf(", %d %s", n, o)
		}
	}
	return s + "."
}

// WriteText writes the report as a table for people.
func (r *Report) WriteText(w io.Writer) error {
	out := tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)
	for _, res := range r.Results {
		fmt.Fprintln(out, res.Line())
	}
	if err := out.Flush(); err != nil {
		return fmt.Errorf("writing the report: %w", err)
	}
	return r.WriteSummary(w)
}

// WriteSummary writes the report's last lines: the verdict and the cost.
func (r *Report) WriteSummary(w io.Writer) error {
	beats := r.Calls["tunnel/heartbeat"]
	_, err := fmt.Fprintf(w, `
%s It took %s.
It made %d calls, among them %d reads of tunnels and %d heartbeats, which took %s on average;
it sent %d KiB, received %d KiB, and its writes used %d capacity units.
`, r.Verdict(), r.Took, r.CallCount(), r.Calls["tunnel/readrecords"].N, beats.N, beats.Mean, r.Cost.BytesSent>>10, r.Cost.BytesReceived>>10, r.Cost.WriteUnits)
	if err != nil {
		return fmt.Errorf("writing the report: %w", err)
	}
	return nil
}

// Line returns the result as one line, whose columns are separated by tabs.
func (res Result) Line() string {
	line := fmt.Sprintf("%s\t%s\t%s\t%s", strings.ToUpper(string(res.Outcome)), res.Proves, res.Check, res.Took)
	switch {
	case res.Outcome == Refuted:
		line += "\tnot true: " + res.Says + " Instead: " + res.Detail
	case res.Detail != "":
		line += "\t" + res.Detail
	}
	return line
}

// WriteJSON writes the report as JSON.
func (r *Report) WriteJSON(w io.Writer) error {
	enc := json.NewEncoder(w)
	enc.SetIndent("", "  ")
	enc.SetEscapeHTML(false)
	if err := enc.Encode(r); err != nil {
		return fmt.Errorf("writing the report: %w", err)
	}
	return nil
}

// redact removes keys, the endpoint and the instance from the texts of a report.
func (k *Kit) redact(ctx context.Context, r *Report) {
	names := map[string]string{k.cfg.Endpoint: "ENDPOINT", k.cfg.Instance: "INSTANCE"}
	if _, host, ok := strings.Cut(k.cfg.Endpoint, "://"); ok {
		names[host] = "ENDPOINT"
	}
	if cred, err := k.wire.creds.Get(ctx); err == nil {
		names[cred.AccessKeyID], names[cred.AccessKeySecret], names[cred.SecurityToken] = "ACCESS-KEY-ID", "SECRET", "TOKEN"
	}
	delete(names, "")
	// Longer texts first: the endpoint contains the instance.
	texts := slices.SortedFunc(maps.Keys(names), func(a, b string) int { return len(b) - len(a) })
	var pairs []string
	for _, text := range texts {
		pairs = append(pairs, text, names[text])
	}
	shown := strings.NewReplacer(pairs...)
	for i := range r.Results {
		res := &r.Results[i]
		res.Detail = shown.Replace(res.Detail)
		for j := range res.Answers {
			res.Answers[j].Message = shown.Replace(res.Answers[j].Message)
		}
	}
}

// sdkVersion returns the version of the Tablestore SDK in this program.
func sdkVersion() string {
	info, ok := debug.ReadBuildInfo()
	if !ok {
		return "unknown"
	}
	for _, dep := range info.Deps {
		if dep.Path == "github.com/aliyun/aliyun-tablestore-go-sdk" {
			return dep.Version
		}
	}
	return "unknown"
}
