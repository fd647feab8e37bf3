// Package expression compiles expressions over records, in the language of
// github.com/expr-lang/expr.
package expression

import (
	"fmt"
	"strings"
	"time"

	"github.com/expr-lang/expr"
	"github.com/expr-lang/expr/vm"

	"github.com/watermill-ots/watermill-ots/ots"
)

// Env are the names that an expression may use.
type Env struct {
	Type     string         `expr:"type"`     // put, update or delete
	Key      map[string]any `expr:"key"`      // primary key columns
	Row      map[string]any `expr:"row"`      // primary key columns, and the newest value written to each column
	Deleted  []string       `expr:"deleted"`  // columns that the change removed
	Old      map[string]any `expr:"old"`      // columns before the change, if the stream keeps them
	Time     time.Time      `expr:"time"`     // of the change; zero for base data
	Base     bool           `expr:"base"`     // a row of the base data, not a change
	Sequence string         `expr:"sequence"` // empty for base data
	Table    string         `expr:"table"`
	Tunnel   string         `expr:"tunnel"`
	Channel  string         `expr:"channel"`
}

// Names are what an expression may use, for messages.
const Names = "type, key, row, deleted, old, time, base, sequence, table, tunnel and channel"

// EnvOf returns the names of a record. Integers are int64, doubles float64, binary values []byte.
func EnvOf(r *ots.Record) Env {
	e := Env{
		Type: r.Type.String(), Key: make(map[string]any), Row: make(map[string]any), Old: make(map[string]any),
		Base: r.Sequence.IsZero(), Table: r.Table, Tunnel: r.Tunnel, Channel: r.Channel,
	}
	if !e.Base {
		e.Time, e.Sequence = time.UnixMicro(r.Sequence.Timestamp).UTC(), r.Sequence.String()
	}
	for _, k := range r.PrimaryKey {
		e.Key[k.Name], e.Row[k.Name] = k.Value.Any(), k.Value.Any()
	}
	for _, c := range r.Columns {
		switch c.Type {
		case ots.CellPut:
			if v, ok := r.Column(c.Name); ok {
				e.Row[c.Name] = v.Any()
			}
		case ots.CellDeleteAllVersions:
			e.Deleted = append(e.Deleted, c.Name)
		}
	}
	for _, c := range r.Origin {
		if v, ok := r.OriginColumn(c.Name); ok {
			e.Old[c.Name] = v.Any()
		}
	}
	return e
}

// Filter is a compiled expression that is true or false. It is safe for concurrent use.
type Filter struct{ program *vm.Program }

// CompileFilter compiles an expression, whose type must be bool. What an expression says
// about columns can only be checked when it runs: a table's columns have no fixed types. A
// column that a record does not have is nil, and an expression that is nil does not match.
func CompileFilter(text string) (*Filter, error) {
	program, err := expr.Compile(text, expr.Env(Env{}), expr.AsBool())
	if err != nil {
		return nil, fault(err)
	}
	return &Filter{program}, nil
}

// Match reports whether the expression is true for a record.
func (f *Filter) Match(r *ots.Record) (bool, error) {
	v, err := expr.Run(f.program, EnvOf(r))
	if err != nil {
		return false, fault(err)
	}
	match, ok := v.(bool)
	if !ok { // the type of a column is known only here
		return false, fmt.Errorf("the expression is %v, not true or false", v)
	}
	return match, nil
}

// fault is an error of the language, on one line.
func fault(err error) error {
	first, _, _ := strings.Cut(err.Error(), "\n")
	if strings.Contains(first, "unknown name") {
		first += "; there are " + Names
	}
	return fmt.Errorf("%s", strings.TrimSpace(first))
}
