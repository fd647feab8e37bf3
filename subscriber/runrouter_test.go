package subscriber_test

import (
	"context"
	"errors"
	"strings"
	"testing"
	"time"

	"github.com/ThreeDotsLabs/watermill"
	"github.com/ThreeDotsLabs/watermill/message"
	"github.com/ThreeDotsLabs/watermill/pubsub/gochannel"
	"github.com/aliyun/aliyun-tablestore-go-sdk/tunnel"

	"github.com/watermill-ots/watermill-ots/emulator"
	"github.com/watermill-ots/watermill-ots/internal/testbed"
	"github.com/watermill-ots/watermill-ots/ots"
	"github.com/watermill-ots/watermill-ots/subscriber"
)

// routed is a Router with a handler for each topic, run by RunRouter.
type routed struct {
	*message.Router
	subs  []*subscriber.Subscriber
	log   *recorded[logLine]
	ended chan error // RunRouter's
}

// runRouter runs a handler of each topic, each with a subscriber of its own, and those of more.
func runRouter(t *testing.T, ctx context.Context, b *testbed.Bed, closeTimeout time.Duration, more func(*message.Router), h message.NoPublishHandlerFunc, topics ...string) *routed {
	t.Helper()
	r := &routed{log: new(recorded[logLine]), ended: make(chan error, 1)}
	logger := keepLogger{lines: r.log}
	var err error
	if r.Router, err = message.NewRouter(message.RouterConfig{}, logger); err != nil {
		t.Fatal(err)
	}
	for _, topic := range topics {
		cfg := testbed.Config(b.Emulator.Endpoint())
		cfg.CloseTimeout = closeTimeout
		s, err := subscriber.New(cfg, logger)
		if err != nil {
			t.Fatal(err)
		}
		r.subs = append(r.subs, s)
		r.AddConsumerHandler(topic, topic, s, h)
	}
	if more != nil {
		more(r.Router)
	}
	go func() { r.ended <- subscriber.RunRouter(ctx, r.Router, r.subs...) }() // ends as the test says
	return r
}

// end waits for RunRouter.
func (r *routed) end(t *testing.T) error {
	t.Helper()
	select {
	case err := <-r.ended:
		return err
	case <-time.After(30 * time.Second):
		t.Fatal("RunRouter has not returned")
	}
	return nil
}

// awaitEnd waits for the end of a topic's subscription.
func (r *routed) awaitEnd(t *testing.T, topic int) {
	t.Helper()
	testbed.Eventually(t, 20*time.Second, "the subscription has ended", func() bool {
		subs := r.subs[topic].Status().Subscriptions
		return len(subs) == 1 && subs[0].Ended
	})
}

func nothing(*message.Message) error { return nil }

func deleteTunnel(t *testing.T, b *testbed.Bed, name string) {
	t.Helper()
	if _, err := b.Tunnels.DeleteTunnel(&tunnel.DeleteTunnelRequest{TableName: testbed.Table, TunnelName: name}); err != nil {
		t.Fatal(err)
	}
}

func createTunnel(t *testing.T, b *testbed.Bed, name string, typ tunnel.TunnelType) {
	t.Helper()
	if _, err := b.Tunnels.CreateTunnel(&tunnel.CreateTunnelRequest{TableName: testbed.Table, TunnelName: name, Type: typ}); err != nil {
		t.Fatal(err)
	}
}

func TestRunRouter_returns_why_its_subscription_ended_for_good(t *testing.T) {
	for name, end := range map[string]func(*testing.T, *testbed.Bed) error{
		"deleted": func(t *testing.T, b *testbed.Bed) error {
			deleteTunnel(t, b, testbed.Tunnel)
			return ots.ErrTunnelGone
		},
		"expired": func(t *testing.T, b *testbed.Bed) error {
			if err := b.Emulator.ExpireTunnel(testbed.Table, testbed.Tunnel); err != nil {
				t.Fatal(err)
			}
			return ots.ErrTunnelExpired
		},
	} {
		t.Run(name, func(t *testing.T) {
			b := testbed.New(t, emulator.Options{})
			b.CreateTunnel(tunnel.TunnelTypeStream)
			r := runRouter(t, t.Context(), b, 5*time.Second, nil, nothing, testbed.Topic)
			<-r.Running()
			want := end(t, b)
			if err := r.end(t); !errors.Is(err, want) || !strings.Contains(err.Error(), testbed.Topic) || !strings.Contains(err.Error(), "create it anew") {
				t.Errorf("RunRouter returned %v, want %v, the topic and what to do", err, want)
			}
		})
	}
}

func TestRunRouter_returns_nil_at_the_end_of_its_context_and_what_was_unsettled_if_not(t *testing.T) {
	t.Parallel()
	for name, want := range map[string]error{"all is settled": nil, "a handler hangs": subscriber.ErrDrainTimeout} {
		t.Run(name, func(t *testing.T) {
			b := testbed.New(t, emulator.Options{})
			b.CreateTunnel(tunnel.TunnelTypeStream)
			ctx, cancel := context.WithCancel(t.Context())
			entered := make(chan struct{}, 1)
			r := runRouter(t, ctx, b, 300*time.Millisecond, nil, func(msg *message.Message) error {
				entered <- struct{}{}
				if want != nil {
					<-msg.Context().Done()
					return msg.Context().Err()
				}
				return nil
			}, testbed.Topic)
			<-r.Running()
			put(t, b, "a", 1)
			<-entered
			cancel()
			if err := r.end(t); !errors.Is(err, want) {
				t.Errorf("RunRouter returned %v, want %v", err, want)
			}
		})
	}
}

