package subscriber

import (
	"net/http"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/aliyun/aliyun-tablestore-go-sdk/tunnel/protocol"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/protoadapt"
)

func TestTrouble_says_within_seconds_what_fails_and_why(t *testing.T) {
	t.Parallel()
	status := func(code string) reply { return errorReply(http.StatusForbidden, code) }
	for name, tc := range map[string]struct {
		fail  func(f *fakeService)
		op    string
		code  string
		cause string
	}{
		"credentials refused":    {func(f *fakeService) { all(f, status("OTSAuthFailed")) }, "readrecords", "OTSAuthFailed", "refuses the credentials"},
		"unreachable":            {unreachable, "readrecords", "network", "cannot be reached"},
		"no answers":             {func(f *fakeService) { all(f, reply{hang: true}) }, "readrecords", "timeout", "does not answer in time"},
		"reads throttled":        {func(f *fakeService) { f.always("readrecords", status("OTSServerBusy")) }, "readrecords", "OTSServerBusy", "throttles the calls"},
		"position not known":     {func(f *fakeService) { f.always("readrecords", status("OTSParameterInvalid")) }, "readrecords", "OTSParameterInvalid", "does not know the channel or its position"},
		"garbage":                {func(f *fakeService) { f.always("readrecords", reply{body: []byte("garbage")}) }, "readrecords", "malformed", "do not decode"},
		"heartbeats refused":     {func(f *fakeService) { f.always("heartbeat", status("OTSNoPermissionAccess")) }, "heartbeat", "OTSNoPermissionAccess", "refuses the credentials"},
		"checkpoints refused":    {func(f *fakeService) { f.always("checkpoint", status("OTSNoPermissionAccess")) }, "checkpoint", "OTSNoPermissionAccess", "refuses the credentials"},
		"the service has faults": {func(f *fakeService) { f.always("readrecords", unavailable) }, "readrecords", "OTSTunnelServerUnavailable", "the service fails"},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				f := fakeTunnel(0)
				handsOutAgain(f, 0)
				n := int64(0) // records come, so that there is something to commit
				f.on("readrecords", func([]byte) reply {
					n++
					return pageReply("t"+strings.Repeat("x", int(n%7)), []*protocol.Record{someRecord(n)})
				})
				s := fakeSubscriber(t, f, nil)
				messages := subscribeTo(t, s)
				go func() { // ends with the output
					for msg := range messages {
						msg.Ack()
					}
				}()
				time.Sleep(20 * time.Second)
				if tr := only(t, s).Trouble; len(tr) != 0 {
					t.Fatalf("while all is well: %v", tr)
				}
				tc.fail(f)
				began := time.Now()
				time.Sleep(15 * time.Second)
				st := only(t, s)
				var found *Trouble
				for i := range st.Trouble {
					if st.Trouble[i].Op == tc.op {
						found = &st.Trouble[i]
					}
				}
				if found == nil {
					t.Fatalf("no trouble of %s in %v", tc.op, st.Trouble)
				}
				if found.Code != tc.code || !strings.Contains(found.Cause, tc.cause) || found.Failing != 1 || found.Of != 1 || !strings.Contains(found.String(), found.Cause) {
					t.Errorf("%+v: %s", *found, found)
				}
				if since := found.Since.Sub(began); since < -time.Second || since > 5*time.Second {
					t.Errorf("it fails since %v after it began to", since)
				}
				if err := closeWithin(t, s, 20*time.Second); err != nil {
					t.Logf("Close: %v", err)
				}
			})
		})
	}
}

// all makes every call but the description of the tunnel be answered so.
func all(f *fakeService, r reply) {
	for _, op := range []string{"connect", "heartbeat", "getcheckpoint", "readrecords", "checkpoint", "shutdown"} {
		f.always(op, r)
	}
}

func TestTrouble_is_over_with_the_first_success(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := fakeTunnel(0)
		s := fakeSubscriber(t, f, nil)
		subscribeTo(t, s)
		time.Sleep(time.Second)
		works := f.handlers["readrecords"]
		f.always("readrecords", unavailable)
		time.Sleep(20 * time.Second)
		if tr := only(t, s).Trouble; len(tr) != 1 || only(t, s).Channels[0].FailingSince.IsZero() {
			t.Errorf("while reads fail: %v", tr)
		}
		f.on("readrecords", works)
		time.Sleep(10 * time.Second) // the longest pause, and more
		if tr := only(t, s).Trouble; len(tr) != 0 || !only(t, s).Channels[0].FailingSince.IsZero() {
			t.Errorf("once reads succeed: %v", tr)
		}
		if err := s.Close(); err != nil {
			t.Error(err)
		}
	})
}

func TestTrouble_of_one_channel_counts_unless_it_is_only_throttled(t *testing.T) {
	for code, want := range map[string]int{"OTSInternalServerError": 1, "OTSServerBusy": 0} {
		synctest.Test(t, func(t *testing.T) {
			f := fakeTunnel(0).always("heartbeat", heartbeatReply("c1:1:OPEN", "c2:1:OPEN"))
			f.on("readrecords", func(body []byte) reply {
				var req protocol.ReadRecordsRequest
				if err := proto.Unmarshal(body, protoadapt.MessageV2Of(&req)); err != nil {
					panic(err)
				}
				if req.GetChannelId() == "c2" {
					return errorReply(http.StatusServiceUnavailable, code)
				}
				return pageReply(req.GetToken(), nil)
			})
			s := fakeSubscriber(t, f, nil)
			subscribeTo(t, s)
			time.Sleep(15 * time.Second)
			if tr := only(t, s).Trouble; len(tr) != want || want == 1 && (tr[0].Failing != 1 || tr[0].Of != 2) {
				t.Errorf("%s: %v", code, tr)
			}
			if err := s.Close(); err != nil {
				t.Error(err)
			}
		})
	}
}

func TestStatus_age_of_the_oldest_record_counts_from_when_it_came(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := fakeTunnel(0)
		first := true
		f.on("readrecords", func([]byte) reply {
			if !first {
				return pageReply("t1", nil)
			}
			first = false
			r := pageReply("t1", []*protocol.Record{someRecord(1)})
			r.after = 3 * time.Second // the answer takes its time
			return r
		})
		s := fakeSubscriber(t, f, func(c *Config) { c.CloseTimeout = time.Second })
		msg := <-subscribeTo(t, s)
		time.Sleep(7 * time.Second)
		if age := only(t, s).Channels[0].Oldest.Age; age != 7*time.Second {
			t.Errorf("the record came 7 s ago, and its age is %v", age)
		}
		msg.Ack()
		if err := s.Close(); err != nil {
			t.Error(err)
		}
	})
}
