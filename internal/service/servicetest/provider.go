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

// Script is a provider that answers each question with the next function; the
// last one answers all further questions. It fails the test when two goroutines
// are in it at once.
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
		s.t.Error("two goroutines ask the provider at once")
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

// Questions returns how often the provider was asked.
func (s *Script) Questions() int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return len(s.asked)
}

// Gives answers with credentials of that id that last for a while; 0: for ever.
func Gives(id string, lasting time.Duration) func(context.Context) (ots.Credentials, error) {
	return func(context.Context) (ots.Credentials, error) {
		c := ots.Credentials{AccessKeyID: id, AccessKeySecret: "secret of " + id, SecurityToken: "token of " + id}
		if lasting != 0 {
			c.Expires = time.Now().Add(lasting)
		}
		return c, nil
	}
}

// ErrProvider is what Failing answers.
var ErrProvider = errors.New("the metadata server is down")

// Failing answers with ErrProvider.
func Failing(context.Context) (ots.Credentials, error) { return ots.Credentials{}, ErrProvider }

// Hanging answers only when it is given up.
func Hanging(ctx context.Context) (ots.Credentials, error) {
	<-ctx.Done()
	return ots.Credentials{}, ctx.Err()
}

// Scripted returns a cache of a provider with these answers, and what it logs.
func Scripted(t testing.TB, answers ...func(context.Context) (ots.Credentials, error)) (*service.CredentialsCache, *Script, *watermill.CaptureLoggerAdapter) {
	s := &Script{t: t, answers: answers}
	logger := watermill.NewCaptureLogger()
	return service.NewCredentialsCache(s, logger), s, logger
}

// WantCredentials asks the cache and checks whose credentials come.
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
