package subscriber

import (
	"errors"
	"fmt"
	"net/http"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/aliyun/aliyun-tablestore-go-sdk/tunnel/protocol"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/protoadapt"

	"github.com/watermill-ots/watermill-ots/internal/plainbuffer"
)

// alarms collects what Config.OnAlarm is called with.
type alarms struct {
	mu  sync.Mutex
	all []Alarm
}

func (a *alarms) add(alarm Alarm) {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.all = append(a.all, alarm)
}

func (a *alarms) near() (near []Alarm) {
	a.mu.Lock()
	defer a.mu.Unlock()
	for _, alarm := range a.all {
		if alarm.Kind == RetentionNear {
			near = append(near, alarm)
		}
	}
	return near
}

// of counts the alarms of a kind.
func (a *alarms) of(kind AlarmKind) (n int) {
	a.mu.Lock()
	defer a.mu.Unlock()
	for _, alarm := range a.all {
		if alarm.Kind == kind {
			n++
		}
	}
	return n
}

// keeps sets how long the stream of the subscriber's only subscription keeps records.
func keeps(s *Subscriber, retention time.Duration) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.subscriptions[0].retention.known.Store(int64(retention))
}

// oldRecord is a record that was written at that time.
func oldRecord(at time.Time) *protocol.Record {
	return wireRecord(protocol.ActionType_PUT_ROW, &plainbuffer.Row{
		PrimaryKey:  []plainbuffer.Cell{wireCell("k", plainbuffer.StringValue("old"), 0)},
		HasSequence: true, Sequence: plainbuffer.Sequence{Timestamp: at.UnixMicro()},
	}, nil)
}

func TestRetentionNear_is_raised_in_the_last_tenth_of_what_the_stream_keeps(t *testing.T) {
	t.Parallel()
	for name, tc := range map[string]struct {
		age, retention time.Duration
		want           int
	}{
		"young":                      {time.Hour, 24 * time.Hour, 0},
		"just before the last tenth": {21*time.Hour + 30*time.Minute, 24 * time.Hour, 0},
		"in the last tenth":          {21*time.Hour + 37*time.Minute, 24 * time.Hour, 1},
		"older than the log":         {25 * time.Hour, 24 * time.Hour, 1},
		"retention not known":        {25 * time.Hour, 0, 0},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				written := time.Now().Add(-tc.age)
				f := fakeTunnel(0).on("readrecords", func([]byte) reply { return pageReply("t1", []*protocol.Record{oldRecord(written)}) })
				var raised alarms
				s := fakeSubscriber(t, f, func(c *Config) { c.OnAlarm, c.MaxInFlight, c.CloseTimeout = raised.add, 1, time.Second })
				<-subscribeTo(t, s) // and not settled
				keeps(s, tc.retention)
				time.Sleep(80 * time.Second) // a look
				near := raised.near()
				if len(near) != tc.want {
					t.Fatalf("%d alarms, want %d: %+v", len(near), tc.want, near)
				}
				if tc.want == 1 {
					if a := near[0]; a.Key != `["old"]` || a.Attempt != 1 || a.Topic != "table/tunnel" || a.Channel != "c1" || a.Retention != tc.retention || a.Age < tc.age || a.Age > tc.age+80*time.Second {
						t.Errorf("the alarm is %+v", a)
					}
					time.Sleep(75 * time.Second) // the next look, within StuckAfter
					if near := raised.near(); len(near) != 1 {
						t.Errorf("%d alarms within StuckAfter", len(near))
					}
					time.Sleep(5 * time.Minute)
					if near := raised.near(); len(near) != 2 {
						t.Errorf("%d alarms after another StuckAfter", len(near))
					}
				}
				if err := s.Close(); !errors.Is(err, ErrDrainTimeout) {
					t.Errorf("Close: %v", err)
				}
			})
		})
	}
}

func TestRetentionNear_counts_while_nothing_can_be_read_opened_or_connected(t *testing.T) {
	t.Parallel()
	refused := errorReply(http.StatusForbidden, "OTSAuthFailed")
	for name, tc := range map[string]struct {
		fail    func(f *fakeService)
		channel string
		begin   time.Duration // how long all goes well before
		away    time.Duration // until a channel that was given back is handed out again
	}{
		"reads refused from the start": {func(f *fakeService) { f.always("readrecords", refused) }, "c1", 0, 0},
		"reads refused later":          {func(f *fakeService) { f.always("readrecords", refused) }, "c1", time.Minute, 0},
		"channels that cannot be read": {func(f *fakeService) {
			f.always("readrecords", errorReply(http.StatusBadRequest, "OTSParameterInvalid"))
		}, "c1", 0, 0},
		"channels that are away at each look": {func(f *fakeService) {
			f.always("readrecords", errorReply(http.StatusBadRequest, "OTSParameterInvalid"))
		}, "c1", 0, 12 * time.Second},
		"checkpoints cannot be read":     {func(f *fakeService) { f.always("getcheckpoint", refused) }, "c1", 0, 0},
		"heartbeats refused, then all":   {func(f *fakeService) { f.always("heartbeat", refused).always("connect", refused) }, "c1", time.Minute, 0},
		"unreachable from the start":     {func(f *fakeService) { f.always("connect", reply{err: errNetwork}) }, "", 0, 0},
		"unreachable in the whole later": {func(f *fakeService) { unreachable(f) }, "c1", time.Minute, 0},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				f := fakeTunnel(0)
				handsOutAgain(f, tc.away)
				var raised alarms
				s := fakeSubscriber(t, f, func(c *Config) { c.OnAlarm, c.MaxPollInterval = raised.add, 10*time.Second })
				if tc.begin == 0 {
					tc.fail(f)
				}
				subscribeTo(t, s)
				time.Sleep(tc.begin)
				tc.fail(f)
				began := time.Now()
				time.Sleep(time.Second)
				keeps(s, 30*time.Minute)
				time.Sleep(26*time.Minute + 30*time.Second)
				if near := raised.near(); len(near) != 0 {
					t.Fatalf("before the last tenth: %+v", near)
				}
				time.Sleep(90 * time.Second)
				near := raised.near()
				if len(near) != 1 || near[0].Channel != tc.channel || near[0].Key != "" {
					t.Fatalf("the alarms are %+v", near)
				}
				// While heartbeats alone are refused, reads continue until the session is lost.
				if lag := only(t, s).Lag; lag < time.Since(began)-30*time.Second || lag > time.Since(began)+20*time.Second {
					t.Errorf("the lag is %v after %v", lag, time.Since(began))
				}
				if err := closeWithin(t, s, 20*time.Second); err != nil {
					t.Errorf("Close: %v", err)
				}
			})
		})
	}
}

