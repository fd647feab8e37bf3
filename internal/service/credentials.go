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

// StaticCredentials is a CredentialsProvider of credentials that do not change.
type StaticCredentials ots.Credentials

// Credentials implements ots.CredentialsProvider.
func (s StaticCredentials) Credentials(context.Context) (ots.Credentials, error) {
	return ots.Credentials(s), nil
}

// refreshBefore is how long before they expire credentials are replaced, so
// that a request signed with them still arrives in time.
const refreshBefore = time.Minute

// RefreshTimeout bounds one question to the provider.
const RefreshTimeout = 15 * time.Second

// CredentialsGrace is how long a CredentialsProvider may take to return once its context
// has ended.
const CredentialsGrace = 250 * time.Millisecond

// AskPause is the least time between two questions to the provider when the
// answer to the last one does not serve: it failed, gave nothing that lasts, or
// the service refused what it gave. Every call of every channel wants
// credentials; a provider that is down must not be stormed by them.
const AskPause = time.Second

// CredentialsCache stands between the provider and the SDK, which asks for
// credentials on every request and cannot take an error. Safe for concurrent use.
//
// The provider is the user's: it is called in a goroutine of its own, and nobody
// waits for it while the old credentials are good, nor beyond the end of their own context.
//
// Invariants:
//   - At most one goroutine is in the provider: question is there meanwhile.
//   - A question has a waiter, or is for later, or is cancelled.
type CredentialsCache struct {
	provider ots.CredentialsProvider
	logger   watermill.LoggerAdapter

	mu       sync.Mutex
	have     ots.Credentials
	refused  bool      // by the service, or there are none yet
	askAgain time.Time // not before, if the last answer does not serve
	err      error     // of the last question
	question *question // nil while the provider is not asked
}

// question is one call of the provider.
type question struct {
	cancel   context.CancelCauseFunc
	answered chan struct{} // closed when the cache has the answer
	waiters  int           // guarded by the cache's mu
	later    bool          // the old credentials are good still: it is not given up with its waiters
}

// NewCredentialsCache returns a cache that has not asked yet. The logger is told of renewals
// that fail.
func NewCredentialsCache(p ots.CredentialsProvider, logger watermill.LoggerAdapter) *CredentialsCache {
	return &CredentialsCache{provider: p, logger: logger, refused: true}
}

var (
	// ErrCredentials is wrapped when the provider failed.
	ErrCredentials = errors.New("asking for credentials")
	// ErrNoCredentials is wrapped when the provider gave no key or no secret.
	ErrNoCredentials = errors.New("the provider returned no access key id or no secret")
	errNotAsked      = errors.New("nobody waits for the answer any more")
)

// Get makes sure that there are credentials to sign with, and returns them. Good ones
// that expire soon are returned, and replaced meanwhile.
func (c *CredentialsCache) Get(ctx context.Context) (ots.Credentials, error) {
	for {
		c.mu.Lock()
		good, due := c.look()
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
		case q == nil: // as new as can be, though refused or expired: the service decides
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

// await waits for the answer to a question, or gives it up with ctx. A provider that
// does not heed its context is not waited for either.
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

// ask begins a question. The caller holds mu.
func (c *CredentialsCache) ask(later bool) {
	ctx, cancel := context.WithCancelCause(context.Background())
	ctx, end := context.WithTimeoutCause(ctx, RefreshTimeout, errNoAnswer)
	q := &question{cancel: cancel, answered: make(chan struct{}), later: later}
	c.question = q
	go func() { // ends with the provider's answer, within RefreshTimeout if the provider heeds its context; close waits for it
		defer cancel(nil)
		defer end()
		err := errProviderExited
		var cred ots.Credentials
		defer func() { c.answer(ctx, q, cred, err) }()
		cred, err = c.call(ctx)
	}()
}

var errProviderExited = fmt.Errorf("%w: the provider exited without returning (runtime.Goexit)", ErrCredentials)

// call calls the provider, which is the user's: it may panic.
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

// answer ends a question.
func (c *CredentialsCache) answer(ctx context.Context, q *question, cred ots.Credentials, err error) {
	c.mu.Lock()
	if err == nil {
		c.have, c.refused = cred, false
	}
	// A question that was given up says nothing about the provider.
	givenUp := err != nil && context.Cause(ctx) == errNotAsked
	if !givenUp {
		c.err, c.askAgain = err, time.Now().Add(AskPause)
	}
	c.question = nil
	good, _ := c.look()
	old := c.have
	c.mu.Unlock()
	close(q.answered)
	if err != nil && good && !givenUp {
		c.logger.Error("Cannot renew the credentials; the old ones stay in use", err, watermill.LogFields{"expire": old.Expires})
	}
}

// Close gives up the question that is asked, and waits for its end, for so long at most.
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
		c.logger.Error("The CredentialsProvider goes on although its context has ended; it is left alone", errNoAnswer, nil)
	}
}

// look returns whether the credentials can be signed with, and whether the
// provider is to be asked for others. The caller holds mu.
func (c *CredentialsCache) look() (good, due bool) {
	now := time.Now()
	lasts := c.have.Expires.IsZero()
	good = !c.refused && (lasts || now.Before(c.have.Expires))
	fresh := good && (lasts || c.have.Expires.Sub(now) > refreshBefore)
	return good, !fresh && !now.Before(c.askAgain)
}

// Fresh reports that there is no reason to ask the provider.
func (c *CredentialsCache) Fresh() bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	good, due := c.look()
	return good && !due
}

// Forget makes the next Get ask the provider again: the service refused what we have.
func (c *CredentialsCache) Forget() {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.refused = true
}

// SDK returns the SDK's view of the cache, which never asks the provider: whoever makes
// a call has called Get just before, with a context. region is for signature version 4;
// empty means version 2.
func (c *CredentialsCache) SDK(region string) common.CredentialsProvider {
	return sdkCredentials{cache: c, region: region}
}

// sdkCredentials implements common.CredentialsProvider.
type sdkCredentials struct {
	cache  *CredentialsCache
	region string // of signature version 4; empty for version 2
}

// GetCredentials returns what to sign the next request with.
func (s sdkCredentials) GetCredentials() common.Credentials {
	s.cache.mu.Lock()
	cred := s.cache.have
	s.cache.mu.Unlock()
	return signing.Credentials(s.region, cred.AccessKeyID, cred.AccessKeySecret, cred.SecurityToken)
}
