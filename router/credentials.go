package router

import (
	"context"
	"sync"
	"time"

	"github.com/watermill-ots/watermill-ots/subscriber"
)

// serialCredentials asks a provider for one caller at a time, as
// subscriber.CredentialsProvider promises to who implements it: several
// pipelines may share a provider.
type serialCredentials struct {
	provider subscriber.CredentialsProvider
	turn     chan struct{} // capacity 1: full while the provider is asked
}

func newSerialCredentials(p subscriber.CredentialsProvider) *serialCredentials {
	return &serialCredentials{provider: p, turn: make(chan struct{}, 1)}
}

// Credentials implements subscriber.CredentialsProvider.
func (s *serialCredentials) Credentials(ctx context.Context) (subscriber.Credentials, error) {
	select {
	case s.turn <- struct{}{}:
		defer func() { <-s.turn }()
		return s.provider.Credentials(ctx)
	case <-ctx.Done():
		return subscriber.Credentials{}, context.Cause(ctx)
	}
}

// provider returns what gives the instance's credentials.
func (in Instance) provider(registered map[string]subscriber.CredentialsProvider) subscriber.CredentialsProvider {
	if in.Credentials != "" {
		return registered[in.Credentials]
	}
	return subscriber.CredentialsProviderFunc(func(context.Context) (subscriber.Credentials, error) {
		return subscriber.Credentials{AccessKeyID: in.AccessKeyID, AccessKeySecret: in.AccessKeySecret, SecurityToken: in.SecurityToken}, nil
	})
}

// refreshBefore is how long before their end credentials are replaced, so that
// a request signed with them still arrives in time.
const refreshBefore = time.Minute

// credentialsCache keeps the credentials of a tableClient, which needs some for
// each call. Subscribers have a cache of their own.
type credentialsCache struct {
	provider subscriber.CredentialsProvider

	mu   sync.Mutex // not held while the provider is asked
	have subscriber.Credentials
}

func (c *credentialsCache) get(ctx context.Context) (subscriber.Credentials, error) {
	c.mu.Lock()
	have := c.have
	c.mu.Unlock()
	if have.AccessKeyID != "" && (have.Expires.IsZero() || time.Until(have.Expires) > refreshBefore) {
		return have, nil
	}
	fresh, err := c.provider.Credentials(ctx)
	if err != nil {
		return subscriber.Credentials{}, err
	}
	c.mu.Lock()
	c.have = fresh
	c.mu.Unlock()
	return fresh, nil
}

// forget has the provider asked again: the service refused what we have.
func (c *credentialsCache) forget() {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.have = subscriber.Credentials{}
}
