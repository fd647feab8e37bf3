package service

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	"github.com/ThreeDotsLabs/watermill"
	"github.com/aliyun/aliyun-tablestore-go-sdk/common"

	"github.com/watermill-ots/watermill-ots/ack"
	"github.com/watermill-ots/watermill-ots/internal/signing"
	"github.com/watermill-ots/watermill-ots/ots"
)

// StaticCredentials is a CredentialsProvider whose credentials do not change.
type StaticCredentials ots.Credentials

// Credentials implements ots.CredentialsProvider.
func (s StaticCredentials) Credentials(context.Context) (ots.Credentials, error) {
	return ots.Credentials(s), nil
}

// refreshBefore is how long before their expiry credentials are replaced, so that a
// request signed with them still arrives in time.
const refreshBefore = time.Minute

// RefreshTimeout limits one call of the provider.
const RefreshTimeout = 15 * time.Second

// CredentialsGrace is how long a CredentialsProvider may take to return after its
// context has ended.
const CredentialsGrace = 250 * time.Millisecond

// AskPause is the minimum time between two calls of the provider if the last one did not
// help: it failed, returned credentials that expire soon, or the service refused them.
// Every call of every channel needs credentials, and must not overload a provider that is
// down.
const AskPause = time.Second

// CredentialsCache keeps the provider's credentials for the SDK, which asks for them on
// every request and cannot handle an error. It is safe for concurrent use.
//
// The provider is user code: it is called in its own goroutine. A call of Get does not
// wait for it while the old credentials are valid, nor after the call's context has ended.
//
// Invariants:
//   - At most one goroutine is in the provider; question is set while it is.
//   - A question has a waiter, or is for later, or is cancelled.
type CredentialsCache struct {
	provider ots.CredentialsProvider
	logger   watermill.LoggerAdapter

	mu       sync.Mutex
	have     ots.Credentials
	refused  bool      // the service refused have, or there are no credentials yet
	askAgain time.Time // the provider is not called before; set after each call
	err      error     // of the last question
	question *question // nil while the provider is not called
}

// question is one call of the provider.
type question struct {
	cancel   context.CancelCauseFunc
	answered chan struct{} // closed once the cache has the answer
	waiters  int           // guarded by the cache's mu
	later    bool          // the old credentials are still valid: not cancelled when it has no waiters
}

// NewCredentialsCache returns a cache that has not called the provider yet. Failed
// renewals are logged.
func NewCredentialsCache(p ots.CredentialsProvider, logger watermill.LoggerAdapter) *CredentialsCache {
	return &CredentialsCache{provider: p, logger: logger, refused: true}
}

var (
	// ErrCredentials is wrapped when the provider failed.
	ErrCredentials = errors.New("asking for credentials")
	// ErrNoCredentials is wrapped when the provider gave no key or no secret.
	ErrNoCredentials = errors.New("the provider returned no access key id or no secret")
	errNotAsked      = errors.New("the answer is no longer needed")
)

// Get returns credentials to sign with. It waits for the provider only if there are no
// valid ones. Valid ones that expire soon are returned, and replaced in the background.
func (c *CredentialsCache) Get(ctx context.Context) (ots.Credentials, error) {
	for {
		c.mu.Lock()
		good, due := c.check()
		if good && !due {
			defer c.mu.Unlock()
			return c.have, nil
		}
		if due && c.question == nil {
			c.ask(good)
		}
		q := c.question
		switch {
		case good:
			defer c.mu.Unlock()
			return c.have, nil
		case q == nil && c.err != nil:
			defer c.mu.Unlock()
			return ots.Credentials{}, c.err
		case q == nil: // the provider's latest, although refused or expired: the service decides
			defer c.mu.Unlock()
			return c.have, nil
		}
		q.waiters++
		c.mu.Unlock()
		if err := c.await(ctx, q); err != nil {
			return ots.Credentials{}, err
		}
	}
}

