package subscriber

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	"github.com/aliyun/aliyun-tablestore-go-sdk/common"
)

// Credentials sign the requests. Their String form hides the secrets, so that
// they cannot reach a log by accident.
type Credentials struct {
	AccessKeyID     string
	AccessKeySecret string
	SecurityToken   string    // of an STS session or a RAM role; empty for a permanent key
	Expires         time.Time // when to ask the provider again; zero: never
}

// String returns the access key id and nothing secret.
func (c Credentials) String() string { return "credentials of " + c.AccessKeyID }

// GoString returns the same as String, so that %#v shows no secret either.
func (c Credentials) GoString() string { return c.String() }

// CredentialsProvider gives the credentials to sign with. It is asked at the
// start and again shortly before they expire, by one goroutine at a time. An
// error while older credentials are still valid is logged and they stay in use.
type CredentialsProvider interface {
	Credentials(ctx context.Context) (Credentials, error)
}

// CredentialsProviderFunc makes a function a CredentialsProvider.
type CredentialsProviderFunc func(ctx context.Context) (Credentials, error)

// Credentials calls f.
func (f CredentialsProviderFunc) Credentials(ctx context.Context) (Credentials, error) { return f(ctx) }

type staticCredentials Credentials

func (s staticCredentials) Credentials(context.Context) (Credentials, error) {
	return Credentials(s), nil
}

// refreshBefore is how long before they expire credentials are replaced, so
// that a request signed with them still arrives in time.
const refreshBefore = time.Minute

// refreshTimeout bounds one question to the provider.
const refreshTimeout = 15 * time.Second

// credentialsCache stands between the provider and the SDK, which asks for
// credentials on every request and cannot take an error.
//
// Invariant: at most one goroutine is in the provider (asking); mu is never
// held meanwhile.
type credentialsCache struct {
	provider CredentialsProvider

	asking chan struct{} // capacity 1: held while the provider is asked

	mu   sync.Mutex
	have Credentials
	ok   bool
}

func newCredentialsCache(p CredentialsProvider) *credentialsCache {
	return &credentialsCache{provider: p, asking: make(chan struct{}, 1)}
}

var errNoCredentials = errors.New("the provider returned no access key id or no secret")

// get returns credentials that are valid for a while. When the provider fails
// and the old ones have not expired yet, it returns them together with the error.
func (c *credentialsCache) get(ctx context.Context) (Credentials, error) {
	if cred, fresh := c.cached(); fresh {
		return cred, nil
	}
	select {
	case c.asking <- struct{}{}:
		defer func() { <-c.asking }()
	case <-ctx.Done():
		return Credentials{}, fmt.Errorf("asking for credentials: %w", context.Cause(ctx))
	}
	old, fresh := c.cached()
	if fresh { // somebody else was faster
		return old, nil
	}
	askCtx, cancel := context.WithTimeout(ctx, refreshTimeout)
	defer cancel()
	cred, err := c.provider.Credentials(askCtx)
	if err == nil && (cred.AccessKeyID == "" || cred.AccessKeySecret == "") {
		err = errNoCredentials
	}
	if err != nil {
		err = fmt.Errorf("asking for credentials: %w", err)
		if old.AccessKeyID != "" && time.Now().Before(old.Expires) {
			return old, err
		}
		return Credentials{}, err
	}
	c.mu.Lock()
	c.have, c.ok = cred, true
	c.mu.Unlock()
	return cred, nil
}

func (c *credentialsCache) cached() (cred Credentials, fresh bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	fresh = c.ok && (c.have.Expires.IsZero() || time.Until(c.have.Expires) > refreshBefore)
	return c.have, fresh
}

// forget makes the next get ask the provider again: the service refused what we have.
func (c *credentialsCache) forget() {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.ok = false
}

// sdkCredentials is the SDK's view of the cache. It never asks the provider:
// whoever makes a call has asked just before, with a context.
type sdkCredentials struct{ cache *credentialsCache }

var _ common.CredentialsProvider = sdkCredentials{}

func (s sdkCredentials) GetCredentials() common.Credentials {
	cred, _ := s.cache.cached()
	return &common.DefaultCredentials{
		AccessKeyID:     cred.AccessKeyID,
		AccessKeySecret: cred.AccessKeySecret,
		SecurityToken:   cred.SecurityToken,
	}
}