// handsOutAgain makes the service hand channel c1 out again when its client has given it
// back: with the first heartbeat after it was away for that long.
func handsOutAgain(f *fakeService, away time.Duration) {
	version := int64(1)
	var closed time.Time
	f.on("heartbeat", func(body []byte) reply {
		var req protocol.HeartbeatRequest
		if err := proto.Unmarshal(body, protoadapt.MessageV2Of(&req)); err != nil {
			panic(err)
		}
		for _, c := range req.Channels {
			if c.GetStatus() == protocol.ChannelStatus_CLOSE && c.GetVersion() >= version {
				version = c.GetVersion() + 1
				closed = time.Now()
			}
		}
		if time.Since(closed) < away {
			return heartbeatReply()
		}
		return heartbeatReply(fmt.Sprintf("c1:%d:OPEN", version))
	})
}

// unreachable makes every call fail on the way.
func unreachable(f *fakeService) {
	for _, op := range []string{"connect", "heartbeat", "getcheckpoint", "readrecords", "checkpoint", "describe", "getrpo", "shutdown"} {
		f.always(op, reply{err: errNetwork})
	}
}

// only returns the status of the one subscription there is.
func only(t *testing.T, s *Subscriber) SubscriptionStatus {
	t.Helper()
	st := s.Status()
	if len(st.Subscriptions) != 1 {
		t.Fatalf("%d subscriptions, want one", len(st.Subscriptions))
	}
	return st.Subscriptions[0]
}

func TestRetentionNear_of_a_callback_that_closes_or_panics_ends_nothing_else(t *testing.T) {
	for name, callback := range map[string]func(s *Subscriber){
		"closes": func(s *Subscriber) {
			if err := s.Close(); err != nil {
				panic(err)
			}
		},
		"panics": func(*Subscriber) { panic("no") },
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				f := fakeTunnel(0).always("readrecords", unavailable)
				var s *Subscriber
				called := make(chan struct{})
				s = fakeSubscriber(t, f, func(c *Config) {
					c.OnAlarm = func(Alarm) {
						close(called)
						callback(s)
					}
				})
				messages := subscribeTo(t, s)
				keeps(s, time.Minute)
				<-called
				if name == "closes" { // two calls of Close at once wait for a lock, which no synctest clock sees
					if _, open := <-messages; open {
						t.Error("a message")
					}
				}
				if err := closeWithin(t, s, 20*time.Second); err != nil {
					t.Errorf("Close: %v", err)
				}
				if _, open := <-messages; open {
					t.Error("a message")
				}
			})
		})
	}
}

func TestRetentionNear_is_not_raised_of_base_data_nor_of_channels_that_others_have(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		f := fakeTunnel(0)
		var raised alarms
		s := fakeSubscriber(t, f, func(c *Config) { c.OnAlarm, c.MaxPollInterval = raised.add, 10*time.Second })
		subscribeTo(t, s)
		time.Sleep(time.Minute)
		keeps(s, 20*time.Minute)
		f.always("heartbeat", heartbeatReply()) // the service has given the channel to another client
		time.Sleep(40 * time.Minute)
		if near := raised.near(); len(near) != 0 {
			t.Errorf("alarms of a channel that another client has: %+v", near)
		}
		if lag := only(t, s).Lag; lag != 0 {
			t.Errorf("the lag is %v without a channel", lag)
		}
		all(f, reply{err: errNetwork})
		time.Sleep(10 * time.Minute)
		if lag := only(t, s).Lag; lag > 11*time.Minute || lag < 9*time.Minute {
			t.Errorf("the lag is %v although it has not heard of any channel for 10 minutes only", lag)
		}
		if err := s.Close(); err != nil {
			t.Error(err)
		}
	})
}

func TestLag_of_a_lost_channel_counts_from_what_was_not_acked(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		written := time.Now().Add(-2 * time.Hour)
		f := fakeTunnel(0)
		first := true
		f.on("readrecords", func([]byte) reply {
			if !first {
				return pageReply("t1", nil)
			}
			first = false
			return pageReply("t1", []*protocol.Record{oldRecord(written)})
		})
		s := fakeSubscriber(t, f, nil)
		<-subscribeTo(t, s) // and not settled
		time.Sleep(time.Second)
		all(f, reply{err: errNetwork})
		time.Sleep(10 * time.Minute) // the session, and with it the channel, is lost
		st := only(t, s)
		if st.Connected || len(st.Channels) != 0 || st.Lag != time.Since(written) {
			t.Errorf("connected %v, %d channels, the lag is %v, not %v", st.Connected, len(st.Channels), st.Lag, time.Since(written))
		}
		_ = closeWithin(t, s, 20*time.Second)
	})
}
