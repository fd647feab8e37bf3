package router_test

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/ThreeDotsLabs/watermill/message"
	"github.com/aliyun/aliyun-tablestore-go-sdk/tunnel"
	"github.com/cenkalti/backoff/v4"

	"github.com/watermill-ots/watermill-ots/emulator"
	"github.com/watermill-ots/watermill-ots/health"
	"github.com/watermill-ots/watermill-ots/internal/testbed"
	"github.com/watermill-ots/watermill-ots/ots"
	"github.com/watermill-ots/watermill-ots/router"
)

// pair is a router with two pipelines, "numbers" and "doomed", each with a tunnel of
// its own over one table, and what it says of itself.
type pair struct {
	*router.Router
	bed      *testbed.Bed
	log      logLines
	health   *health.Health
	observed map[string]router.Observed
	journals map[string]*journal
	ended    chan error // Run's
}

const doomed = "doomed"

// noCreate is tunnel: of a pipeline whose tunnel must be there.
const noCreate = "tunnel: {create: false}"

// twoPipelines is a configuration of two pipelines: more is further YAML of doomed,
// tunnel its "tunnel:".
func twoPipelines(bed *testbed.Bed, tunnel, more string) string {
	first := fileFor(bed, "")
	second := strings.SplitN(first, "  numbers:\n", 2)[1]
	second = strings.Replace(second, "tunnel_name: "+testbed.Tunnel, "tunnel_name: "+doomed, 1)
	second = strings.Replace(second, "tunnel: {create: true, type: Stream}", tunnel, 1)
	return first + "  doomed:\n" + second + more
}

// runPair runs two pipelines. asked has them run in a message.Router.
func runPair(t *testing.T, bed *testbed.Bed, asked bool, yaml string, before ...func(*router.Router)) *pair {
	t.Helper()
	p := &pair{
		bed: bed, log: logLines{all: new(lockedLines)}, observed: make(map[string]router.Observed),
		journals: map[string]*journal{"numbers": newJournal(), doomed: newJournal()}, ended: make(chan error, 1),
	}
	p.Router = buildLogging(t, yaml, p.log)
	var err error
	if p.health, err = health.New(health.Config{}); err != nil {
		t.Fatal(err)
	}
	for name, j := range p.journals {
		if err := p.Handle(name, router.Handlers{Process: func(msg *message.Message) error { j.add(msg); return nil }}); err != nil {
			t.Fatal(err)
		}
	}
	err = p.Observe(router.Observers{Start: func(pipelines []router.Observed) error {
		for _, o := range pipelines {
			p.observed[o.Name] = o
			p.health.AddSubscriber(o.Subscriber)
			p.health.AddCheck(o.Name, o.Ready)
		}
		return nil
	}})
	if err != nil {
		t.Fatal(err)
	}
	if asked {
		p.Watermill()
	}
	for _, f := range before {
		f(p.Router)
	}
	go func() { p.ended <- p.Run(context.Background()) }() // ends with Close, or by itself
	t.Cleanup(func() { _ = p.Close() })
	return p
}

func (p *pair) awaitRunning(t *testing.T) {
	t.Helper()
	select {
	case <-p.Running():
	case err := <-p.ended:
		t.Fatalf("Run ended at once: %v", err)
	case <-time.After(20 * time.Second):
		t.Fatal("it does not run")
	}
}

// awaitEnd waits until Run returns.
func (p *pair) awaitEnd(t *testing.T) error {
	t.Helper()
	select {
	case err := <-p.ended:
		return err
	case <-time.After(20 * time.Second):
		t.Fatal("Run has not returned")
	}
	return nil
}

// handles waits until a change that it writes has passed through a pipeline.
func (p *pair) handles(t *testing.T, name string) {
	t.Helper()
	before := p.journals[name].count()
	p.bed.PutAll(3, 1)
	testbed.Eventually(t, 20*time.Second, name+" handles changes", func() bool { return p.journals[name].count() >= before+3 })
}

// cannotStart is what the log says of a pipeline that never subscribed.
const cannotStart = "Pipeline cannot start: its table or tunnel does not exist, or has expired"

