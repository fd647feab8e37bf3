package service_test

import (
	"context"
	"errors"
	"runtime"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/ThreeDotsLabs/watermill"

	"github.com/watermill-ots/watermill-ots/internal/service"
	"github.com/watermill-ots/watermill-ots/internal/service/servicetest"
	"github.com/watermill-ots/watermill-ots/ots"
)

func TestCredentials_without_expiry_are_asked_for_once(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c, s, _ := servicetest.Scripted(t, servicetest.Gives("a", 0))
		for range 100 {
			servicetest.WantCredentials(t, c, "a")
			time.Sleep(time.Hour)
		}
		if n := s.Questions(); n != 1 {
			t.Errorf("the provider was asked %d times", n)
		}
	})
}

func TestCredentials_are_renewed_a_minute_before_they_expire(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c, s, _ := servicetest.Scripted(t, servicetest.Gives("a", time.Hour), servicetest.Gives("b", time.Hour))
		start := time.Now()
		servicetest.WantCredentials(t, c, "a")
		time.Sleep(time.Until(start.Add(59*time.Minute - time.Millisecond)))
		servicetest.WantCredentials(t, c, "a")
		time.Sleep(time.Millisecond)
		servicetest.WantCredentials(t, c, "a") // they are still valid: the call does not wait
		synctest.Wait()
		servicetest.WantCredentials(t, c, "b")
		if n := s.Questions(); n != 2 {
			t.Errorf("the provider was asked %d times, want 2", n)
		}
	})
}

func TestCredentials_stay_in_use_until_they_expire_while_the_provider_fails(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c, s, logger := servicetest.Scripted(t, servicetest.Gives("a", time.Hour), servicetest.Failing)
		servicetest.WantCredentials(t, c, "a")
		start := time.Now()
		time.Sleep(59*time.Minute + 30*time.Second)
		for range 1000 { // many channels
			servicetest.WantCredentials(t, c, "a")
		}
		synctest.Wait()
		if n := s.Questions(); n != 2 {
			t.Errorf("1000 calls in one moment asked the failing provider %d times, want once", n-1)
		}
		if logged := logger.Captured()[watermill.ErrorLogLevel]; len(logged) != 1 || !errors.Is(logged[0].Err, servicetest.ErrProvider) {
			t.Errorf("logged errors are %v, want the failure once", logged)
		}
		time.Sleep(service.AskPause)
		servicetest.WantCredentials(t, c, "a")
		synctest.Wait()
		if n := s.Questions(); n != 3 {
			t.Errorf("after the pause the provider was asked %d times more, want once", n-2)
		}
		time.Sleep(time.Until(start.Add(time.Hour)))
		if cred, err := c.Get(context.Background()); !errors.Is(err, servicetest.ErrProvider) || cred.AccessKeyID != "" {
			t.Errorf("with expired credentials get returned %v, %v; want the provider's error", cred, err)
		}
	})
}

func TestCredentials_expired_or_missing_give_the_providers_error_without_overloading_it(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c, s, logger := servicetest.Scripted(t, servicetest.Failing, servicetest.Failing, servicetest.Gives("a", 0))
		for range 100 {
			if _, err := c.Get(context.Background()); !errors.Is(err, servicetest.ErrProvider) {
				t.Fatalf("got %v", err)
			}
		}
		if n := s.Questions(); n != 1 {
			t.Errorf("the provider was asked %d times in one moment", n)
		}
		time.Sleep(service.AskPause)
		if _, err := c.Get(context.Background()); !errors.Is(err, servicetest.ErrProvider) {
			t.Fatalf("got %v", err)
		}
		time.Sleep(service.AskPause)
		servicetest.WantCredentials(t, c, "a")
		if n := len(logger.Captured()[watermill.ErrorLogLevel]); n != 0 {
			t.Errorf("errors that the caller gets are logged as well, %d times", n)
		}
	})
}

func TestCredentials_that_are_incomplete_are_an_error(t *testing.T) {
	for _, cred := range []ots.Credentials{{}, {AccessKeyID: "a"}, {AccessKeySecret: "s"}} {
		c := service.NewCredentialsCache(ots.CredentialsProviderFunc(func(context.Context) (ots.Credentials, error) { return cred, nil }), watermill.NopLogger{})
		if _, err := c.Get(context.Background()); !errors.Is(err, service.ErrNoCredentials) {
			t.Errorf("%#v: got %v", cred, err)
		}
	}
}

func TestCredentials_slow_provider_delays_no_call_while_the_old_ones_are_valid(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c, s, _ := servicetest.Scripted(t, servicetest.Gives("a", time.Hour), servicetest.Hanging, servicetest.Gives("b", time.Hour))
		servicetest.WantCredentials(t, c, "a")
		time.Sleep(59*time.Minute + 10*time.Second)
		start := time.Now()
		for range 64 {
			servicetest.WantCredentials(t, c, "a")
		}
		if waited := time.Since(start); waited != 0 {
			t.Errorf("the calls waited %v for the provider", waited)
		}
		time.Sleep(service.RefreshTimeout + service.AskPause)
		servicetest.WantCredentials(t, c, "a")
		synctest.Wait()
		servicetest.WantCredentials(t, c, "b")
		if n := s.Questions(); n != 3 {
			t.Errorf("the provider was asked %d times, want 3", n)
		}
	})
}

