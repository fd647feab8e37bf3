package router

import (
	"cmp"
	"errors"
	"slices"
	"strconv"
	"strings"
)

var (
	// ErrInvalidConfig is wrapped by every error about a configuration or
	// about handlers that do not fit it.
	ErrInvalidConfig = errors.New("invalid configuration")

	// ErrClosed is returned by methods of a Router that was closed.
	ErrClosed = errors.New("router is closed")
)

// Fault is one thing that is wrong in a configuration.
type Fault struct {
	File   string // empty for a configuration made in code
	Line   int    // from 1; 0 if it does not belong to a line
	Column int    // from 1; 0 if it is not known
	Path   string // keys from the top, joined by dots, such as tunnels.orders.batchers.s3; a name with a dot is quoted; empty for the whole file
	Text   string // what is wrong, and what to do

	because []string // other paths that this follows from: if one of them is faulty itself, this is not reported
}

// String returns "file:line: path: text", without the missing parts.
func (f Fault) String() string {
	var b strings.Builder
	if f.File != "" {
		b.WriteString(f.File)
		if f.Line > 0 {
			b.WriteByte(':')
			b.WriteString(strconv.Itoa(f.Line))
		}
		b.WriteString(": ")
	}
	if f.Path != "" {
		b.WriteString(f.Path)
		b.WriteString(": ")
	}
	b.WriteString(f.Text)
	return b.String()
}

// ConfigError lists all faults of a configuration, in the order of their lines.
// It wraps ErrInvalidConfig.
type ConfigError struct {
	Faults []Fault
}

// Error has one line for each fault.
func (e *ConfigError) Error() string {
	lines := make([]string, len(e.Faults))
	for i, f := range e.Faults {
		lines[i] = f.String()
	}
	return strings.Join(lines, "\n")
}

// Unwrap returns ErrInvalidConfig.
func (e *ConfigError) Unwrap() error { return ErrInvalidConfig }

// locate adds file and line to a fault: the line of its path, or of the closest
// mapping around it that is in the file.
func (c Config) locate(f Fault) Fault {
	f.File, f.Line, f.Column = c.source.File(), c.source.Line(f.Path), c.source.Column(f.Path)
	return f
}

// configError returns an error with the faults, nil if there are none.
func configError(faults []Fault) error {
	if len(faults) == 0 {
		return nil
	}
	slices.SortStableFunc(faults, func(a, b Fault) int {
		return cmp.Or(cmp.Compare(a.Line, b.Line), cmp.Compare(a.Path, b.Path))
	})
	return &ConfigError{Faults: faults}
}
