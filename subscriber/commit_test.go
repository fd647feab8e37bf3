package subscriber

import (
	"context"
	"errors"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/ThreeDotsLabs/watermill/message"
	"github.com/cenkalti/backoff/v4"

	"github.com/watermill-ots/watermill-ots/internal/service"
)

// steps returns backoffs of that many seconds, one second longer each time, and counts how many were made.
func steps(unit time.Duration, made *int) func() backoff.BackOff {
	return func() backoff.BackOff {
		*made++
		return &stepped{unit: unit}
	}
}

type stepped struct{ unit, last time.Duration }

func (s *stepped) NextBackOff() time.Duration { s.last += s.unit; return s.last }
func (s *stepped) Reset()                     { s.last = 0 }

func ackAll(messages <-chan *message.Message) {
	for m := range messages {
		m.Ack()
	}
}

// gaps returns the times between calls of an operation from the n-th on.
func gaps(f *fakeService, op string, start time.Time) (gaps []time.Duration) {
	at := f.times(op, start)
	for i := 1; i < len(at); i++ {
		gaps = append(gaps, at[i]-at[i-1])
	}
	return gaps
}

func TestCommit_that_failed_is_tried_after_ReadBackoff_which_begins_anew_after_a_success(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct {
		failure reply
		first   time.Duration
	}{
		"refused":   {unavailable, 100 * ms},
		"no answer": {reply{err: errNetwork}, 100 * ms},
		"throttled": {errorReply(503, service.CodeServerBusy), throttlePause},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				f := endless(fakeTunnel(0))
				n := 0
				f.on("checkpoint", func([]byte) reply {
					if n++; n == 2 || n == 3 || n == 5 { // twice, then once more after a success
						return c.failure
					}
					return reply{}
				})
				made := 0
				s := fakeSubscriber(t, f, func(cfg *Config) {
					cfg.CheckpointInterval, cfg.ReadBackoff = time.Minute, steps(100*ms, &made)
				})
				start := time.Now()
				go ackAll(subscribeTo(t, s))
				time.Sleep(5 * time.Minute)
				want := []time.Duration{time.Minute, c.first, max(c.first, 200*ms), time.Minute, c.first, time.Minute}
				if got := gaps(f, "checkpoint", start); len(got) < len(want) || !slices.Equal(got[:len(want)], want) {
					t.Errorf("checkpoints followed each other after %v, want %v", got, want)
				}
				if err := s.Close(); err != nil {
					t.Error(err)
				}
			})
		})
	}
}

func TestRead_backoff_begins_anew_after_a_success(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := endless(fakeTunnel(0))
		good, n := f.handlers["readrecords"], 0
		f.on("readrecords", func(b []byte) reply {
			if n++; n == 3 || n == 4 || n == 6 {
				return unavailable
			}
			return good(b)
		})
		made := 0
		s := fakeSubscriber(t, f, func(c *Config) { c.ReadBackoff = steps(time.Second, &made) })
		start := time.Now()
		go ackAll(subscribeTo(t, s))
		time.Sleep(10 * time.Second)
		got := gaps(f, "readrecords", start)
		if got[2] != time.Second || got[3] != 2*time.Second || got[5] != time.Second {
			t.Errorf("pauses after failures are %v, %v, then after a success %v; want 1s, 2s, 1s", got[2], got[3], got[5])
		}
		s.Close()
	})
}

func TestL7_Close_returns_an_error_when_acked_messages_are_not_committed(t *testing.T) {
	for name, c := range map[string]struct {
		change func(f *fakeService)
		acked  bool
		want   string // in the error; empty: none
	}{
		"refused":                  {func(f *fakeService) { f.always("checkpoint", unavailable) }, true, "2 acked messages are not committed"},
		"no answer":                {func(f *fakeService) { f.always("checkpoint", reply{hang: true}) }, true, "no answer within"},
		"the channel is another's": {func(f *fakeService) { f.always("checkpoint", gone) }, true, "OTSResourceGone"},
		"nothing was acked":        {func(f *fakeService) { f.always("checkpoint", unavailable) }, false, ""},
		"all is well":              {func(*fakeService) {}, true, ""},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				f := fakeTunnel(2)
				if !c.acked {
					f = fakeTunnel(0)
				}
				c.change(f)
				s := fakeSubscriber(t, f, func(cfg *Config) { cfg.CheckpointInterval = time.Hour })
				messages := subscribeTo(t, s)
				if c.acked {
					for range 2 {
						(<-messages).Ack()
					}
				}
				time.Sleep(time.Second)
				err := closeWithin(t, s, DefaultCloseTimeout+5*time.Second)
				switch {
				case c.want == "" && err != nil:
					t.Errorf("Close returned %v", err)
				case c.want != "" && (!errors.Is(err, ErrNotCommitted) || errors.Is(err, ErrDrainTimeout) || !strings.Contains(err.Error(), c.want) || !strings.Contains(err.Error(), "table/tunnel")):
					t.Errorf("Close returned %v, want ErrNotCommitted with %q", err, c.want)
				}
			})
		})
	}
}

func TestL7_Close_tells_of_acks_that_are_lost_with_their_channel_while_draining(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := endless(fakeTunnel(0))
		s := fakeSubscriber(t, f, func(c *Config) { c.CheckpointInterval = time.Hour })
		messages := subscribeTo(t, s)
		(<-messages).Ack()
		held := <-messages
		time.Sleep(time.Second)
		closed := make(chan error, 1)
		go func() { closed <- s.Close() }()
		time.Sleep(time.Second)
		f.always("heartbeat", gone)
		err := <-closed
		if !errors.Is(err, ErrNotCommitted) || !errors.Is(err, ErrDrainTimeout) {
			t.Errorf("Close returned %v; one message was acked, one held", err)
		}
		if !errors.Is(context.Cause(held.Context()), ErrChannelLost) {
			t.Errorf("the held message's context ended with %v", context.Cause(held.Context()))
		}
	})
}

