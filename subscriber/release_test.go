package subscriber

import (
	"context"
	"errors"
	"slices"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/ThreeDotsLabs/watermill/message"
	"github.com/aliyun/aliyun-tablestore-go-sdk/tunnel/protocol"

	"github.com/watermill-ots/watermill-ots/internal/service/servicetest"
	"github.com/watermill-ots/watermill-ots/ots"
)

// ended returns the clients that shutdown calls named, in order.
func ended(t *testing.T, f *fakeService) (ids []string) {
	for _, body := range f.bodies("shutdown") {
		var req protocol.ShutdownRequest
		unmarshal(t, body, &req)
		ids = append(ids, req.GetClientId())
	}
	return ids
}

func TestClient_that_could_not_be_ended_is_ended_after_the_next_connect(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := fakeTunnel(0)
		s := fakeSubscriber(t, f, nil)
		subscribeTo(t, s)
		time.Sleep(time.Second)
		down := reply{err: errNetwork}
		for _, op := range []string{"heartbeat", "shutdown", "connect"} {
			f.always(op, down)
		}
		time.Sleep(40 * time.Second) // an outage that outlasts the lease
		tried := ended(t, f)
		if !slices.Equal(tried, []string{"client-1"}) {
			t.Fatalf("during the outage shutdown was called for %v, want client-1 once", tried)
		}
		f.on("connect", func([]byte) reply { return clientReply("client-2") })
		f.always("heartbeat", heartbeatReply("c1:2:OPEN"))
		fails := 2
		f.on("shutdown", func([]byte) reply {
			if fails > 0 {
				fails--
				return unavailable
			}
			return reply{}
		})
		time.Sleep(20 * time.Second) // the pause between sessions, and two more tries
		if got := ended(t, f)[1:]; !slices.Equal(got, []string{"client-1", "client-1", "client-1"}) {
			t.Errorf("after the outage shutdown was called for %v, want client-1 until it succeeded", got)
		}
		time.Sleep(time.Minute)
		if err := s.Close(); err != nil {
			t.Error(err)
		}
		if got := ended(t, f)[4:]; !slices.Equal(got, []string{"client-2"}) {
			t.Errorf("then shutdown was called for %v, want client-2 at the end", got)
		}
	})
}

func TestClient_that_could_not_be_ended_is_left_to_the_service_after_HeartbeatTimeout(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := fakeTunnel(0).always("shutdown", unavailable)
		s := fakeSubscriber(t, f, nil)
		start := time.Now()
		subscribeTo(t, s)
		time.Sleep(time.Second)
		f.always("heartbeat", errorReply(400, "OTSResourceGone")) // also for the sessions that follow, one by one
		time.Sleep(5 * time.Second)
		f.always("heartbeat", heartbeatReply("c1:2:OPEN"))
		time.Sleep(5 * time.Minute)
		at := f.times("shutdown", start)
		if len(at) < 3 {
			t.Fatalf("shutdown was called %d times", len(at))
		}
		if last := at[len(at)-1]; last > 6*time.Second+30*time.Second+10*time.Second {
			t.Errorf("shutdown was called %v after the start; HeartbeatTimeout is 30s", last)
		}
		s.Close()
	})
}

// hangingUnmarshaler does not return until release is closed.
type hangingUnmarshaler struct{ release chan struct{} }

func (h hangingUnmarshaler) Unmarshal(r *ots.Record) (*message.Message, error) {
	<-h.release
	return JSON{}.Unmarshal(r)
}

func TestL7_Close_is_bounded_whatever_code_of_the_users_does_not_return(t *testing.T) {
	t.Parallel()
	const bound = DefaultCloseTimeout + 5*time.Second
	for name, hang := range map[string]func(c *Config, release chan struct{}){
		"handler": func(*Config, chan struct{}) {},
		"provider": func(c *Config, release chan struct{}) {
			first := true
			c.Credentials = ots.CredentialsProviderFunc(func(ctx context.Context) (ots.Credentials, error) {
				if first {
					first = false
					return servicetest.Gives("a", 2*time.Second)(ctx)
				}
				<-release // whatever its context says
				return ots.Credentials{}, servicetest.ErrProvider
			})
		},
		"unmarshaler": func(c *Config, release chan struct{}) { c.Unmarshaler = hangingUnmarshaler{release} },
		"OnPhase":     func(c *Config, release chan struct{}) { c.OnPhase = func(Phase) { <-release } },
		"OnAlarm": func(c *Config, release chan struct{}) {
			c.StuckAfter, c.OnAlarm = time.Second, func(Alarm) { <-release }
		},
	} {
		for _, way := range []string{"Subscribe", "Handle"} {
			t.Run(name+" "+way, func(t *testing.T) {
				synctest.Test(t, func(t *testing.T) {
					f := fakeTunnel(3)
					release := make(chan struct{})
					s := fakeSubscriber(t, f, func(c *Config) {
						c.HeartbeatInterval, c.HeartbeatTimeout = 0, 0
						hang(c, release)
					})
					var running atomic.Int64
					h := func(*message.Message) error { running.Add(1); defer running.Add(-1); <-release; return nil }
					if way == "Handle" {
						if _, err := s.Handle(context.Background(), "table/tunnel", h); err != nil {
							t.Fatal(err)
						}
					} else {
						messages := subscribeTo(t, s)
						go func() {
							for m := range messages {
								go func() { _ = h(m); m.Ack() }()
							}
						}()
					}
					time.Sleep(time.Minute)
					f.always("shutdown", reply{hang: true}) // and the service, too
					f.always("checkpoint", reply{hang: true})
					err := closeWithin(t, s, bound)
					if messages := name == "handler" || name == "OnAlarm"; messages && !errors.Is(err, ErrDrainTimeout) {
						t.Errorf("Close returned %v with %d handlers", err, running.Load())
					}
					close(release)
				})
			})
		}
	}
}

