package router_test

import (
	"errors"
	"strings"
	"testing"
	"time"

	"github.com/aliyun/aliyun-tablestore-go-sdk/tunnel"

	"github.com/watermill-ots/watermill-ots/emulator"
	"github.com/watermill-ots/watermill-ots/internal/testbed"
	"github.com/watermill-ots/watermill-ots/ots"
	"github.com/watermill-ots/watermill-ots/subscriber"
)

func TestClose_gives_back_at_once_what_waits_for_a_pipeline_that_is_not_subscribed(t *testing.T) {
	both(t, func(t *testing.T, asked bool) {
		here, there := testbed.New(t, emulator.Options{}), testbed.New(t, emulator.Options{})
		there.Emulator.Inject(emulator.Fault{Operation: "tunnel/describe", Hang: true, Times: -1})
		p := runPair(t, here, asked, twoInstances(here, there)) // the usual patience: 10 s
		testbed.Eventually(t, 8*time.Second, "numbers is connected", func() bool {
			return here.Emulator.Stats().Operations["tunnel/readrecords"].Requests > 0
		})
		here.PutAll(3, 1)
		testbed.Eventually(t, 8*time.Second, "its messages wait", func() bool {
			subs := p.observed["numbers"].Subscriber.Status().Subscriptions
			return len(subs) == 1 && subs[0].InFlight == 3
		})
		// A drain that waited for them would end in ErrDrainTimeout.
		if err := errors.Join(p.Close(), p.awaitEnd(t)); err != nil {
			t.Error(err)
		}
	})
}

func TestRun_fails_at_once_although_messages_wait(t *testing.T) {
	t.Parallel() // it waits in real time
	both(t, func(t *testing.T, asked bool) {
		here, there := testbed.New(t, emulator.Options{}), testbed.New(t, emulator.Options{})
		here.CreateTunnel(tunnel.TunnelTypeStream)
		here.PutAll(3, 1)
		there.Emulator.Inject(emulator.Fault{Operation: "tunnel/describe", Delay: time.Second, Code: "OTSAuthFailed"})
		p := runPair(t, here, asked, twoInstances(here, there))
		if err := p.awaitEnd(t); !errors.Is(err, ots.ErrAuth) || errors.Is(err, subscriber.ErrDrainTimeout) {
			t.Errorf("Run returned %v", err)
		}
	})
}

func TestPipeline_ends_when_its_tunnel_was_recreated_with_another_type(t *testing.T) {
	t.Parallel() // it waits in real time
	bed := testbed.New(t, emulator.Options{})
	p := runPair(t, bed, false, twoPipelines(bed, "tunnel: {create: true, type: Stream}", ""))
	p.awaitRunning(t)
	bed.Emulator.Inject(emulator.Fault{Operation: "tunnel/create", Delay: 2 * time.Second, Times: 1})
	deleteTunnel(t, bed, doomed)
	testbed.Eventually(t, 20*time.Second, "the pipeline's request to create the tunnel is under way", func() bool { return bed.Emulator.Stats().Faults == 1 })
	createTunnel(t, bed, doomed, tunnel.TunnelTypeBaseStream) // before that is handled
	p.wantDoomed(t, subscriber.ErrTunnelType)
}

func TestLiveness_is_good_while_the_last_tunnels_are_recreated(t *testing.T) {
	bed := testbed.New(t, emulator.Options{})
	p := runPair(t, bed, false, twoPipelines(bed, "tunnel: {create: true, type: Stream}", ""))
	p.awaitRunning(t)
	bed.Emulator.Inject(emulator.Fault{Operation: "tunnel/create", Code: "OTSServerBusy", Times: -1})
	deleteTunnel(t, bed, doomed)
	deleteTunnel(t, bed, testbed.Tunnel)
	testbed.Eventually(t, 20*time.Second, "both are tried", func() bool {
		return strings.Count(p.log.text(), "Tunnel was deleted; it is recreated") == 2
	})
	// Not at once: both subscriptions have ended until the first try to create a tunnel fails.
	testbed.Eventually(t, 10*time.Second, "it is live", func() bool { return p.health.Snapshot().Live })
}

// The service of one pipeline is busy from the start.
func TestReady_says_that_a_pipeline_is_not_subscribed(t *testing.T) {
	here, there := testbed.New(t, emulator.Options{}), testbed.New(t, emulator.Options{})
	there.Emulator.Inject(emulator.Fault{Operation: "tunnel/describe", Code: "OTSServerBusy", Times: -1})
	p := runPair(t, here, false, twoInstances(here, there), impatient)
	p.awaitRunning(t)
	testbed.Eventually(t, 15*time.Second, "the check, and the page in red, name the pipeline", func() bool {
		snap := p.health.Snapshot()
		return p.observed[doomed].Ready() != nil && !snap.Ready && snap.Fault && strings.Contains(strings.Join(snap.NotReady, "; "), doomed)
	})
}
