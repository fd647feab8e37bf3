package router_test

import (
	"context"
	"fmt"
	"runtime"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/ThreeDotsLabs/watermill"
	"github.com/ThreeDotsLabs/watermill/message"

	"github.com/watermill-ots/watermill-ots/batching"
	"github.com/watermill-ots/watermill-ots/emulator"
	"github.com/watermill-ots/watermill-ots/internal/testbed"
	"github.com/watermill-ots/watermill-ots/ots"
	"github.com/watermill-ots/watermill-ots/router"
)

// fileFor is a configuration with times short enough for tests. more is
// further YAML of the tunnel, indented by four spaces.
func fileFor(bed *testbed.Bed, more string) string {
	return fmt.Sprintf(`
instances:
  main:
    name: %s
    endpoint: %s
    access_key_id: %s
    access_key_secret: %s
tunnels:
  numbers:
    instance: main
    table_name: %s
    tunnel_name: %s
    heartbeat_interval: 500ms
    heartbeat_timeout: 20s
    checkpoint_interval: 50ms
    max_poll_interval: 20ms
    close_timeout: 5s
    tunnel: {create: true, type: Stream}
%s`, testbed.Instance, bed.Emulator.Endpoint(), testbed.KeyID, testbed.KeySecret, testbed.Table, testbed.Tunnel, more)
}

// start runs a router until the test ends, and expects it to end cleanly.
func start(t *testing.T, r *router.Router) {
	t.Helper()
	ended := make(chan error, 1)
	go func() { ended <- r.Run(context.Background()) }() // ends with Close
	t.Cleanup(func() {
		if err := r.Close(); err != nil {
			t.Errorf("Close: %v", err)
		}
		if err := <-ended; err != nil {
			t.Errorf("Run: %v", err)
		}
	})
	select {
	case <-r.Running():
	case err := <-ended:
		ended <- err
		t.Fatalf("Run ended at once: %v", err)
	}
}

func build(t *testing.T, yaml string) *router.Router {
	t.Helper()
	return buildLogging(t, yaml, nil)
}

func buildLogging(t *testing.T, yaml string, logger watermill.LoggerAdapter) *router.Router {
	t.Helper()
	cfg, err := router.Parse("test.yaml", []byte(yaml))
	if err != nil {
		t.Fatal(err)
	}
	r, err := router.New(cfg, logger)
	if err != nil {
		t.Fatal(err)
	}
	return r
}

// version is the number that the testbed's rows carry.
func version(msg *message.Message) int64 {
	rec, ok := ots.RecordFromMessage(msg)
	if !ok {
		return -1
	}
	v, _ := rec.Column("v")
	return v.Int64()
}

func TestRouterRunsAPipeline(t *testing.T) {
	bed := testbed.New(t, emulator.Options{})
	r := build(t, fileFor(bed, `
    processors: {concurrency: 2}
    batchers:
      even: {concurrency: 2, batch_size: 20, batch_timeout: 50ms}
      odd: {stages: 1, batch_timeout: 50ms}
`))
	var mu sync.Mutex
	got := map[string]int{}
	largest, inProcess, mostInProcess := 0, 0, 0
	processing := func(n int) {
		mu.Lock()
		defer mu.Unlock()
		inProcess += n
		mostInProcess = max(mostInProcess, inProcess)
	}
	collect := func(remainder int64) func(context.Context, *batching.Batch) error {
		return func(_ context.Context, b *batching.Batch) error {
			mu.Lock()
			defer mu.Unlock()
			largest = max(largest, len(b.Messages))
			for _, m := range b.Messages {
				if version(m)%2 != remainder {
					t.Errorf("batcher %s got version %d", b.Batcher, version(m))
				}
				got[m.UUID]++
			}
			return nil
		}
	}
	err := r.Handle("numbers", router.Handlers{
		Process: func(msg *message.Message) error {
			processing(1)
			defer processing(-1)
			runtime.Gosched() // give others a chance to come in
			return evenOrOdd(msg)
		},
		Batches: map[string]func(context.Context, *batching.Batch) error{"even": collect(0), "odd": collect(1)},
	})
	if err != nil {
		t.Fatal(err)
	}
	const keys, versions = 50, 4
	start(t, r)
	bed.PutAll(keys, versions)
	testbed.Eventually(t, 20*time.Second, "every change was handled", func() bool {
		mu.Lock()
		defer mu.Unlock()
		return len(got) == keys*versions
	})
	if err := r.Close(); err != nil {
		t.Fatal(err)
	}
	if mostInProcess > 2 {
		t.Errorf("%d messages were processed at once", mostInProcess)
	}
	if largest < 2 || largest > 100 {
		t.Errorf("largest batch has %d messages", largest)
	}
	for id, n := range got {
		if n != 1 {
			t.Errorf("%s was handled %d times", id, n)
		}
	}
}

func TestRouterServesSeveralInstances(t *testing.T) {
	here, there := testbed.New(t, emulator.Options{}), testbed.New(t, emulator.Options{})
	main, _ := strings.CutPrefix(fileFor(here, ""), "\ninstances:\n")
	other, _ := strings.CutPrefix(fileFor(there, ""), "\ninstances:\n")
	mainInstance, mainTunnel, _ := strings.Cut(main, "tunnels:\n")
	otherInstance, otherTunnel, _ := strings.Cut(other, "tunnels:\n")
	r := build(t, "instances:\n"+mainInstance+strings.Replace(otherInstance, "main:", "other:", 1)+
		"tunnels:\n"+mainTunnel+strings.NewReplacer("numbers:", "far:", "instance: main", "instance: other").Replace(otherTunnel))
	journals := map[string]*journal{"numbers": newJournal(), "far": newJournal()}
	for name, j := range journals {
		if err := r.Handle(name, router.Handlers{Process: func(msg *message.Message) error { j.add(msg); return nil }}); err != nil {
			t.Fatal(err)
		}
	}
	start(t, r)
	here.PutAll(2, 1)
	there.PutAll(3, 2)
	testbed.Eventually(t, 20*time.Second, "each pipeline has the changes of its instance", func() bool {
		return journals["numbers"].count() == 2 && journals["far"].count() == 6
	})
}