func TestL7_Close_does_not_wait_for_a_provider_while_a_session_begins(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := fakeTunnel(0)
		var hangs atomic.Bool
		s := fakeSubscriber(t, f, func(c *Config) {
			c.Credentials = ots.CredentialsProviderFunc(func(ctx context.Context) (ots.Credentials, error) {
				if hangs.Load() {
					return servicetest.Hanging(ctx)
				}
				return servicetest.Gives("a", 2*time.Minute)(ctx)
			})
		})
		subscribeTo(t, s)
		time.Sleep(time.Second)
		hangs.Store(true)
		f.always("heartbeat", gone)
		time.Sleep(3 * time.Minute)
		if err := closeWithin(t, s, 0); err != nil {
			t.Error(err)
		}
	})
}

func TestL6_handlers_of_lost_channels_are_bounded_with_Handle(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := fakeTunnel(10)
		var lose atomic.Bool
		f.on("heartbeat", func([]byte) reply {
			if lose.Swap(false) {
				return gone
			}
			return heartbeatReply("c1:1:OPEN")
		})
		s := fakeSubscriber(t, f, func(c *Config) { c.MaxInFlight = 10 })
		release := make(chan struct{})
		var running, most atomic.Int64
		if _, err := s.Handle(context.Background(), "table/tunnel", func(*message.Message) error {
			most.Store(max(most.Load(), running.Add(1)))
			<-release
			running.Add(-1)
			return nil
		}); err != nil {
			t.Fatal(err)
		}
		for range 10 {
			time.Sleep(time.Minute)
			lose.Store(true)
		}
		time.Sleep(time.Minute)
		if n := most.Load(); n < 10 || n > 20 {
			t.Errorf("%d handlers ran at once after 10 lost sessions, with MaxInFlight 10", n)
		}
		close(release) // they return, and handling continues
		time.Sleep(time.Minute)
		if got := stored(t, f); len(got) == 0 || got[len(got)-1] != "t1@1" {
			t.Errorf("stored %v once the handlers had returned", got)
		}
		if n := s.subscriptions[0].dest.strays.Load(); n != 0 {
			t.Errorf("%d strays are counted when all handlers have returned", n)
		}
		if err := s.Close(); err != nil {
			t.Error(err)
		}
	})
}

func TestL7_Close_with_nothing_in_flight_waits_for_the_last_calls_at_most(t *testing.T) {
	for op, most := range map[string]time.Duration{
		"heartbeat":     0, // the one that hangs is given up
		"getcheckpoint": 0,
		"checkpoint":    lastCommitTimeout,
		"shutdown":      releaseTries*releaseTimeout + time.Second, // with pauses
	} {
		t.Run(op, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				f := fakeTunnel(1)
				s := fakeSubscriber(t, f, func(c *Config) {
					c.HeartbeatInterval, c.HeartbeatTimeout, c.CheckpointInterval, c.CloseTimeout = 0, 0, time.Hour, time.Minute
				})
				if op == "getcheckpoint" {
					f.always(op, reply{hang: true})
				}
				messages := subscribeTo(t, s)
				if op != "getcheckpoint" {
					(<-messages).Ack()
				}
				if op == "heartbeat" {
					time.Sleep(29 * time.Second)
				}
				f.always(op, reply{hang: true})
				time.Sleep(6 * time.Second) // a heartbeat hangs since 2 to 5 seconds
				err := closeWithin(t, s, most)
				if failed := op == "checkpoint"; failed != errors.Is(err, ErrNotCommitted) {
					t.Errorf("Close returned %v", err)
				}
			})
		})
	}
}
