package router_test

import (
	"context"
	"errors"
	"strings"
	"testing"

	"github.com/ThreeDotsLabs/watermill/message"
	"github.com/ThreeDotsLabs/watermill/pubsub/gochannel"

	"github.com/watermill-ots/watermill-ots/batching"
	"github.com/watermill-ots/watermill-ots/router"
	"github.com/watermill-ots/watermill-ots/subscriber"
)

// offline is a configuration for tests that never connect. more is YAML of the
// tunnel "numbers", indented by four spaces.
func offline(more string) string {
	return `instances:
  main: {name: i, endpoint: "http://127.0.0.1:1", access_key_id: a, access_key_secret: b}
tunnels:
  numbers:
    instance: main
    table_name: changes
    tunnel_name: consumer
` + more
}

type batchHandlers = map[string]func(context.Context, *batching.Batch) error

func noBatch(context.Context, *batching.Batch) error { return nil }

func noProcess(*message.Message) error { return nil }

func TestHandle(t *testing.T) {
	const two = "    batchers:\n      sqs: {batch_size: 2}\n      s3:\n        forward: {topic: bucket}\n"
	for _, c := range []struct {
		name, yaml, tunnel string
		handlers           router.Handlers
		want               string
	}{
		{"all names match", two, "numbers", router.Handlers{Process: noProcess, Batches: batchHandlers{"sqs": noBatch}}, ""},
		{"process alone", "", "numbers", router.Handlers{Process: noProcess}, ""},
		{"forward alone", "    forward: {topic: x}\n", "numbers", router.Handlers{}, ""},
		{"default batcher without process", "    batchers: {default: }\n", "numbers", router.Handlers{Batches: batchHandlers{"default": noBatch}}, ""},
		{"unknown tunnel", "", "number", router.Handlers{Process: noProcess},
			`test.yaml:3: tunnels: Handle is called for "number", but there is no such tunnel; did you mean "numbers"?`},
		{"batcher without handler", two, "numbers", router.Handlers{Process: noProcess},
			`test.yaml:9: tunnels.numbers.batchers.sqs: has no handler: add one to Handlers.Batches, or forward its batches to a publisher`},
		{"handler without batcher", two, "numbers", router.Handlers{Process: noProcess, Batches: batchHandlers{"sqs": noBatch, "sqss": noBatch}},
			`test.yaml:8: tunnels.numbers.batchers: Handlers.Batches has a handler for "sqss", but there is no such batcher; did you mean "sqs"?`},
		{"handler without any batcher", "", "numbers", router.Handlers{Process: noProcess, Batches: batchHandlers{"sqs": noBatch}},
			`test.yaml:4: tunnels.numbers.batchers: Handlers.Batches has a handler for "sqs", but there is no such batcher; there are no batchers`},
		{"handler of a forwarded batcher", two, "numbers", router.Handlers{Process: noProcess, Batches: batchHandlers{"sqs": noBatch, "s3": noBatch}},
			`test.yaml:10: tunnels.numbers.batchers.s3: forward publishes its batches, but Handlers.Batches has a handler too; keep one of them`},
		{"nil handler", two, "numbers", router.Handlers{Process: noProcess, Batches: batchHandlers{"sqs": nil}},
			`test.yaml:9: tunnels.numbers.batchers.sqs: its handler in Handlers.Batches is nil`},
		{"no message chooses a batcher", two, "numbers", router.Handlers{Batches: batchHandlers{"sqs": noBatch}},
			`test.yaml:8: tunnels.numbers.batchers: Handlers.Process is nil, so no message chooses a batcher, and none is called "default"`},
		{"nothing to do", "", "numbers", router.Handlers{},
			`test.yaml:4: tunnels.numbers: has nothing to do with its messages: set Handlers.Process, or add batchers or forward`},
		{"nil middleware", "", "numbers", router.Handlers{Process: noProcess, Middlewares: []message.HandlerMiddleware{nil}},
			`test.yaml:4: tunnels.numbers: Handlers.Middlewares[0] is nil`},
	} {
		t.Run(c.name, func(t *testing.T) {
			err := build(t, offline(c.yaml)).Handle(c.tunnel, c.handlers)
			got := ""
			if err != nil {
				got = err.Error()
				if !errors.Is(err, router.ErrInvalidConfig) {
					t.Error("the error does not wrap ErrInvalidConfig")
				}
			}
			if got != c.want {
				t.Errorf("got\n%s\nwant\n%s", got, c.want)
			}
		})
	}
	t.Run("twice", func(t *testing.T) {
		r := build(t, offline(""))
		if err := r.Handle("numbers", router.Handlers{Process: noProcess}); err != nil {
			t.Fatal(err)
		}
		err := r.Handle("numbers", router.Handlers{Process: noProcess})
		if err == nil || !strings.HasSuffix(err.Error(), "Handle is called twice for this tunnel") {
			t.Errorf("got %v", err)
		}
	})
}

