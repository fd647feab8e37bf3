package router_test

import (
	"errors"
	"io"
	"net"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/watermill-ots/watermill-ots/emulator"
	"github.com/watermill-ots/watermill-ots/internal/testbed"
	"github.com/watermill-ots/watermill-ots/ots"
	"github.com/watermill-ots/watermill-ots/router"
)

// twoInstances is a configuration of two pipelines whose tunnels are in instances of their own.
func twoInstances(here, there *testbed.Bed) string {
	yaml := twoPipelines(here, "tunnel: {create: true, type: Stream}", "")
	yaml = strings.Replace(yaml, "instances:\n", "instances:\n  far: {name: "+testbed.Instance+", endpoint: \""+there.Emulator.Endpoint()+
		"\", access_key_id: "+testbed.KeyID+", access_key_secret: "+testbed.KeySecret+"}\n", 1)
	first, second, _ := strings.Cut(yaml, "  doomed:\n")
	return first + "  doomed:\n" + strings.Replace(second, "instance: main", "instance: far", 1)
}

// silent listens in a server's place, and answers nothing until answer is closed.
func silent(t *testing.T, server string) (addr string, answer chan struct{}) {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	answer = make(chan struct{})
	var passing sync.WaitGroup
	over := make(chan struct{})
	t.Cleanup(func() { close(over); l.Close(); passing.Wait() })
	passing.Go(func() { // ends with the listener
		for {
			client, err := l.Accept()
			if err != nil {
				return
			}
			select {
			case <-answer:
			case <-over:
				client.Close()
				return
			}
			conn, err := net.Dial("tcp", server)
			if err != nil {
				client.Close()
				continue
			}
			copy := func(to, from net.Conn) { // ends with either connection
				_, _ = io.Copy(to, from) // what is broken, is broken for both
				to.Close()
				from.Close()
			}
			passing.Go(func() { copy(conn, client) })
			passing.Go(func() { copy(client, conn) })
		}
	})
	return l.Addr().String(), answer
}

func impatient(r *router.Router) { router.SetPatience(r, 200*time.Millisecond) }

// TestPipelinesDoNotWaitForOneThatCannotReachItsService: it joins when it can.
func TestPipelinesDoNotWaitForOneThatCannotReachItsService(t *testing.T) {
	both(t, func(t *testing.T, asked bool) {
		here, there := testbed.New(t, emulator.Options{}), testbed.New(t, emulator.Options{})
		addr, answer := silent(t, strings.TrimPrefix(there.Emulator.Endpoint(), "http://"))
		p := runPair(t, here, asked, strings.Replace(twoInstances(here, there), there.Emulator.Endpoint(), "http://"+addr, 1), impatient)
		p.awaitRunning(t)
		p.handles(t, "numbers")
		if s := p.health.Snapshot(); s.Ready || !s.Live {
			t.Errorf("ready is %v, live %v", s.Ready, s.Live)
		}
		close(answer)
		testbed.Eventually(t, 20*time.Second, "both are ready", func() bool { return p.health.Snapshot().Ready })
		p.bed = there
		p.handles(t, doomed)
		for _, said := range []string{"Pipeline is not subscribed yet; the others run", "Pipeline is subscribed; it runs"} {
			if strings.Count(p.log.text(), said) != 1 {
				t.Errorf("the log does not say once: %s", said)
			}
		}
		if err := errors.Join(p.Close(), p.awaitEnd(t)); err != nil {
			t.Error(err)
		}
	})
}

func TestAPipelineThatIsRefusedAfterTheOthersBeganEndsAlone(t *testing.T) {
	t.Parallel() // it waits in real time
	both(t, func(t *testing.T, asked bool) {
		here, there := testbed.New(t, emulator.Options{}), testbed.New(t, emulator.Options{})
		there.Emulator.Inject(emulator.Fault{Operation: "tunnel/describe", Delay: time.Second, Code: "OTSAuthFailed"})
		p := runPair(t, here, asked, twoInstances(here, there), impatient)
		p.awaitRunning(t)
		testbed.Eventually(t, 20*time.Second, "the log says that it is refused", func() bool {
			return strings.Contains(p.log.text(), "Pipeline has ended: its tunnel cannot be subscribed to")
		})
		p.handles(t, "numbers")
		if err := p.observed[doomed].Ready(); !errors.Is(err, ots.ErrAuth) {
			t.Errorf("Ready returns %v", err)
		}
		if err := p.Close(); !errors.Is(err, ots.ErrAuth) {
			t.Errorf("Close returned %v", err)
		}
	})
}

func TestCloseDoesNotWaitForAPipelineThatCannotReachItsService(t *testing.T) {
	both(t, func(t *testing.T, asked bool) {
		here, there := testbed.New(t, emulator.Options{}), testbed.New(t, emulator.Options{})
		there.Emulator.Inject(emulator.Fault{Operation: "tunnel/describe", Hang: true, Times: -1})
		p := runPair(t, here, asked, twoInstances(here, there), impatient)
		p.awaitRunning(t)
		began := time.Now()
		if err := errors.Join(p.Close(), p.awaitEnd(t)); err != nil {
			t.Errorf("Close returned %v", err)
		}
		if took := time.Since(began); took > 10*time.Second {
			t.Errorf("it took %v", took)
		}
	})
}

// TestRunFailsAtOnceAlthoughAnotherPipelineCannotReachItsService: a lasting error is
// returned although another pipeline has a transient one.
func TestRunFailsAtOnceAlthoughAnotherPipelineCannotReachItsService(t *testing.T) {
	t.Parallel() // it waits in real time
	here, there := testbed.New(t, emulator.Options{}), testbed.New(t, emulator.Options{})
	there.Emulator.Inject(emulator.Fault{Operation: "tunnel/describe", Hang: true, Times: -1})
	here.Emulator.Inject(emulator.Fault{Operation: "tunnel/describe", Code: "OTSAuthFailed", Times: -1})
	began := time.Now()
	p := runPair(t, here, false, twoInstances(here, there))
	if err := p.awaitEnd(t); !errors.Is(err, ots.ErrAuth) || !strings.Contains(err.Error(), "tunnels.numbers") {
		t.Errorf("Run returned %v", err)
	}
	if took := time.Since(began); took > 8*time.Second {
		t.Errorf("it took %v", took)
	}
}