// wantDoomed wants everything to say that the doomed pipeline has ended with an
// error, and the other one to work.
func (p *pair) wantDoomed(t *testing.T, cause error) {
	t.Helper()
	testbed.Eventually(t, 20*time.Second, "the log says that the pipeline has ended", func() bool {
		return strings.Contains(p.log.text(), "Pipeline has ended: its tunnel is gone or expired") || strings.Contains(p.log.text(), cannotStart)
	})
	line := "no such line"
	for _, l := range strings.Split(p.log.text(), "\n") {
		if strings.HasPrefix(l, "Pipeline has ended") || strings.HasPrefix(l, cannotStart) {
			line = l
		}
	}
	for _, want := range []string{"tunnel:doomed", "others:1", "on_end:continue", testbed.Table + "/" + doomed} {
		if !strings.Contains(line, want) {
			t.Errorf("the log does not say %q: %s", want, line)
		}
	}
	if err := p.observed[doomed].Ready(); !errors.Is(err, cause) {
		t.Errorf("Ready returns %v, want %v", err, cause)
	}
	if err := p.observed["numbers"].Ready(); err != nil {
		t.Errorf("Ready of the other pipeline returns %v", err)
	}
	st := p.observed[doomed].Subscriber.Status().Subscriptions
	if len(st) != 1 || !st[0].Ended || st[0].Fatal == "" {
		t.Errorf("the status is %+v", st)
	}
	s := p.health.Snapshot()
	if s.Ready || !s.Live || !strings.Contains(strings.Join(s.NotReady, "\n"), testbed.Table+"/"+doomed) {
		t.Errorf("ready %v: %q; live %v: %q", s.Ready, s.NotReady, s.Live, s.NotLive)
	}
	p.handles(t, "numbers")
	select {
	case err := <-p.ended:
		t.Fatalf("Run ended: %v", err)
	default:
	}
	err := p.Close()
	if !errors.Is(err, cause) || !strings.Contains(err.Error(), "tunnels."+doomed) || strings.Contains(err.Error(), "tunnels.numbers") {
		t.Errorf("Close returned %v", err)
	}
	if ended := p.awaitEnd(t); !errors.Is(ended, cause) {
		t.Errorf("Run returned %v", ended)
	}
}

func deleteTunnel(t *testing.T, bed *testbed.Bed, name string) {
	t.Helper()
	if _, err := bed.Tunnels.DeleteTunnel(&tunnel.DeleteTunnelRequest{TableName: testbed.Table, TunnelName: name}); err != nil {
		t.Fatal(err)
	}
}

func createTunnel(t *testing.T, bed *testbed.Bed, name string, typ tunnel.TunnelType) (id string) {
	t.Helper()
	resp, err := bed.Tunnels.CreateTunnel(&tunnel.CreateTunnelRequest{TableName: testbed.Table, TunnelName: name, Type: typ})
	if err != nil {
		t.Fatal(err)
	}
	return resp.TunnelId
}

// both runs a test with the subscribers' own loops, and with a message.Router.
func both(t *testing.T, test func(t *testing.T, asked bool)) {
	for _, asked := range []bool{false, true} {
		t.Run(fmt.Sprintf("message_router_%v", asked), func(t *testing.T) {
			t.Parallel()
			test(t, asked)
		})
	}
}

// wantNotRecreated checks that no tunnel was recreated: without create, and if it has expired, that
// is not even tried.
func wantNotRecreated(t *testing.T, p *pair) {
	t.Helper()
	if strings.Contains(p.log.text(), "recreated") {
		t.Errorf("the log says that the tunnel is recreated:\n%s", p.log.text())
	}
}

func TestATunnelThatIsGoneOrExpiredEndsItsPipelineOnly(t *testing.T) {
	t.Parallel() // it waits in real time
	for name, c := range map[string]struct {
		tunnel string // of the pipeline
		end    func(*testing.T, *testbed.Bed)
		cause  error
	}{
		"deleted": {noCreate, func(t *testing.T, bed *testbed.Bed) { deleteTunnel(t, bed, doomed) }, ots.ErrTunnelGone},
		"expired": {"tunnel: {create: true, type: Stream}", func(t *testing.T, bed *testbed.Bed) { // create does not apply to it
			if err := bed.Emulator.ExpireTunnel(testbed.Table, doomed); err != nil {
				t.Fatal(err)
			}
		}, ots.ErrTunnelExpired},
	} {
		t.Run(name, func(t *testing.T) {
			both(t, func(t *testing.T, asked bool) {
				bed := testbed.New(t, emulator.Options{})
				createTunnel(t, bed, doomed, tunnel.TunnelTypeStream)
				p := runPair(t, bed, asked, twoPipelines(bed, c.tunnel, ""))
				p.awaitRunning(t)
				testbed.Eventually(t, 20*time.Second, "it is ready", func() bool { return p.health.Snapshot().Ready })
				p.handles(t, doomed)
				c.end(t, bed)
				p.wantDoomed(t, c.cause)
				if strings.Contains(p.log.text(), cannotStart) {
					t.Error("the log says that a pipeline that has run cannot start")
				}
				wantNotRecreated(t, p)
				// What a restart makes of it.
				p = runPair(t, bed, asked, twoPipelines(bed, c.tunnel, ""))
				p.awaitRunning(t)
				p.wantDoomed(t, c.cause)
				if !strings.Contains(p.log.text(), cannotStart) {
					t.Error("the log does not say that the pipeline cannot start")
				}
				wantNotRecreated(t, p)
			})
		})
	}
}

