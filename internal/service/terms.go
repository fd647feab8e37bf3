package service

import "context"

// Terms are the settings that advice names, as they are called where the user has written
// them: fields of a Config, or keys of a file.
type Terms struct {
	Endpoint string // the URL
	Keys     string // the access key and what belongs to it
	Region   string
	Names    string // of the table, the tunnel and the instance
	Table    string // the table's name alone
	Create   string // how to have the tunnel created, as the end of "or"
}

type termsKey struct{}

// WithTerms returns a context whose calls give advice in these terms.
func WithTerms(ctx context.Context, t Terms) context.Context {
	return context.WithValue(ctx, termsKey{}, t)
}

// TermsOf returns the terms of a context, or these if it has none.
func TermsOf(ctx context.Context, otherwise Terms) Terms {
	if t, ok := ctx.Value(termsKey{}).(Terms); ok {
		return t
	}
	return otherwise
}
