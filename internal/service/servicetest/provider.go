// Package servicetest has providers of credentials for tests.
package servicetest

import (
	"context"
	"errors"
	"sync"
	"testing"
	"time"

	"github.com/ThreeDotsLabs/watermill"

	"github.com/watermill-ots/watermill-ots/internal/service"
	"github.com/watermill-ots/watermill-ots/ots"
)

// Script is a provider that answers each call with the next function; the last one
// answers all further calls. It fails the test when two goroutines call it at once.
type Script struct {
	t testing.TB

	mu      sync.Mutex
	inside  bool
	asked   []time.Time
	answers []func(ctx context.Context) (ots.Credentials, error)
}

// Credentials implements ots.CredentialsProvider.
func (s *Script) Credentials(ctx context.Context) (ots.Credentials, error) {
	s.mu.Lock()
	if s.inside {
		s.t.Error("two goroutines call the provider at once")
	}
	s.inside = true
	answer := s.answers[min(len(s.asked), len(s.answers)-1)]
	s.asked = append(s.asked, time.Now())
	s.mu.Unlock()
	defer func() {
		s.mu.Lock()
		s.inside = false
		s.mu.Unlock()
	}()
	return answer(ctx)
}

// Questions returns how often the provider was called.
func (s *Script) Questions() int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return len(s.asked)
}

// Gives answers with credentials of that id that expire after lasting; 0: never.
func Gives(id string, lasting time.Duration) func(context.Context) (ots.Credentials, error) {
	return func(context.Context) (ots.Credentials, error) {
		c := ots.Credentials{AccessKeyID: id, AccessKeySecret: "secret of " + id, SecurityToken: "token of " + id}
		if lasting != 0 {
			c.Expires = time.Now().Add(lasting)
		}
		return c, nil
	}
}

// ErrProvider is the error of Failing.
var ErrProvider = errors.New("the metadata server is down")

// Failing returns ErrProvider.
func Failing(context.Context) (ots.Credentials, error) { return ots.Credentials{}, ErrProvider }

// Hanging returns only when its context ends.
func Hanging(ctx context.Context) (ots.Credentials, error) {
	<-ctx.Done()
	return ots.Credentials{}, ctx.Err()
}

// Scripted returns a cache whose provider has these answers, the provider, and the log.
func Scripted(t testing.TB, answers ...func(context.Context) (ots.Credentials, error)) (*service.CredentialsCache, *Script, *watermill.CaptureLoggerAdapter) {
	s := &Script{t: t, answers: answers}
	logger := watermill.NewCaptureLogger()
	return service.NewCredentialsCache(s, logger), s, logger
}

// WantCredentials checks that the cache and its SDK view return the credentials of id.
func WantCredentials(t testing.TB, c *service.CredentialsCache, id string) {
	t.Helper()
	cred, err := c.Get(context.Background())
	if err != nil || cred.AccessKeyID != id || cred.AccessKeySecret != "secret of "+id {
		t.Fatalf("got %v, %v; want the credentials of %s", cred, err, id)
	}
	if sdk := c.SDK("").GetCredentials(); sdk.GetAccessKeyID() != id || sdk.GetAccessKeySecret() != "secret of "+id || sdk.GetSecurityToken() != "token of "+id {
		t.Fatalf("the SDK signs with %s, want %s", sdk.GetAccessKeyID(), id)
	}
}
