package main

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"maps"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/spf13/cobra"

	"github.com/watermill-ots/watermill-ots/cmd/ots/internal/expression"
	"github.com/watermill-ots/watermill-ots/ots"
	"github.com/watermill-ots/watermill-ots/subscriber"
)

// payloads are the formats that records can be printed in, one record a line, besides text.
var payloads = map[string]ots.Unmarshaler{
	"json":        subscriber.JSON{},
	"debezium":    subscriber.Debezium{},
	"cloudevents": subscriber.CloudEvents{},
}

// selection says which records are printed, and how.
type selection struct {
	format string
	keys   []string
	where  string
	max    int
}

// addFlags adds the flags of a selection.
func (s *selection) addFlags(cmd *cobra.Command) {
	s.addFilters(cmd)
	cmd.Flags().StringVar(&s.format, "format", "text", "`FORMAT` of a record: "+strings.Join(formatNames(), ", ")+"; docs/payload.md shows them")
	completeWith(cmd, "format", formatNames()...)
}

// addFilters adds the flags that say which records are meant.
func (s *selection) addFilters(cmd *cobra.Command) {
	f := cmd.Flags()
	f.StringArrayVar(&s.keys, "key", nil, "primary `KEY` of the records to take, such as 7, u1 or '[\"u1\",7]'; repeat it for more (default all)")
	f.StringVar(&s.where, "where", "", "`EXPRESSION` that records must match, such as 'type == \"update\" && row.amount > 100'; docs/ots.md has the names")
	f.IntVar(&s.max, "max", 0, "end after this `NUMBER` of records (default no limit)")
}

// formatNames returns what --format takes.
func formatNames() []string {
	return append([]string{"text"}, slices.Sorted(maps.Keys(payloads))...)
}

// compile returns the printer of the selection, or a usage error.
func (s *selection) compile(w io.Writer) (*printer, error) {
	p := &printer{w: w, max: s.max, colors: colors(w), payload: payloads[s.format]}
	if s.format != "text" && p.payload == nil {
		return nil, usageError{fmt.Errorf("--format is %q; it takes %s", s.format, strings.Join(formatNames(), ", "))}
	}
	if s.max < 0 {
		return nil, usageError{fmt.Errorf("--max is %d; it takes a positive number", s.max)}
	}
	for _, key := range s.keys {
		text, err := keyText(key)
		if err != nil {
			return nil, err
		}
		p.keys = append(p.keys, text...)
	}
	if s.where != "" {
		var err error
		if p.where, err = expression.CompileFilter(s.where); err != nil {
			return nil, usageError{fmt.Errorf("--where: %w", err)}
		}
	}
	return p, nil
}

// keyText returns the texts of ots.Record.KeyText that a --key may mean: a JSON array is one,
// any other text is the only column of a key, as an integer or as a string.
func keyText(key string) ([]string, error) {
	if !strings.HasPrefix(key, "[") {
		text, err := json.Marshal([]string{key})
		if err != nil {
			return nil, err // no string has one
		}
		texts := []string{string(text)}
		var n int64
		if json.Unmarshal([]byte(key), &n) == nil { // else it is not an integer
			texts = append(texts, fmt.Sprintf("[%d]", n))
		}
		return texts, nil
	}
	var values []any
	decoder := json.NewDecoder(strings.NewReader(key))
	decoder.UseNumber()
	if err := decoder.Decode(&values); err != nil {
		return nil, usageError{fmt.Errorf(`--key is %q; it takes a value, or all values of the key as a JSON array such as ["u1",7]`, key)}
	}
	record := &ots.Record{}
	for i, v := range values {
		value, err := keyValue(v)
		if err != nil {
			return nil, usageError{fmt.Errorf("--key is %q; its value %d is neither a string nor an integer", key, i+1)}
		}
		record.PrimaryKey = append(record.PrimaryKey, ots.Column{Value: value})
	}
	return []string{record.KeyText()}, nil
}

// keyValue returns a value of a key.
func keyValue(v any) (ots.Value, error) {
	switch v := v.(type) {
	case string:
		return ots.StringValue(v), nil
	case json.Number:
		n, err := v.Int64()
		return ots.IntegerValue(n), err
	}
	return ots.Value{}, errors.New("not a value of a key")
}

// printer prints the selected records. It is safe for concurrent use.
type printer struct {
	w       io.Writer
	keys    []string // texts of keys; empty: all
	where   *expression.Filter
	max     int // 0: no limit
	payload ots.Unmarshaler
	colors  palette

	mu      sync.Mutex
	printed int
}

// errEnough is returned when max records were printed.
var errEnough = errors.New("that is all")

// matches reports whether a record is selected.
func (p *printer) matches(r *ots.Record) (bool, error) {
	if len(p.keys) > 0 && !slices.Contains(p.keys, r.KeyText()) {
		return false, nil
	}
	if p.where == nil {
		return true, nil
	}
	ok, err := p.where.Match(r)
	if err != nil {
		return false, fmt.Errorf("--where, on the record %s: %w", r.KeyText(), err)
	}
	return ok, nil
}

// take gives a record that is selected to f, unless there were enough. It returns errEnough
// with the last one.
func (p *printer) take(r *ots.Record, f func() error) error {
	ok, err := p.matches(r)
	if err != nil || !ok {
		return err
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.max > 0 && p.printed >= p.max {
		return errEnough
	}
	if err := f(); err != nil {
		return err
	}
	p.printed++
	if p.printed == p.max {
		return errEnough
	}
	return nil
}

// print prints a record if it is selected.
func (p *printer) print(r *ots.Record) error {
	return p.take(r, func() error {
		line, err := p.line(r)
		if err != nil {
			return err
		}
		_, err = p.w.Write(append(line, '\n'))
		return err
	})
}

// line returns the line for a record.
func (p *printer) line(r *ots.Record) ([]byte, error) {
	if p.payload != nil {
		msg, err := p.payload.Unmarshal(r)
		if err != nil {
			return nil, fmt.Errorf("the record %s: %w", r.KeyText(), err)
		}
		return msg.Payload, nil
	}
	at := "base data               "
	if !r.Sequence.IsZero() {
		at = time.UnixMicro(r.Sequence.Timestamp).UTC().Format("2006-01-02T15:04:05.000Z")
	}
	typ := map[ots.RecordType]string{ots.Put: p.colors.green("put   "), ots.Update: p.colors.yellow("update"), ots.Delete: p.colors.red("delete")}[r.Type]
	line := fmt.Appendf(nil, "%s %s %s", p.colors.dim(at), typ, r.KeyText())
	for _, c := range r.Columns {
		switch c.Type {
		case ots.CellPut:
			line = fmt.Appendf(line, " %s=%s", c.Name, c.Value.AppendJSON(nil))
		case ots.CellDeleteAllVersions:
			line = fmt.Appendf(line, " -%s", c.Name)
		case ots.CellDeleteOneVersion:
			line = fmt.Appendf(line, " -%s@%d", c.Name, c.Timestamp)
		}
	}
	return line, nil
}