func TestRun_reports_what_is_missing_before_it_connects(t *testing.T) {
	run := func(t *testing.T, yaml string, prepare func(*router.Router)) string {
		t.Helper()
		r := build(t, yaml)
		if prepare != nil {
			prepare(r)
		}
		err := r.Run(context.Background())
		if err == nil {
			t.Fatal("Run returned nil")
		}
		if closeErr := r.Close(); !errors.Is(closeErr, router.ErrInvalidConfig) {
			t.Errorf("Close: %v, want what Run returned", closeErr)
		}
		return err.Error()
	}
	t.Run("handlers_of_every_tunnel", func(t *testing.T) {
		got := run(t, offline("")+"  letters: {instance: main, table_name: letters, tunnel_name: consumer}\n", nil)
		want := `test.yaml:4: tunnels.numbers: has no handlers; call Handle("numbers", ...) before Run
test.yaml:8: tunnels.letters: has no handlers; call Handle("letters", ...) before Run`
		if got != want {
			t.Errorf("got\n%s\nwant\n%s", got, want)
		}
	})
	t.Run("registered_names", func(t *testing.T) {
		yaml := strings.Replace(offline("    payload: xml\n    forward: {publisher: kafak, topic: x}\n    failure: {dead_letter: {topic: y}}\n"), "access_key_id: a, access_key_secret: b", "credentials: ram", 1)
		got := run(t, yaml, func(r *router.Router) {
			if err := r.RegisterPublisher("kafka", gochannel.NewGoChannel(gochannel.Config{}, nil)); err != nil {
				t.Error(err)
			}
		})
		want := `test.yaml:2: instances.main.credentials: no credentials provider called "ram" is registered (RegisterCredentials); there are no registered names
test.yaml:8: tunnels.numbers.payload: no payload format called "xml" is registered (RegisterPayload); registered names are: canal, cloudevents, cloudevents-binary, debezium, function-compute, function-compute-json, json, none, raw
test.yaml:9: tunnels.numbers.forward: no publisher called "kafak" is registered (RegisterPublisher); did you mean "kafka"?
test.yaml:10: tunnels.numbers.failure.dead_letter: no publisher called "default" is registered (RegisterPublisher); registered names are: kafka`
		if got != want {
			t.Errorf("got\n%s\nwant\n%s", got, want)
		}
	})
}

func TestRegister(t *testing.T) {
	r := build(t, offline(""))
	pub := gochannel.NewGoChannel(gochannel.Config{}, nil)
	for _, c := range []struct {
		name string
		err  error
		want string
	}{
		{"publisher", r.RegisterPublisher("p", pub), ""},
		{"publisher twice", r.RegisterPublisher("p", pub), `invalid configuration: publisher "p" is registered already`},
		{"nil publisher", r.RegisterPublisher("q", nil), `invalid configuration: publisher "q" is nil`},
		{"payload", r.RegisterPayload("mine", subscriber.JSON{}), ""},
		{"payload json", r.RegisterPayload("json", subscriber.JSON{}), `invalid configuration: payload format "json" is registered already`},
		{"nil payload", r.RegisterPayload("nothing", nil), `invalid configuration: payload format "nothing" is nil`},
		{"nil credentials", r.RegisterCredentials("ram", nil), `invalid configuration: credentials provider "ram" is nil`},
	} {
		got := ""
		if c.err != nil {
			got = c.err.Error()
		}
		if got != c.want {
			t.Errorf("%s: got %q, want %q", c.name, got, c.want)
		}
	}
	if err := r.Close(); err != nil {
		t.Fatal(err)
	}
	if err := r.RegisterPublisher("late", pub); !errors.Is(err, router.ErrClosed) {
		t.Errorf("after Close: got %v", err)
	}
	if err := r.Run(context.Background()); !errors.Is(err, router.ErrClosed) {
		t.Errorf("Run after Close: got %v", err)
	}
}
