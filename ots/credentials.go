package ots

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"log/slog"
	"time"
)

// Credentials sign the requests. What shows them (fmt with any verb, JSON, slog) shows
// no secret, so that none reaches a log by accident.
type Credentials struct {
	AccessKeyID     string
	AccessKeySecret string
	SecurityToken   string    // of an STS session or a RAM role; empty for a permanent key
	Expires         time.Time // when to ask the provider again; zero: never
}

// CredentialsProvider gives the credentials to sign with. It is asked at the
// start and again a minute before they expire, by one goroutine at a time, and has
// 15 s for its answer. An error or a panic while older credentials are still valid is
// logged and they stay in use.
type CredentialsProvider interface {
	Credentials(ctx context.Context) (Credentials, error)
}

// CredentialsProviderFunc makes a function a CredentialsProvider.
type CredentialsProviderFunc func(ctx context.Context) (Credentials, error)

// Credentials calls f.
func (f CredentialsProviderFunc) Credentials(ctx context.Context) (Credentials, error) { return f(ctx) }

// String returns the access key id and nothing secret.
func (c Credentials) String() string { return "credentials of " + c.AccessKeyID }

// GoString returns the same as String.
func (c Credentials) GoString() string { return c.String() }

// Format implements fmt.Formatter: with every verb c is shown as String does.
func (c Credentials) Format(f fmt.State, _ rune) { _, _ = io.WriteString(f, c.String()) }

// shown is what is told of credentials.
func (c Credentials) shown() any {
	return struct {
		AccessKeyID string
		Expires     time.Time `json:",omitzero"`
	}{c.AccessKeyID, c.Expires}
}

// LogValue implements slog.LogValuer: the access key id and when it expires.
func (c Credentials) LogValue() slog.Value {
	attrs := []slog.Attr{slog.String("AccessKeyID", c.AccessKeyID)}
	if !c.Expires.IsZero() {
		attrs = append(attrs, slog.Time("Expires", c.Expires))
	}
	return slog.GroupValue(attrs...)
}

// MarshalJSON implements json.Marshaler: the access key id and when it expires.
// Credentials can be read from JSON, and not be written to it.
func (c Credentials) MarshalJSON() ([]byte, error) { return json.Marshal(c.shown()) }

// MarshalYAML is MarshalJSON for the YAML packages that look for it.
func (c Credentials) MarshalYAML() (any, error) { return c.shown(), nil }
