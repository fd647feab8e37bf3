package router

import (
	"context"

	"github.com/watermill-ots/watermill-ots/ots"
)

// serialCredentials calls a provider for one caller at a time, as the contract of
// ots.CredentialsProvider requires. Several pipelines may share a provider.
type serialCredentials struct {
	provider ots.CredentialsProvider
	turn     chan struct{} // capacity 1: full while the provider is called
}

func newSerialCredentials(p ots.CredentialsProvider) *serialCredentials {
	return &serialCredentials{provider: p, turn: make(chan struct{}, 1)}
}

// Credentials implements ots.CredentialsProvider.
func (s *serialCredentials) Credentials(ctx context.Context) (ots.Credentials, error) {
	select {
	case s.turn <- struct{}{}:
		defer func() { <-s.turn }()
		return s.provider.Credentials(ctx)
	case <-ctx.Done():
		return ots.Credentials{}, context.Cause(ctx)
	}
}

// provider returns the provider of the instance's credentials.
func (in Instance) provider(registered map[string]ots.CredentialsProvider) ots.CredentialsProvider {
	if in.Credentials != "" {
		return registered[in.Credentials]
	}
	return ots.CredentialsProviderFunc(func(context.Context) (ots.Credentials, error) {
		return ots.Credentials{AccessKeyID: in.AccessKeyID, AccessKeySecret: in.AccessKeySecret, SecurityToken: in.SecurityToken}, nil
	})
}
