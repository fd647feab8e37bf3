package emulator

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"reflect"
	"strings"
	"time"

	"github.com/watermill-ots/watermill-ots/emulator/internal/tunnels"
	"github.com/watermill-ots/watermill-ots/emulator/internal/wire"
)

// maxAdminBody bounds a request of the admin API.
const maxAdminBody = 1 << 20

// AdminHandler returns an HTTP handler for tests in any language: they write rows,
// inject faults, split and merge partitions, expire clients and skew the clock as
// Go tests do with methods. docs/emulator.md lists its requests. Requests from web
// pages of other origins and for unknown host names are refused. Without
// Options.AdminToken, so are requests that do not come through loopback.
func (e *Emulator) AdminHandler() http.Handler {
	mux := http.NewServeMux()
	var requests []string
	handle := func(pattern string, f func(r *http.Request) (any, error)) {
		requests = append(requests, pattern)
		mux.HandleFunc(pattern, func(w http.ResponseWriter, r *http.Request) { serveAdmin(w, r, f) })
	}
	handle("GET /stats", func(*http.Request) (any, error) { return e.Stats(), nil })
	handle("GET /tunnels", func(*http.Request) (any, error) { return e.tunnelStates(), nil })
	handle("GET /faults", func(*http.Request) (any, error) { return e.pendingFaults(), nil })
	handle("POST /faults", e.adminInject)
	handle("DELETE /faults", func(*http.Request) (any, error) { e.ClearFaults(); return nil, nil })
	handle("POST /tables/{table}/split", e.adminSplit)
	handle("POST /tables/{table}/merge", func(r *http.Request) (any, error) { return nil, e.Merge(r.PathValue("table")) })
	handle("POST /tables/{table}/put", adminRow(e.Put))
	handle("POST /tables/{table}/update", adminRow(e.Update))
	handle("POST /tables/{table}/delete", adminRow(e.Delete))
	handle("POST /tunnels/{table}/{tunnel}/rebalance", func(r *http.Request) (any, error) {
		return nil, e.Rebalance(r.PathValue("table"), r.PathValue("tunnel"))
	})
	handle("POST /tunnels/{table}/{tunnel}/expire", func(r *http.Request) (any, error) {
		return nil, e.ExpireTunnel(r.PathValue("table"), r.PathValue("tunnel"))
	})
	handle("POST /tunnels/{table}/{tunnel}/clients/{client}/expire", func(r *http.Request) (any, error) {
		return nil, e.ExpireClient(r.PathValue("table"), r.PathValue("tunnel"), r.PathValue("client"))
	})
	handle("POST /clock", e.adminClock)
	handle("POST /pause", func(*http.Request) (any, error) { e.Pause(); return nil, nil })
	handle("POST /resume", func(*http.Request) (any, error) { e.Resume(); return nil, nil })
	mux.HandleFunc("/", func(w http.ResponseWriter, r *http.Request) {
		answerAdmin(w, http.StatusNotFound, adminError{fmt.Sprintf("the admin API has no request %.16s %.64s; it has: %s", r.Method, r.URL.Path, strings.Join(requests, ", "))})
	})
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if err := e.adminRefusal(r); err != nil {
			e.log.Warn("admin request refused", "remote", r.RemoteAddr, "path", r.URL.Path, "error", err)
			answerAdmin(w, http.StatusForbidden, adminError{err.Error()})
			return
		}
		mux.ServeHTTP(w, r)
	})
}

// adminError is the body of a response that is not 2xx.
type adminError struct {
	Error string `json:"error"`
}

// serveAdmin answers with f's result as JSON; a nil result is an empty 204.
func serveAdmin(w http.ResponseWriter, r *http.Request, f func(r *http.Request) (any, error)) {
	r.Body = http.MaxBytesReader(w, r.Body, maxAdminBody)
	result, err := f(r)
	status := http.StatusOK
	if err != nil {
		status, result = http.StatusBadRequest, adminError{err.Error()}
		var we *wire.Error
		if errors.As(err, &we) {
			status = we.Status
		}
	}
	if result == nil {
		w.WriteHeader(http.StatusNoContent)
		return
	}
	answerAdmin(w, status, result)
}

func answerAdmin(w http.ResponseWriter, status int, result any) {
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(status)
	encoder := json.NewEncoder(w)
	encoder.SetIndent("", "  ")
	encoder.Encode(result) // the client may have disconnected
}

// faultJSON is a Fault in the admin API, in which durations are text like "1.5s"
// and moments have names. Its fields replace those of Fault with the same keys.
type faultJSON struct {
	Fault
	Delay   string `json:"delay,omitempty"`
	Trickle string `json:"trickle,omitempty"`
	Break   string `json:"break,omitempty"`
}

// breakNames are the values of Fault.Break by their names in the admin API.
var breakNames = map[string]Break{
	"": NoBreak, "before-request": BeforeRequest, "before-answer": BeforeAnswer, "mid-answer": MidAnswer,
}

// fault converts what the Fault itself does not hold.
func (j faultJSON) fault() (Fault, error) {
	f := j.Fault
	var known bool
	if f.Break, known = breakNames[j.Break]; !known {
		return f, fmt.Errorf("break is %q; it must be before-request, before-answer or mid-answer", j.Break)
	}
	for _, d := range []struct {
		name, text string
		to         *time.Duration
	}{{"delay", j.Delay, &f.Delay}, {"trickle", j.Trickle, &f.Trickle}} {
		if d.text == "" {
			continue
		}
		var err error
		if *d.to, err = time.ParseDuration(d.text); err != nil {
			return f, fmt.Errorf("%s is %q; it must be a duration like 250ms", d.name, d.text)
		}
	}
	return f, nil
}