func TestChannel_that_is_refused_but_listed_is_opened_again_with_backoff(t *testing.T) {
	for _, op := range []string{"getcheckpoint", "readrecords", "checkpoint"} {
		t.Run(op, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				f := endless(fakeTunnel(0))
				healthy := f.handlers[op]
				var refuse atomic.Bool
				refuse.Store(true)
				f.on(op, func(b []byte) reply {
					if refuse.Load() {
						return gone
					}
					if healthy == nil {
						return reply{}
					}
					return healthy(b)
				})
				made := 0
				s := fakeSubscriber(t, f, func(c *Config) {
					c.ReconnectBackoff, c.CheckpointInterval = steps(10*time.Second, &made), time.Second
				})
				start := time.Now()
				go ackAll(subscribeTo(t, s))
				time.Sleep(100 * time.Second) // 10 + 20 + 30 + 40
				if n := len(f.times("getcheckpoint", start)); n < 4 || n > 5 {
					t.Errorf("opened %d times in 100s, want 4 or 5: after 10, 20, 30 and 40 seconds", n)
				}
				refuse.Store(false)
				time.Sleep(time.Minute)
				opened := len(f.times("getcheckpoint", start))
				refuse.Store(true)
				time.Sleep(5 * time.Second)
				refuse.Store(false)
				time.Sleep(20 * time.Second)
				if at := f.times("getcheckpoint", start); op != "getcheckpoint" && len(at) == opened { // an open channel does not ask for that one
					t.Error("the channel was not opened again 10s after another refusal: the backoff continues as if it had not worked")
				}
				if err := s.Close(); err != nil {
					t.Error(err)
				}
			})
		})
	}
}

func TestSession_backoff_grows_and_begins_anew_after_a_session_that_lasted(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := fakeTunnel(0)
		f.always("heartbeat", gone)
		made := 0
		s := fakeSubscriber(t, f, func(c *Config) { c.ReconnectBackoff = steps(10*time.Second, &made) })
		start := time.Now()
		subscribeTo(t, s)
		time.Sleep(65 * time.Second) // connects at 0, 10, 30, 60
		if got := gaps(f, "connect", start); len(got) != 3 || got[0] != 10*time.Second || got[1] != 20*time.Second || got[2] != 30*time.Second {
			t.Errorf("pauses between sessions that fail are %v", got)
		}
		f.always("heartbeat", heartbeatReply())
		time.Sleep(40*time.Second + 2*steadySession)
		f.always("heartbeat", gone)
		before := len(f.times("connect", start))
		time.Sleep(16 * time.Second) // at most a heartbeat's interval, then ten seconds
		if n := len(f.times("connect", start)); n != before+1 {
			t.Errorf("%d sessions within 16s after one that lasted, want one: after the first pause", n-before)
		}
		s.Close()
	})
}

func TestPatience_follows_what_answers_take(t *testing.T) {
	const longest = 30 * time.Second
	var p patience
	if got := p.timeout(longest); got != leastPatience {
		t.Errorf("the first answer may take %v", got)
	}
	p.note(2*time.Second, leastPatience)
	if got := p.timeout(longest); got != 16*time.Second {
		t.Errorf("when answers take 2s, one may take %v, want 16s", got)
	}
	for range 200 {
		p.note(50*ms, time.Hour)
	}
	if got := p.timeout(longest); got != leastPatience {
		t.Errorf("when answers take 50ms, one may take %v", got)
	}
	for i, want := range []time.Duration{6 * time.Second, 12 * time.Second, 24 * time.Second, longest, longest} {
		p.note(time.Hour, time.Hour)
		if got := p.timeout(longest); got != want {
			t.Errorf("after %d calls without an answer the next may take %v, want %v", i+1, got, want)
		}
	}
	p.note(50*ms, longest)
	if got := p.timeout(longest); got != leastPatience {
		t.Errorf("after an answer: %v", got)
	}
}

func TestSilent_flow_is_noticed_in_seconds(t *testing.T) {
	t.Parallel()
	for _, op := range []string{"readrecords", "checkpoint", "getcheckpoint"} {
		t.Run(op, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				f := endless(fakeTunnel(0))
				healthy := f.handlers[op]
				var silent atomic.Bool
				silent.Store(op == "getcheckpoint")
				f.on(op, func(b []byte) reply {
					if silent.Swap(false) {
						return reply{hang: true}
					}
					r := reply{}
					if healthy != nil {
						r = healthy(b)
					}
					r.after = 20 * ms
					return r
				})
				s := fakeSubscriber(t, f, func(c *Config) { c.HeartbeatInterval, c.HeartbeatTimeout = 0, 0 })
				start := time.Now()
				go ackAll(subscribeTo(t, s))
				time.Sleep(time.Minute)
				silent.Store(op != "getcheckpoint")
				time.Sleep(time.Minute)
				longest := time.Duration(0)
				for _, gap := range gaps(f, op, start) {
					if op != "checkpoint" || gap != DefaultCheckpointInterval {
						longest = max(longest, gap)
					}
				}
				if longest < leastPatience || longest > leastPatience+time.Second {
					t.Errorf("the next call came %v after the one without an answer, want %v and a pause", longest, leastPatience)
				}
				s.Close()
			})
		})
	}
}
