package router

import (
	"cmp"
	"errors"
	"slices"
	"strconv"
	"strings"

	"github.com/watermill-ots/watermill-ots/internal/oneline"
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
	File string // empty for a configuration made in code
	Line int    // from 1; 0 when it belongs to no line
	Path string // keys from the top, joined by dots, such as tunnels.orders.batchers.s3, and quoted where a name has a dot itself; empty for the whole file
	Text string // what is wrong, and what to do

	because []string // other paths that this follows from: when they are faulty themselves, this is not reported
}

// String returns "file:line: path: text", without the parts that are missing.
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

// locate adds file and line to a fault: those of its path, or of the nearest
// thing around it that is in the file.
func (s *source) locate(f Fault) Fault {
	if s == nil {
		return f
	}
	f.File = s.file
	for path := f.Path; ; path = parent(path) {
		if line, ok := s.lines[path]; ok || path == "" {
			f.Line = line
			return f
		}
	}
}

// show returns a value as an error shows it. What a variable of the environment
// contains may be a secret in the wrong place: its name is shown instead.
func (s *source) show(path, value string) string {
	if s != nil {
		if template, ok := s.templates[path]; ok {
			return oneline.Text(template, maxShown) + ", whose value is not shown"
		}
	}
	return strconv.Quote(shorten(value))
}

// configError makes an error of faults, nil if there are none.
func configError(faults []Fault) error {
	if len(faults) == 0 {
		return nil
	}
	slices.SortStableFunc(faults, func(a, b Fault) int {
		return cmp.Or(cmp.Compare(a.Line, b.Line), cmp.Compare(a.Path, b.Path))
	})
	return &ConfigError{Faults: faults}
}
