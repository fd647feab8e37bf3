package health_test

import (
	"errors"
	"net/http"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/ThreeDotsLabs/watermill/message"
	"github.com/aliyun/aliyun-tablestore-go-sdk/tablestore"

	"github.com/watermill-ots/watermill-ots/emulator"
	"github.com/watermill-ots/watermill-ots/internal/testbed"
	"github.com/watermill-ots/watermill-ots/subscriber"
)

func TestReadyz_fails_once_calls_have_failed_for_ten_seconds(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		began := time.Now()
		h := newHealth(t, fixed(func() subscriber.Status {
			s := working
			s.Trouble = []subscriber.Trouble{{Op: "readrecords", Since: began, Failing: 2, Of: 2, Cause: "the service refuses the credentials", Error: "OTSAuthFailed"}}
			return status(s)()
		}))
		time.Sleep(9 * time.Second)
		if w := get(h, "/readyz"); w.Code != http.StatusOK {
			t.Errorf("after 9 s: %d %s", w.Code, w.Body)
		}
		time.Sleep(time.Second)
		want := "not ready\n- orders/a: for 10s reads fail (2 of 2 channels): the service refuses the credentials: OTSAuthFailed\n"
		if w := get(h, "/readyz"); w.Code != http.StatusServiceUnavailable || w.Body.String() != want {
			t.Errorf("after 10 s: %d %q, want %q", w.Code, w.Body, want)
		}
		if w := get(h, "/livez"); w.Code != http.StatusOK {
			t.Errorf("a restart would not help: %d %s", w.Code, w.Body)
		}
	})
}

func TestSnapshot_distinguishes_faults_from_starts_and_ends(t *testing.T) {
	starting, failing := starting, disconnected
	starting.Started, failing.Started = time.Now(), time.Now()
	late := starting
	late.Started = time.Now().Add(-time.Minute)
	for name, c := range map[string]struct {
		sub   fixed
		fault bool
	}{
		"ready":                       {status(working), false},
		"connecting":                  {status(starting), false},
		"connecting for long":         {status(late), true},
		"not connected, for a reason": {status(failing), true},
		"draining":                    {status(draining), false},
		"ended":                       {status(over), false},
		"ended by itself":             {status(gone), true},
	} {
		if s := newHealth(t, c.sub).Snapshot(); s.Fault != c.fault {
			t.Errorf("%s: a fault is %v: %v", name, s.Fault, s.NotReady)
		}
	}
}

func TestSnapshot_counts_failing_checks_and_batchers_as_faults(t *testing.T) {
	h := newHealth(t, status(draining))
	if s := h.Snapshot(); s.Fault || s.Ready {
		t.Errorf("draining: %+v", s)
	}
	h.AddCheck("orders", func() error { return errors.New("nothing succeeds in Process") })
	if s := h.Snapshot(); !s.Fault || len(s.NotReady) != 2 {
		t.Errorf("with a check that fails: %v, %v", s.Fault, s.NotReady)
	}
}

// It runs a whole consumer with the default settings, whose heartbeats alone would not
// show a failure for minutes.
func TestReadyz_of_a_consumer_fails_within_15_seconds_of_its_calls_and_recovers(t *testing.T) {
	for name, fault := range map[string]emulator.Fault{
		"refused":     {Operation: "tunnel/*", Code: "OTSAuthFailed", Status: http.StatusForbidden},
		"unreachable": {Operation: "tunnel/*", Break: emulator.BeforeRequest},
		"silent":      {Operation: "tunnel/*", Hang: true},
		"reads fail":  {Operation: "tunnel/readrecords", Code: "OTSInternalServerError"},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				em, sub := consume(t)
				h := newHealth(t, sub)
				time.Sleep(time.Minute)
				if s := h.Snapshot(); !s.Ready {
					t.Fatalf("while all is well: %v", s.NotReady)
				}
				fault.Times = -1
				em.Inject(fault)
				time.Sleep(8 * time.Second)
				if s := h.Snapshot(); !s.Ready {
					t.Errorf("after 8 s: %v", s.NotReady)
				}
				time.Sleep(7 * time.Second)
				if s := h.Snapshot(); s.Ready || !s.Fault || !strings.Contains(strings.Join(s.NotReady, " "), "fail") || !s.Live {
					t.Errorf("after 15 s: ready %v, fault %v, %v; live %v", s.Ready, s.Fault, s.NotReady, s.Live)
				}
				em.ClearFaults()
				time.Sleep(40 * time.Second) // a call that hangs may take 30
				if s := h.Snapshot(); !s.Ready {
					t.Errorf("once all is well again: %v", s.NotReady)
				}
			})
		})
	}
}

// consume starts an emulator and a consumer in the bubble, which end with the test.
func consume(t *testing.T) (*emulator.Emulator, *subscriber.Subscriber) {
	t.Helper()
	em, err := emulator.Start(emulator.Options{Instance: testbed.Instance, AccessKeyID: testbed.KeyID, AccessKeySecret: testbed.KeySecret, InMemory: true})
	if err != nil {
		t.Fatal(err)
	}
	transport := em.Transport()
	cfg := tablestore.NewDefaultTableStoreConfig()
	cfg.Transport = transport
	if err := testbed.CreateTable(tablestore.NewClientWithConfig(em.Endpoint(), testbed.Instance, testbed.KeyID, testbed.KeySecret, "", cfg)); err != nil {
		t.Fatal(err)
	}
	sub, err := subscriber.New(subscriber.Config{
		Endpoint: em.Endpoint(), Instance: testbed.Instance, AccessKeyID: testbed.KeyID, AccessKeySecret: testbed.KeySecret,
		Transport: transport, AllowInsecure: true, Tunnel: subscriber.TunnelSpec{Type: subscriber.Stream},
	}, nil)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := sub.Close(); err != nil {
			t.Error(err)
		}
		transport.CloseIdleConnections()
		if err := em.Close(); err != nil {
			t.Error(err)
		}
	})
	if err := sub.SubscribeInitialize(testbed.Topic); err != nil {
		t.Fatal(err)
	}
	if _, err := sub.Handle(t.Context(), testbed.Topic, func(*message.Message) error { return nil }); err != nil {
		t.Fatal(err)
	}
	return em, sub
}
