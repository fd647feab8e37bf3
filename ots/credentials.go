package ots

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"log/slog"
	"time"
)

// Credentials sign the requests. Printed with fmt (any verb), JSON or slog they do
// not show their secrets, so that no secret reaches a log by accident.
type Credentials struct {
	AccessKeyID     string
	AccessKeySecret string
	SecurityToken   string    // of an STS session or a RAM role; empty for a permanent key
	Expires         time.Time // when to ask the provider again; zero: never
}

// CredentialsProvider returns the credentials to sign with. It is called at the
// start and again a minute before they expire, by one goroutine at a time, with a
// timeout of 15 s. If it fails or panics while the previous credentials are still
// valid, the failure is logged and they stay in use.
type CredentialsProvider interface {
	Credentials(ctx context.Context) (Credentials, error)
}

// CredentialsProviderFunc is a function that is a CredentialsProvider.
type CredentialsProviderFunc func(ctx context.Context) (Credentials, error)

// Credentials calls f.
func (f CredentialsProviderFunc) Credentials(ctx context.Context) (Credentials, error) { return f(ctx) }

// String returns the access key id without the secrets.
func (c Credentials) String() string { return "credentials of " + c.AccessKeyID }

// GoString returns the same as String.
func (c Credentials) GoString() string { return c.String() }

// Format implements fmt.Formatter: every verb prints what String returns.
func (c Credentials) Format(f fmt.State, _ rune) { _, _ = io.WriteString(f, c.String()) }

// shown returns the fields that may be printed.
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
// Credentials can be read from JSON but not written to it.
func (c Credentials) MarshalJSON() ([]byte, error) { return json.Marshal(c.shown()) }

// MarshalYAML is MarshalJSON for the YAML packages that look for it.
func (c Credentials) MarshalYAML() (any, error) { return c.shown(), nil }
