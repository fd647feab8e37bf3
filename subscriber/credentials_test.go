package subscriber

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/ThreeDotsLabs/watermill"
)

// script is a provider that answers each question with the next function; the
// last one answers all further questions. It fails the test when two goroutines
// are in it at once.
type script struct {
	t *testing.T

	mu      sync.Mutex
	inside  bool
	asked   []time.Time
	answers []func(ctx context.Context) (Credentials, error)
}

func (s *script) Credentials(ctx context.Context) (Credentials, error) {
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

func (s *script) questions() int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return len(s.asked)
}

// gives answers with credentials of that id that last for a while; 0: for ever.
func gives(id string, lasting time.Duration) func(context.Context) (Credentials, error) {
	return func(context.Context) (Credentials, error) {
		c := Credentials{AccessKeyID: id, AccessKeySecret: "secret of " + id, SecurityToken: "token of " + id}
		if lasting != 0 {
			c.Expires = time.Now().Add(lasting)
		}
		return c, nil
	}
}

var errProvider = errors.New("the metadata server is down")

func failing(context.Context) (Credentials, error) { return Credentials{}, errProvider }

// hanging answers only when it is given up.
func hanging(ctx context.Context) (Credentials, error) {
	<-ctx.Done()
	return Credentials{}, ctx.Err()
}

func scripted(t *testing.T, answers ...func(context.Context) (Credentials, error)) (*credentialsCache, *script, *watermill.CaptureLoggerAdapter) {
	s := &script{t: t, answers: answers}
	logger := watermill.NewCaptureLogger()
	return newCredentialsCache(s, logger), s, logger
}

// wantCredentials asks the cache and checks whose credentials come.
func wantCredentials(t *testing.T, c *credentialsCache, id string) {
	t.Helper()
	cred, err := c.get(context.Background())
	if err != nil || cred.AccessKeyID != id || cred.AccessKeySecret != "secret of "+id {
		t.Fatalf("got %v, %v; want the credentials of %s", cred, err, id)
	}
	if sdk := (sdkCredentials{c}).GetCredentials(); sdk.GetAccessKeyID() != id || sdk.GetAccessKeySecret() != "secret of "+id || sdk.GetSecurityToken() != "token of "+id {
		t.Fatalf("the SDK signs with %s, want %s", sdk.GetAccessKeyID(), id)
	}
}

func TestCredentials_without_expiry_are_asked_for_once(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c, s, _ := scripted(t, gives("a", 0))
		for range 100 {
			wantCredentials(t, c, "a")
			time.Sleep(time.Hour)
		}
		if n := s.questions(); n != 1 {
			t.Errorf("the provider was asked %d times", n)
		}
	})
}

func TestCredentials_are_renewed_a_minute_before_they_expire(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c, s, _ := scripted(t, gives("a", time.Hour), gives("b", time.Hour))
		start := time.Now()
		wantCredentials(t, c, "a")
		time.Sleep(time.Until(start.Add(59*time.Minute - time.Millisecond)))
		wantCredentials(t, c, "a")
		time.Sleep(time.Millisecond)
		wantCredentials(t, c, "b")
		if n := s.questions(); n != 2 {
			t.Errorf("the provider was asked %d times, want 2", n)
		}
	})
}

func TestCredentials_stay_in_use_until_they_expire_while_the_provider_fails(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c, s, logger := scripted(t, gives("a", time.Hour), failing)
		wantCredentials(t, c, "a")
		start := time.Now()
		time.Sleep(59*time.Minute + 30*time.Second)
		for range 1000 { // many channels
			wantCredentials(t, c, "a")
		}
		if n := s.questions(); n != 2 {
			t.Errorf("1000 calls in one moment asked the failing provider %d times, want once", n-1)
		}
		if logged := logger.Captured()[watermill.ErrorLogLevel]; len(logged) != 1 || !errors.Is(logged[0].Err, errProvider) {
			t.Errorf("logged errors are %v, want the failure once", logged)
		}
		time.Sleep(askPause)
		wantCredentials(t, c, "a")
		if n := s.questions(); n != 3 {
			t.Errorf("after the pause the provider was asked %d times more, want once", n-2)
		}
		time.Sleep(time.Until(start.Add(time.Hour)))
		if cred, err := c.get(context.Background()); !errors.Is(err, errProvider) || cred.AccessKeyID != "" {
			t.Errorf("with expired credentials get returned %v, %v; want the provider's error", cred, err)
		}
	})
}

