package subscriber

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	"github.com/ThreeDotsLabs/watermill"
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

// askPause is the least time between two questions to the provider when the
// answer to the last one does not serve: it failed, gave nothing that lasts, or
// the service refused what it gave. Every call of every channel wants
// credentials; a provider that is down must not be stormed by them.
const askPause = time.Second

// credentialsCache stands between the provider and the SDK, which asks for
// credentials on every request and cannot take an error. Safe for concurrent use.
//
// Invariants:
//   - At most one goroutine is in the provider (it holds asking); mu is never
//     held meanwhile.
//   - Nobody waits for the provider while have is still good, but the one who asks it.
type credentialsCache struct {
	provider CredentialsProvider
	logger   watermill.LoggerAdapter

	asking chan struct{} // capacity 1: held while the provider is asked

	mu       sync.Mutex
	have     Credentials
	refused  bool      // by the service, or there are none yet
	askAgain time.Time // not before, if the last answer does not serve
	err      error     // of the last question
}

func newCredentialsCache(p CredentialsProvider, logger watermill.LoggerAdapter) *credentialsCache {
	return &credentialsCache{provider: p, logger: logger, asking: make(chan struct{}, 1), refused: true}
}

// errCredentials is wrapped when the provider failed.
var errCredentials = errors.New("asking for credentials")

var errNoCredentials = errors.New("the provider returned no access key id or no secret")

// get makes sure that there are credentials to sign with, and returns them. When
// the provider fails and the old ones have not expired yet, it logs that and
// returns the old ones.
func (c *credentialsCache) get(ctx context.Context) (Credentials, error) {
	cred, good, due := c.look()
	switch {
	case good && !due:
		return cred, nil
	case good:
		select {
		case c.asking <- struct{}{}:
		default: // somebody else asks already
			return cred, nil
		}
	default:
		select {
		case c.asking <- struct{}{}:
		case <-ctx.Done():
			return Credentials{}, fmt.Errorf("asking for credentials: %w", context.Cause(ctx))
		}
	}
	defer func() { <-c.asking }()
	var err error
	if cred, good, due = c.look(); due { // still: nobody was faster
		err = c.ask(ctx)
		cred, good, _ = c.look()
	}
	if good {
		if err != nil {
			c.logger.Error("Cannot renew the credentials; the old ones stay in use", err, watermill.LogFields{"expire": cred.Expires})
		}
		return cred, nil
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.err != nil {
		return Credentials{}, c.err
	}
	return c.have, nil // as new as can be, though refused or expired: the service decides
}

// ask asks the provider. The caller holds asking.
func (c *credentialsCache) ask(ctx context.Context) error {
	askCtx, cancel := context.WithTimeout(ctx, refreshTimeout)
	defer cancel()
	cred, err := c.provider.Credentials(askCtx)
	if err == nil && (cred.AccessKeyID == "" || cred.AccessKeySecret == "") {
		err = errNoCredentials
	}
	if err != nil {
		err = fmt.Errorf("%w: %w", errCredentials, err)
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	c.err = err
	if ctx.Err() == nil { // who gave up himself says nothing about the provider
		c.askAgain = time.Now().Add(askPause)
	}
	if err == nil {
		c.have, c.refused = cred, false
	}
	return err
}

// look returns the credentials, whether they can be signed with, and whether the
// provider is to be asked for others.
func (c *credentialsCache) look() (cred Credentials, good, due bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	now := time.Now()
	lasts := c.have.Expires.IsZero()
	good = !c.refused && (lasts || now.Before(c.have.Expires))
	fresh := good && (lasts || c.have.Expires.Sub(now) > refreshBefore)
	return c.have, good, !fresh && !now.Before(c.askAgain)
}

// forget makes the next get ask the provider again: the service refused what we have.
func (c *credentialsCache) forget() {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.refused = true
}

// sdkCredentials is the SDK's view of the cache. It never asks the provider:
// whoever makes a call has asked just before, with a context.
type sdkCredentials struct{ cache *credentialsCache }

var _ common.CredentialsProvider = sdkCredentials{}

func (s sdkCredentials) GetCredentials() common.Credentials {
	cred, _, _ := s.cache.look()
	return &common.DefaultCredentials{
		AccessKeyID:     cred.AccessKeyID,
		AccessKeySecret: cred.AccessKeySecret,
		SecurityToken:   cred.SecurityToken,
	}
}