func TestRunRouter_runs_on_while_one_subscription_does(t *testing.T) {
	b := testbed.New(t, emulator.Options{})
	createTunnel(t, b, "one", tunnel.TunnelTypeStream)
	createTunnel(t, b, "two", tunnel.TunnelTypeStream)
	ctx, cancel := context.WithCancel(t.Context())
	got := make(chan string, 10)
	r := runRouter(t, ctx, b, 5*time.Second, nil, func(msg *message.Message) error {
		got <- message.HandlerNameFromCtx(msg.Context())
		return nil
	}, testbed.Table+"/one", testbed.Table+"/two")
	<-r.Running()
	deleteTunnel(t, b, "one")
	r.awaitEnd(t, 0)
	put(t, b, "a", 1)
	for from := ""; from != testbed.Table+"/two"; { // the other one may have had it before
		select {
		case from = <-got:
		case <-time.After(10 * time.Second):
			t.Fatal("the other handler has stopped")
		}
	}
	select {
	case err := <-r.ended:
		t.Fatalf("RunRouter returned %v", err)
	default:
	}
	cancel()
	if err := r.end(t); !errors.Is(err, ots.ErrTunnelGone) {
		t.Errorf("RunRouter returned %v", err)
	}
}

// TestRunRouter_ends_well_when_all_was_read: also where the Router has a handler that
// reads something else, and would never end.
func TestRunRouter_ends_well_when_all_was_read(t *testing.T) {
	t.Parallel()
	b := testbed.New(t, emulator.Options{})
	b.PutAll(10, 1)
	createTunnel(t, b, "one", tunnel.TunnelTypeBaseData)
	createTunnel(t, b, "two", tunnel.TunnelTypeBaseData)
	other := gochannel.NewGoChannel(gochannel.Config{}, nil)
	release := make(chan struct{})
	r := runRouter(t, t.Context(), b, 5*time.Second, func(r *message.Router) {
		r.AddConsumerHandler("other", "other", other, nothing)
	}, func(msg *message.Message) error {
		if strings.HasSuffix(message.HandlerNameFromCtx(msg.Context()), "two") {
			<-release // so that the other one ends before
		}
		return nil
	}, testbed.Table+"/one", testbed.Table+"/two")
	r.awaitEnd(t, 0)
	select {
	case err := <-r.ended:
		t.Fatalf("RunRouter returned %v", err)
	case <-time.After(100 * time.Millisecond):
	}
	close(release)
	if err := r.end(t); err != nil {
		t.Errorf("RunRouter returned %v", err)
	}
	for _, line := range r.log.get() {
		if line.level == watermill.ErrorLogLevel {
			t.Errorf("an error was logged: %v %v", line.err, line.fields)
		}
	}
}

// TestStatus_shows_a_tunnel_that_could_not_be_subscribed_to, until that succeeds. A
// subscription that begins anew takes the error of the one before away.
func TestStatus_shows_a_tunnel_that_could_not_be_subscribed_to(t *testing.T) {
	b := testbed.New(t, emulator.Options{})
	s, err := subscriber.New(testbed.Config(b.Emulator.Endpoint()), nil)
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	if _, err := s.Subscribe(ctx, testbed.Topic); !errors.Is(err, ots.ErrTunnelGone) {
		t.Fatalf("Subscribe returned %v", err)
	}
	if st := only(t, s); !st.Ended || !strings.Contains(st.Fatal, "has no tunnel") || st.Topic != testbed.Topic || s.Err() != nil {
		t.Errorf("after Subscribe was refused: %+v, Err %v", st, s.Err())
	}
	b.CreateTunnel(tunnel.TunnelTypeStream)
	messages, err := s.Subscribe(ctx, testbed.Topic)
	if err != nil {
		t.Fatal(err)
	}
	deleteTunnel(t, b, testbed.Tunnel)
	awaitClosed(t, messages)
	if st := only(t, s); st.Fatal == "" || s.Err() == nil {
		t.Errorf("after the tunnel was deleted: %+v, Err %v", st, s.Err())
	}
	b.CreateTunnel(tunnel.TunnelTypeStream)
	if _, err := s.Subscribe(ctx, testbed.Topic); err != nil {
		t.Fatal(err)
	}
	if err := s.Err(); err != nil {
		t.Errorf("Err is %v while all is well", err)
	}
	for _, st := range s.Status().Subscriptions {
		if st.Fatal != "" {
			t.Errorf("all is well, but %+v", st)
		}
	}
}

func TestRunRouter_that_ends_before_it_has_subscribed_returns_nil(t *testing.T) {
	for name, fault := range map[string]emulator.Fault{
		"unreachable": {Operation: "tunnel/*", Times: -1, Break: emulator.BeforeRequest},
		"silent":      {Operation: "tunnel/*", Times: -1, Hang: true},
	} {
		t.Run(name, func(t *testing.T) {
			b := testbed.New(t, emulator.Options{})
			b.CreateTunnel(tunnel.TunnelTypeStream)
			if err := b.Emulator.Inject(fault); err != nil {
				t.Fatal(err)
			}
			ctx, cancel := context.WithCancel(t.Context())
			r := runRouter(t, ctx, b, time.Second, nil, func(*message.Message) error { return nil }, testbed.Topic)
			for b.Emulator.Stats().Faults == 0 { // the first try to subscribe
				time.Sleep(time.Millisecond)
			}
			cancel()
			if err := r.end(t); err != nil {
				t.Errorf("it ends with %v", err)
			}
		})
	}
}

func TestRunRouter_that_cannot_subscribe_says_why(t *testing.T) {
	b := testbed.New(t, emulator.Options{})
	r := runRouter(t, t.Context(), b, time.Second, nil, func(*message.Message) error { return nil }, testbed.Table+"/nothing")
	if err := r.end(t); !errors.Is(err, ots.ErrTunnelGone) {
		t.Errorf("it ends with %v", err)
	}
}
