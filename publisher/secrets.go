package publisher

import (
	"fmt"
	"io"
	"log/slog"

	"github.com/watermill-ots/watermill-ots/internal/service"
)

// String returns the fields of c that are set, without secrets.
func (c Config) String() string { return service.Show(c).Text("publisher.Config") }

// Format implements fmt.Formatter: every verb prints what String returns.
func (c Config) Format(f fmt.State, _ rune) { _, _ = io.WriteString(f, c.String()) }

// LogValue implements slog.LogValuer: the fields that are set, without secrets.
func (c Config) LogValue() slog.Value { return service.Show(c).LogValue() }

// MarshalJSON implements json.Marshaler: the fields that are set, without secrets. A
// Config cannot be read back from it.
func (c Config) MarshalJSON() ([]byte, error) { return service.Show(c).MarshalJSON() }

// MarshalYAML returns what String does, for the YAML packages that look for this method.
func (c Config) MarshalYAML() (any, error) { return c.String(), nil }