func TestCredentials_expired_and_missing_are_the_providers_error_without_storming_it(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c, s, logger := scripted(t, failing, failing, gives("a", 0))
		for range 100 {
			if _, err := c.get(context.Background()); !errors.Is(err, errProvider) {
				t.Fatalf("got %v", err)
			}
		}
		if n := s.questions(); n != 1 {
			t.Errorf("the provider was asked %d times in one moment", n)
		}
		time.Sleep(askPause)
		if _, err := c.get(context.Background()); !errors.Is(err, errProvider) {
			t.Fatalf("got %v", err)
		}
		time.Sleep(askPause)
		wantCredentials(t, c, "a")
		if n := len(logger.Captured()[watermill.ErrorLogLevel]); n != 0 {
			t.Errorf("errors that the caller gets are logged as well, %d times", n)
		}
	})
}

func TestCredentials_that_are_incomplete_are_an_error(t *testing.T) {
	for _, cred := range []Credentials{{}, {AccessKeyID: "a"}, {AccessKeySecret: "s"}} {
		c := newCredentialsCache(CredentialsProviderFunc(func(context.Context) (Credentials, error) { return cred, nil }), watermill.NopLogger{})
		if _, err := c.get(context.Background()); !errors.Is(err, errNoCredentials) {
			t.Errorf("%#v: got %v", cred, err)
		}
	}
}

func TestCredentials_slow_provider_holds_up_nobody_while_the_old_ones_are_good(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c, s, _ := scripted(t, gives("a", time.Hour), hanging, gives("b", time.Hour))
		wantCredentials(t, c, "a")
		time.Sleep(59*time.Minute + 10*time.Second)
		asking := make(chan time.Duration)
		go func() {
			start := time.Now()
			wantCredentials(t, c, "a")
			asking <- time.Since(start)
		}()
		synctest.Wait()
		start := time.Now()
		for range 64 {
			wantCredentials(t, c, "a")
		}
		if waited := time.Since(start); waited != 0 {
			t.Errorf("others waited %v for the provider", waited)
		}
		if waited := <-asking; waited != refreshTimeout {
			t.Errorf("who asked waited %v, want refreshTimeout", waited)
		}
		time.Sleep(askPause)
		wantCredentials(t, c, "b")
		if n := s.questions(); n != 3 {
			t.Errorf("the provider was asked %d times, want 3", n)
		}
	})
}

func TestCredentials_concurrent_first_callers_share_one_question(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c, s, _ := scripted(t, func(ctx context.Context) (Credentials, error) {
			time.Sleep(time.Second)
			return gives("a", 0)(ctx)
		})
		var callers sync.WaitGroup
		for range 64 {
			callers.Go(func() { wantCredentials(t, c, "a") })
		}
		callers.Wait()
		if n := s.questions(); n != 1 {
			t.Errorf("the provider was asked %d times", n)
		}
	})
}

func TestCredentials_waiting_for_another_callers_question_ends_with_the_context(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c, _, _ := scripted(t, hanging, gives("a", 0))
		first, giveUp := context.WithCancelCause(context.Background())
		errFirst, errSecond := errors.New("first gives up"), errors.New("second gives up")
		asked := make(chan error, 1)
		go func() { _, err := c.get(first); asked <- err }()
		synctest.Wait()

		second, cancel := context.WithCancelCause(context.Background())
		cancel(errSecond)
		if _, err := c.get(second); !errors.Is(err, errSecond) {
			t.Errorf("got %v, want the cause", err)
		}
		giveUp(errFirst)
		if err := <-asked; err == nil {
			t.Error("a question that was given up succeeded")
		}
		wantCredentials(t, c, "a") // at once: giving up is no fault of the provider's
	})
}

func TestCredentials_that_the_service_refused_are_asked_for_again(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c, s, _ := scripted(t, gives("a", 0), gives("b", 0))
		wantCredentials(t, c, "a")
		time.Sleep(time.Minute)
		c.forget()
		wantCredentials(t, c, "b")
		for range 100 { // a refusal that has other reasons
			c.forget()
			wantCredentials(t, c, "b")
		}
		if n := s.questions(); n != 2 {
			t.Errorf("the provider was asked %d times, want 2", n)
		}
		time.Sleep(askPause)
		wantCredentials(t, c, "b")
		if n := s.questions(); n != 3 {
			t.Errorf("the provider was asked %d times, want 3", n)
		}
	})
}

func TestCredentials_show_no_secret_as_text(t *testing.T) {
	c := Credentials{AccessKeyID: "the-id", AccessKeySecret: "hush", SecurityToken: "psst"}
	for _, format := range []string{"%v", "%+v", "%#v", "%s"} {
		text := fmt.Sprintf(format, c)
		if strings.Contains(text, "hush") || strings.Contains(text, "psst") || !strings.Contains(text, "the-id") {
			t.Errorf("%s gives %q", format, text)
		}
		if text = fmt.Sprintf(format, struct{ C Credentials }{c}); strings.Contains(text, "hush") {
			t.Errorf("%s of a struct gives %q", format, text)
		}
	}
}