func TestRunReturnsWhenAllTunnelsAreGone(t *testing.T) {
	both(t, func(t *testing.T, asked bool) {
		bed := testbed.New(t, emulator.Options{})
		yaml := strings.ReplaceAll(twoPipelines(bed, noCreate, ""), "create: true, type: Stream", "create: false")
		bed.CreateTunnel(tunnel.TunnelTypeStream)
		createTunnel(t, bed, doomed, tunnel.TunnelTypeStream)
		p := runPair(t, bed, asked, yaml)
		p.awaitRunning(t)
		deleteTunnel(t, bed, doomed)
		deleteTunnel(t, bed, testbed.Tunnel)
		for _, phase := range []string{"while it runs", "at the start"} {
			err := p.awaitEnd(t)
			if !errors.Is(err, ots.ErrTunnelGone) || !strings.Contains(err.Error(), "tunnels.numbers") || !strings.Contains(err.Error(), "tunnels.doomed") {
				t.Errorf("%s: Run returned %v", phase, err)
			}
			if phase == "at the start" {
				break
			}
			p = runPair(t, bed, asked, yaml)
		}
		select {
		case <-p.Running():
			t.Error("Running is closed although nothing ran")
		default:
		}
	})
}

func TestOnEndStopEndsRunAtTheFirstEnd(t *testing.T) {
	both(t, func(t *testing.T, asked bool) {
		bed := testbed.New(t, emulator.Options{})
		createTunnel(t, bed, doomed, tunnel.TunnelTypeStream)
		yaml := twoPipelines(bed, noCreate, "    on_end: stop\n")
		p := runPair(t, bed, asked, yaml)
		p.awaitRunning(t)
		p.handles(t, "numbers")
		deleteTunnel(t, bed, doomed)
		if err := p.awaitEnd(t); !errors.Is(err, ots.ErrTunnelGone) {
			t.Errorf("Run returned %v", err)
		}
		p = runPair(t, bed, asked, yaml)
		if err := p.awaitEnd(t); !errors.Is(err, ots.ErrTunnelGone) {
			t.Errorf("at the start: Run returned %v", err)
		}
		select {
		case <-p.Running():
			t.Error("Running is closed although the start ended it")
		default:
		}
	})
}

func TestCreateMakesADeletedTunnelAnew(t *testing.T) {
	t.Parallel() // it waits in real time
	both(t, func(t *testing.T, asked bool) {
		bed := testbed.New(t, emulator.Options{})
		p := runPair(t, bed, asked, twoPipelines(bed, "tunnel: {create: true, type: Stream}", ""))
		p.awaitRunning(t)
		for range 2 {
			p.handles(t, doomed)
			deleteTunnel(t, bed, doomed)
			testbed.Eventually(t, 20*time.Second, "the tunnel is recreated", func() bool {
				_, err := bed.Tunnels.DescribeTunnel(&tunnel.DescribeTunnelRequest{TableName: testbed.Table, TunnelName: doomed})
				return err == nil && p.observed[doomed].Subscriber.Err() == nil
			})
		}
		p.handles(t, doomed)
		testbed.Eventually(t, 20*time.Second, "it is ready again", func() bool { return p.health.Snapshot().Ready })
		if text := p.log.text(); strings.Count(text, "Tunnel was deleted; it is recreated") != 2 || strings.Count(text, "Tunnel was recreated") != 2 {
			t.Errorf("the log does not say so: %s", text)
		}
		if err := errors.Join(p.Close(), p.awaitEnd(t)); err != nil {
			t.Errorf("what was healed is returned: %v", err)
		}
	})
}

func TestATunnelThatCannotBeMadeAnewEndsItsPipeline(t *testing.T) {
	t.Parallel() // it waits in real time
	both(t, func(t *testing.T, asked bool) {
		bed := testbed.New(t, emulator.Options{})
		p := runPair(t, bed, asked, twoPipelines(bed, "tunnel: {create: true, type: Stream}", ""))
		p.awaitRunning(t)
		bed.Emulator.Inject(emulator.Fault{Operation: "tunnel/create", Code: "OTSServerBusy", Times: 1})
		bed.Emulator.Inject(emulator.Fault{Operation: "tunnel/create", Code: "OTSNoPermissionAccess"})
		deleteTunnel(t, bed, doomed)
		p.wantDoomed(t, ots.ErrAuth)
		if !strings.Contains(p.log.text(), "Start failed; retrying") {
			t.Error("it was not retried")
		}
	})
}