// await waits for the answer to a question, until ctx ends or RefreshTimeout has passed,
// because a provider may ignore its context. A question without waiters is cancelled.
func (c *CredentialsCache) await(ctx context.Context, q *question) (err error) {
	timer := time.NewTimer(RefreshTimeout)
	defer timer.Stop()
	select {
	case <-q.answered:
	case <-ctx.Done():
		err = fmt.Errorf("%w: %w", ErrCredentials, context.Cause(ctx))
	case <-timer.C:
		err = fmt.Errorf("%w: %w", ErrCredentials, errNoAnswer)
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	if q.waiters--; err != nil && q.waiters == 0 && !q.later {
		q.cancel(errNotAsked)
	}
	return err
}

var errNoAnswer = fmt.Errorf("the provider did not answer within %v: %w", RefreshTimeout, context.DeadlineExceeded)

// ask starts a question. The caller holds mu.
func (c *CredentialsCache) ask(later bool) {
	ctx, cancel := context.WithCancelCause(context.Background())
	ctx, end := context.WithTimeoutCause(ctx, RefreshTimeout, errNoAnswer)
	q := &question{cancel: cancel, answered: make(chan struct{}), later: later}
	c.question = q
	go func() { // ends with the provider's answer, within RefreshTimeout unless the provider ignores its context; Close waits for it
		defer cancel(nil)
		defer end()
		err := errProviderExited
		var cred ots.Credentials
		defer func() { c.answer(ctx, q, cred, err) }()
		cred, err = c.call(ctx)
	}()
}

var errProviderExited = fmt.Errorf("%w: the provider exited without returning (runtime.Goexit)", ErrCredentials)

// call calls the provider. It is user code and may panic.
func (c *CredentialsCache) call(ctx context.Context) (cred ots.Credentials, err error) {
	defer func() {
		if v := recover(); v != nil {
			err = fmt.Errorf("%w: %w", ErrCredentials, ack.NewPanicError("provider", v))
		}
	}()
	cred, err = c.provider.Credentials(ctx)
	if err == nil && (cred.AccessKeyID == "" || cred.AccessKeySecret == "") {
		err = ErrNoCredentials
	}
	if err != nil {
		err = fmt.Errorf("%w: %w", ErrCredentials, err)
	}
	return cred, err
}

// answer ends a question with the provider's answer.
func (c *CredentialsCache) answer(ctx context.Context, q *question, cred ots.Credentials, err error) {
	c.mu.Lock()
	if err == nil {
		c.have, c.refused = cred, false
	}
	// A cancelled question does not mean that the provider failed.
	givenUp := err != nil && context.Cause(ctx) == errNotAsked
	if !givenUp {
		c.err, c.askAgain = err, time.Now().Add(AskPause)
	}
	c.question = nil
	good, _ := c.check()
	old := c.have
	c.mu.Unlock()
	close(q.answered)
	if err != nil && good && !givenUp {
		c.logger.Error("Cannot renew the credentials; the old ones stay in use", err, watermill.LogFields{"expire": old.Expires})
	}
}

// Close cancels the current question, if any, and waits at most atMost for its end.
func (c *CredentialsCache) Close(atMost time.Duration) {
	c.mu.Lock()
	q := c.question
	c.mu.Unlock()
	if q == nil {
		return
	}
	q.cancel(errNotAsked)
	timer := time.NewTimer(atMost)
	defer timer.Stop()
	select {
	case <-q.answered:
	case <-timer.C:
		c.logger.Error("The CredentialsProvider is still running after its context ended; no longer waiting for it", errNoAnswer, nil)
	}
}

// check reports whether the credentials are valid (good), and whether the provider must
// be called for others (due). The caller holds mu.
func (c *CredentialsCache) check() (good, due bool) {
	now := time.Now()
	lasts := c.have.Expires.IsZero()
	good = !c.refused && (lasts || now.Before(c.have.Expires))
	fresh := good && (lasts || c.have.Expires.Sub(now) > refreshBefore)
	return good, !fresh && !now.Before(c.askAgain)
}

// Fresh reports whether there is no reason to call the provider.
func (c *CredentialsCache) Fresh() bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	good, due := c.check()
	return good && !due
}

// Forget makes the next Get call the provider: the service refused the credentials.
func (c *CredentialsCache) Forget() {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.refused = true
}

// SDK returns the SDK's view of the cache, which never calls the provider: callers of the
// SDK call Get just before, with a context. region is for signature version 4; empty
// means version 2.
func (c *CredentialsCache) SDK(region string) common.CredentialsProvider {
	return sdkCredentials{cache: c, region: region}
}

// sdkCredentials implements common.CredentialsProvider.
type sdkCredentials struct {
	cache  *CredentialsCache
	region string // for signature version 4; empty for version 2
}

// GetCredentials returns the credentials for the next request.
func (s sdkCredentials) GetCredentials() common.Credentials {
	s.cache.mu.Lock()
	cred := s.cache.have
	s.cache.mu.Unlock()
	return signing.Credentials(s.region, cred.AccessKeyID, cred.AccessKeySecret, cred.SecurityToken)
}