func TestCredentials_concurrent_first_callers_share_one_question(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c, s, _ := servicetest.Scripted(t, func(ctx context.Context) (ots.Credentials, error) {
			time.Sleep(time.Second)
			return servicetest.Gives("a", 0)(ctx)
		})
		var callers sync.WaitGroup
		for range 64 {
			callers.Go(func() { servicetest.WantCredentials(t, c, "a") })
		}
		callers.Wait()
		if n := s.Questions(); n != 1 {
			t.Errorf("the provider was asked %d times", n)
		}
	})
}

func TestCredentials_waiting_for_another_callers_question_ends_with_the_context(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c, _, _ := servicetest.Scripted(t, servicetest.Hanging, servicetest.Gives("a", 0))
		first, giveUp := context.WithCancelCause(context.Background())
		errFirst, errSecond := errors.New("first servicetest.Gives up"), errors.New("second servicetest.Gives up")
		asked := make(chan error, 1)
		go func() { _, err := c.Get(first); asked <- err }()
		synctest.Wait()

		second, cancel := context.WithCancelCause(context.Background())
		cancel(errSecond)
		if _, err := c.Get(second); !errors.Is(err, errSecond) {
			t.Errorf("got %v, want the cause", err)
		}
		giveUp(errFirst)
		if err := <-asked; err == nil {
			t.Error("a question that was given up succeeded")
		}
		servicetest.WantCredentials(t, c, "a") // at once: a cancelled call does not count as a failure of the provider
	})
}

// ignores is a provider that does not answer and ignores its context, until release is
// closed.
func ignores(release <-chan struct{}) func(context.Context) (ots.Credentials, error) {
	return func(context.Context) (ots.Credentials, error) {
		<-release
		return ots.Credentials{AccessKeyID: "late", AccessKeySecret: "secret of late", SecurityToken: "token of late"}, nil
	}
}

func TestCredentials_calls_do_not_wait_longer_for_a_provider_that_ignores_its_context(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		release := make(chan struct{})
		c, s, logger := servicetest.Scripted(t, ignores(release))
		for range 2 { // the second one does not call the provider concurrently
			start := time.Now()
			if _, err := c.Get(context.Background()); !errors.Is(err, service.ErrCredentials) || !errors.Is(err, context.DeadlineExceeded) {
				t.Errorf("got %v", err)
			}
			if waited := time.Since(start); waited != service.RefreshTimeout {
				t.Errorf("waited %v, want %v", waited, service.RefreshTimeout)
			}
		}
		ctx, cancel := context.WithTimeout(context.Background(), time.Second)
		defer cancel()
		start := time.Now()
		if _, err := c.Get(ctx); err == nil || time.Since(start) != time.Second {
			t.Errorf("after %v, with a context of a second: %v", time.Since(start), err)
		}
		c.Close(time.Second)
		if logged := logger.Captured()[watermill.ErrorLogLevel]; len(logged) != 1 {
			t.Errorf("logged %v, want that the provider is left alone", logged)
		}
		if n := s.Questions(); n != 1 {
			t.Errorf("the provider was asked %d times", n)
		}
		close(release)
		servicetest.WantCredentials(t, c, "late")
	})
}

func TestCredentials_provider_that_panics_or_exits_is_an_error(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c, _, _ := servicetest.Scripted(t,
			func(context.Context) (ots.Credentials, error) { panic("no metadata") },
			func(context.Context) (ots.Credentials, error) { runtime.Goexit(); return ots.Credentials{}, nil },
			servicetest.Gives("a", 0))
		if _, err := c.Get(context.Background()); !errors.Is(err, service.ErrCredentials) || !strings.Contains(err.Error(), "no metadata") {
			t.Errorf("got %v of a panic", err)
		}
		time.Sleep(service.AskPause)
		if _, err := c.Get(context.Background()); !errors.Is(err, service.ErrCredentials) || !strings.Contains(err.Error(), "Goexit") {
			t.Errorf("got %v of Goexit", err)
		}
		time.Sleep(service.AskPause)
		servicetest.WantCredentials(t, c, "a")
	})
}

func TestCredentials_that_are_renewed_in_the_background_are_given_up_at_the_end(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c, _, logger := servicetest.Scripted(t, servicetest.Gives("a", time.Hour), servicetest.Hanging)
		servicetest.WantCredentials(t, c, "a")
		time.Sleep(59*time.Minute + time.Second)
		servicetest.WantCredentials(t, c, "a")
		start := time.Now()
		c.Close(time.Minute)
		if waited := time.Since(start); waited != 0 {
			t.Errorf("close waited %v for a provider that heeds its context", waited)
		}
		if logged := logger.Captured()[watermill.ErrorLogLevel]; len(logged) != 0 {
			t.Errorf("logged %v", logged)
		}
	})
}

func TestCredentials_that_the_service_refused_are_asked_for_again(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c, s, _ := servicetest.Scripted(t, servicetest.Gives("a", 0), servicetest.Gives("b", 0))
		servicetest.WantCredentials(t, c, "a")
		time.Sleep(time.Minute)
		c.Forget()
		servicetest.WantCredentials(t, c, "b")
		for range 100 { // a refusal that has other reasons
			c.Forget()
			servicetest.WantCredentials(t, c, "b")
		}
		if n := s.Questions(); n != 2 {
			t.Errorf("the provider was asked %d times, want 2", n)
		}
		time.Sleep(service.AskPause)
		servicetest.WantCredentials(t, c, "b")
		if n := s.Questions(); n != 3 {
			t.Errorf("the provider was asked %d times, want 3", n)
		}
	})
}