func TestCloseDoesNotWaitForATunnelToBeMadeAnew(t *testing.T) {
	bed := testbed.New(t, emulator.Options{})
	p := runPair(t, bed, false, twoPipelines(bed, "tunnel: {create: true, type: Stream}", ""), func(r *router.Router) {
		router.SetRecreatePause(r, time.Minute)
	})
	p.awaitRunning(t)
	bed.Emulator.Inject(emulator.Fault{Operation: "tunnel/create", Code: "OTSServerBusy", Times: -1})
	deleteTunnel(t, bed, doomed)
	testbed.Eventually(t, 20*time.Second, "it is tried", func() bool { return strings.Contains(p.log.text(), "Start failed; retrying") })
	began := time.Now()
	if err := p.Close(); !errors.Is(err, ots.ErrTunnelGone) {
		t.Errorf("Close returned %v", err)
	}
	if took := time.Since(began); took > 10*time.Second {
		t.Errorf("Close took %v", took)
	}
}

// TestPipelinesThatWereReadToTheirEndsAreDone: a backfill beside a pipeline that continues,
// and alone.
func TestPipelinesThatWereReadToTheirEndsAreDone(t *testing.T) {
	t.Parallel() // it waits in real time
	both(t, func(t *testing.T, asked bool) {
		bed := testbed.New(t, emulator.Options{})
		bed.PutAll(10, 1)
		p := runPair(t, bed, asked, twoPipelines(bed, "tunnel: {create: true, type: BaseData}", "    on_end: stop\n"))
		p.awaitRunning(t)
		testbed.Eventually(t, 20*time.Second, "the backfill is done", func() bool {
			st := p.observed[doomed].Subscriber.Status().Subscriptions
			return len(st) == 1 && st[0].Ended && st[0].Finished
		})
		if n := p.journals[doomed].count(); n != 10 {
			t.Errorf("%d of 10 rows were handled", n)
		}
		p.handles(t, "numbers")
		if s := p.health.Snapshot(); !s.Ready || !s.Live {
			t.Errorf("not ready: %q, not live: %q", s.NotReady, s.NotLive)
		}
		if err := errors.Join(p.Close(), p.awaitEnd(t)); err != nil {
			t.Error(err)
		}

		yaml := strings.ReplaceAll(twoPipelines(bed, "tunnel: {create: true, type: BaseData}", ""), "type: Stream", "type: BaseData")
		deleteTunnel(t, bed, testbed.Tunnel)
		p = runPair(t, bed, asked, yaml) // one is done already
		if err := p.awaitEnd(t); err != nil || p.journals["numbers"].count() == 0 {
			t.Errorf("Run of backfills returned %v; %d rows", err, p.journals["numbers"].count())
		}
	})
}

// TestOnEndIsHeededWhenTheBrakeTrips: failure.stop_after ends a pipeline, too.
func TestOnEndIsHeededWhenTheBrakeTrips(t *testing.T) {
	bed := testbed.New(t, emulator.Options{})
	const brake = "    failure: {attempts: 1, dead_letter: {table: dead}, stop_after: {letters: 1, of: 2}}\n"
	for _, onEnd := range []string{"continue", "stop"} {
		log := logLines{all: new(lockedLines)}
		r := buildLogging(t, twoPipelines(bed, "tunnel: {create: true, type: Stream}", brake+"    on_end: "+onEnd+"\n"), log)
		j := newJournal()
		for name, process := range map[string]func(*message.Message) error{
			"numbers": func(msg *message.Message) error { j.add(msg); return nil },
			doomed:    func(*message.Message) error { return backoff.Permanent(errPoison) },
		} {
			if err := r.Handle(name, router.Handlers{Process: process}); err != nil {
				t.Fatal(err)
			}
		}
		ended := make(chan error, 1)
		go func() { ended <- r.Run(context.Background()) }() // ends with on_end, or Close
		<-r.Running()
		bed.PutAll(5, 1)
		testbed.Eventually(t, 20*time.Second, "the brake trips", func() bool { return strings.Contains(log.text(), "Pipeline is stopped") })
		if onEnd == "continue" {
			before := j.count()
			bed.PutAll(5, 1)
			testbed.Eventually(t, 20*time.Second, "the other one runs on", func() bool { return j.count() >= before+5 })
			_ = r.Close() // Run returns the same
		}
		var tooMany *router.TooManyLettersError
		select {
		case err := <-ended:
			if !errors.As(err, &tooMany) {
				t.Errorf("on_end: %s: Run returned %v", onEnd, err)
			}
		case <-time.After(20 * time.Second):
			t.Fatalf("on_end: %s: Run has not returned", onEnd)
		}
	}
}

func TestOnEndIsChecked(t *testing.T) {
	bed := testbed.New(t, emulator.Options{})
	_, err := router.Parse("test.yaml", []byte(fileFor(bed, "    on_end: stopp\n")))
	if err == nil || !strings.Contains(err.Error(), "on_end") || !strings.Contains(err.Error(), `"stop"`) {
		t.Errorf("got %v", err)
	}
}
