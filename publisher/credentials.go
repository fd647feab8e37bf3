package publisher

import (
	"context"
	"errors"
	"sync"
	"time"

	"github.com/watermill-ots/watermill-ots/subscriber"
)

// refreshBefore is how long before their end credentials are replaced, so that
// a request signed with them still arrives in time.
const refreshBefore = time.Minute

var errNoCredentials = errors.New("the provider returned no access key id or no secret")

// credentialsCache keeps what the provider gave. Safe for concurrent use.
//
// Invariant: at most one goroutine is in the provider (it holds asking); mu is
// never held meanwhile.
type credentialsCache struct {
	provider subscriber.CredentialsProvider
	asking   chan struct{} // capacity 1: held while the provider is asked

	mu   sync.Mutex
	have subscriber.Credentials // zero: none that serve
}

func newCredentialsCache(cfg Config) *credentialsCache {
	provider := cfg.Credentials
	if provider == nil {
		fixed := subscriber.Credentials{AccessKeyID: cfg.AccessKeyID, AccessKeySecret: cfg.AccessKeySecret, SecurityToken: cfg.SecurityToken}
		provider = subscriber.CredentialsProviderFunc(func(context.Context) (subscriber.Credentials, error) { return fixed, nil })
	}
	return &credentialsCache{provider: provider, asking: make(chan struct{}, 1)}
}

// get returns credentials to sign with. When the provider fails and the old ones
// have not expired, those are returned.
func (c *credentialsCache) get(ctx context.Context) (subscriber.Credentials, error) {
	if have, left := c.look(); left > refreshBefore {
		return have, nil
	}
	select {
	case c.asking <- struct{}{}:
		defer func() { <-c.asking }()
	case <-ctx.Done():
		return subscriber.Credentials{}, context.Cause(ctx)
	}
	have, left := c.look()
	if left > refreshBefore { // somebody was faster
		return have, nil
	}
	fresh, err := c.provider.Credentials(ctx)
	if err == nil && (fresh.AccessKeyID == "" || fresh.AccessKeySecret == "") {
		err = errNoCredentials
	}
	if err != nil {
		if left > 0 {
			return have, nil
		}
		return subscriber.Credentials{}, err
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	c.have = fresh
	return fresh, nil
}

// look returns what there is, and how long it serves.
func (c *credentialsCache) look() (have subscriber.Credentials, left time.Duration) {
	c.mu.Lock()
	defer c.mu.Unlock()
	switch {
	case c.have.AccessKeyID == "":
		return c.have, 0
	case c.have.Expires.IsZero():
		return c.have, 1<<63 - 1
	}
	return c.have, time.Until(c.have.Expires)
}

// forget has the provider asked again: the service refused what we have.
func (c *credentialsCache) forget() {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.have = subscriber.Credentials{}
}