func (e *Emulator) adminInject(r *http.Request) (any, error) {
	var j faultJSON
	if err := decodeAdmin(r, &j); err != nil {
		return nil, err
	}
	f, err := j.fault()
	if err != nil {
		return nil, err
	}
	if err := e.inject(f, strings.ToLower); err != nil {
		return nil, err
	}
	return nil, nil
}

// adminSplit splits at the keys of the body, or in the middle if there are
// none.
func (e *Emulator) adminSplit(r *http.Request) (any, error) {
	if r.ContentLength == 0 {
		return nil, e.Split(r.PathValue("table"))
	}
	var j struct {
		At []json.RawMessage `json:"at"`
	}
	if err := decodeAdmin(r, &j); err != nil {
		return nil, err
	}
	if len(j.At) == 0 {
		return nil, errors.New("at is empty; leave the body out to split the largest partition in its middle")
	}
	keys := make([]any, len(j.At))
	for i, raw := range j.At {
		var n *int64 // null leaves it nil
		var s *string
		switch {
		case json.Unmarshal(raw, &n) == nil && n != nil:
			keys[i] = *n
		case json.Unmarshal(raw, &s) == nil && s != nil:
			keys[i] = *s
		default:
			return nil, fmt.Errorf("at holds %.32s; it must hold integers or strings", raw)
		}
	}
	return nil, e.SplitAt(r.PathValue("table"), keys...)
}

// adminRow writes the row of the body, a JSON object of columns, with one of Put, Update
// and Delete.
func adminRow(write func(table string, rows ...Row) error) func(r *http.Request) (any, error) {
	return func(r *http.Request) (any, error) {
		var columns map[string]json.RawMessage
		if err := decodeAdmin(r, &columns); err != nil {
			return nil, err
		}
		row := make(Row, len(columns))
		for name, raw := range columns {
			v, err := jsonColumn(raw)
			if err != nil {
				return nil, fmt.Errorf("column %.64q is %.32s; it %w", name, raw, err)
			}
			row[name] = v
		}
		return nil, write(r.PathValue("table"), row)
	}
}

// jsonColumn returns a column's value: a number without a decimal point or an exponent is
// an integer, as in seed files.
func jsonColumn(raw json.RawMessage) (any, error) {
	decoder := json.NewDecoder(bytes.NewReader(raw))
	decoder.UseNumber()
	var v any
	if err := decoder.Decode(&v); err != nil {
		return nil, fmt.Errorf("must be JSON: %w", err)
	}
	switch v := v.(type) {
	case string, bool:
		return v, nil
	case json.Number:
		if strings.ContainsAny(v.String(), ".eE") {
			f, err := v.Float64()
			if err != nil {
				return nil, errors.New("is too large for a double")
			}
			return f, nil
		}
		n, err := v.Int64()
		if err != nil {
			return nil, errors.New("is too large for an integer of the service, which has 64 bits")
		}
		return n, nil
	}
	return nil, errors.New("must be a number, a string, true or false")
}

func (e *Emulator) adminClock(r *http.Request) (any, error) {
	var j struct {
		Ahead string `json:"ahead"`
	}
	if err := decodeAdmin(r, &j); err != nil {
		return nil, err
	}
	ahead, err := time.ParseDuration(j.Ahead)
	if err != nil {
		return nil, fmt.Errorf("ahead is %q; it must be a duration like 20m or -1h", j.Ahead)
	}
	if ahead > maxSkew || ahead < -maxSkew {
		return nil, fmt.Errorf("ahead is %q; it must be at most 100 years", j.Ahead)
	}
	e.SkewClock(ahead)
	return nil, nil
}

// jsonKinds are the JSON names of the types that requests have.
var jsonKinds = map[reflect.Kind]string{
	reflect.String: "string", reflect.Bool: "boolean", reflect.Int: "whole number", reflect.Float64: "number", reflect.Slice: "list",
}

// decodeAdmin decodes a JSON body. A misspelt key is an error, and so is anything
// behind the first value.
func decodeAdmin(r *http.Request, v any) error {
	decoder := json.NewDecoder(r.Body)
	decoder.DisallowUnknownFields()
	var wrong *json.UnmarshalTypeError
	switch err := decoder.Decode(v); {
	case err == io.EOF:
		return errors.New("reading the request: the body is empty; it must be a JSON object")
	case errors.As(err, &wrong) && wrong.Field != "":
		return fmt.Errorf("reading the request: %s is a JSON %s; it must be a %s", wrong.Field, wrong.Value, jsonKinds[wrong.Type.Kind()])
	case err != nil:
		return fmt.Errorf("reading the request: the body must be a JSON object: %w", err)
	}
	if _, err := decoder.Token(); err != io.EOF {
		return errors.New("reading the request: something follows its JSON value")
	}
	return nil
}

// pendingFaults never returns nil, since JSON would show it as null.
func (e *Emulator) pendingFaults() []faultJSON {
	list := []faultJSON{}
	for _, f := range e.faults.pending() {
		j := faultJSON{Fault: f}
		for name, place := range breakNames {
			if place == f.Break {
				j.Break = name
			}
		}
		if f.Delay > 0 {
			j.Delay = f.Delay.String()
		}
		if f.Trickle > 0 {
			j.Trickle = f.Trickle.String()
		}
		list = append(list, j)
	}
	return list
}

// tunnelStates never returns nil, since JSON would show it as null.
func (e *Emulator) tunnelStates() []tunnels.TunnelState {
	return append([]tunnels.TunnelState{}, e.tunnels.Snapshot()...)
}
