package router_test

import (
	"context"
	"errors"
	"testing"

	"github.com/ThreeDotsLabs/watermill/message"
	"github.com/ThreeDotsLabs/watermill/pubsub/gochannel"

	"github.com/watermill-ots/watermill-ots/batching"
	"github.com/watermill-ots/watermill-ots/publisher"
	"github.com/watermill-ots/watermill-ots/router"
)

// A publisher that cannot take every letter is refused before anything runs.
func TestDeadLetters_are_not_given_to_a_publisher_of_limited_messages(t *testing.T) {
	rows, err := publisher.New(publisher.Config{Endpoint: "http://127.0.0.1:1", Instance: "i", AccessKeyID: "a", AccessKeySecret: "b"}, nil)
	if err != nil {
		t.Fatal(err)
	}
	memory := gochannel.NewGoChannel(gochannel.Config{}, nil)
	batched := func(pub message.Publisher) message.Publisher {
		p, err := batching.NewPublisher(pub, batching.Batcher{}, nil)
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() {
			if err := p.Close(); err != nil {
				t.Error(err)
			}
		})
		return p
	}
	const want = `test.yaml:8: tunnels.numbers.failure.dead_letter: the publisher called "letters" takes messages of at most 2097152 bytes, but a dead letter holds a whole row and may be larger: it could never be kept; use dead_letter.table, which keeps letters of any size`
	const topic, table = "    failure: {dead_letter: {publisher: letters, topic: dead}}\n", "    forward: {publisher: letters, topic: rows}\n    failure: {dead_letter: {table: dead}}\n"
	for name, c := range map[string]struct {
		yaml      string
		publisher message.Publisher
		want      string // "" if it is accepted
	}{
		"rows of a table":                    {topic, rows, want},
		"rows of a table, in batches":        {topic, batched(rows), want},
		"messages of any size":               {topic, memory, ""},
		"messages of any size, in batches":   {topic, batched(memory), ""},
		"rows of a table for other messages": {table, rows, ""},
	} {
		t.Run(name, func(t *testing.T) {
			r := build(t, offline(c.yaml))
			if err := r.RegisterPublisher("letters", c.publisher); err != nil {
				t.Fatal(err)
			}
			if err := r.Handle("numbers", router.Handlers{Process: noProcess}); err != nil {
				t.Fatal(err)
			}
			ctx, stop := context.WithCancel(context.Background())
			stop() // what is accepted ends at once
			err := r.Run(ctx)
			if c.want == "" {
				if errors.Is(err, router.ErrInvalidConfig) {
					t.Errorf("refused: %v", err)
				}
			} else if !errors.Is(err, router.ErrInvalidConfig) || err.Error() != c.want {
				t.Errorf("got %v", err)
			}
			if err := r.Close(); errors.Is(err, router.ErrInvalidConfig) != (c.want != "") {
				t.Errorf("Close: %v", err)
			}
		})
	}
}

// Pipelines may handle each other's letters, unless those go in a circle.
func TestParse_refuses_letters_that_go_round(t *testing.T) {
	const instances = `instances:
  here: &here {name: i, endpoint: "https://example.com", access_key_id: a, access_key_secret: b}
  same: *here
  twin: {name: j, endpoint: "https://example.com", access_key_id: a, access_key_secret: b}
  slash: {name: i, endpoint: "https://example.com/", access_key_id: c, access_key_secret: d}
tunnels:
`
	const round = ": they would go in circles for ever; use another one"
	for name, c := range map[string]struct{ tunnels, want string }{
		"another pipeline's letters": {`
  orders: {instance: here, table_name: orders, tunnel_name: x, failure: {dead_letter: {table: dead}}}
  repair: {instance: here, table_name: dead, tunnel_name: x, failure: {dead_letter: {table: hopeless}}}
`, ""},
		"a chain, and letters of several pipelines in one table": {`
  a: {instance: here, table_name: ta, tunnel_name: x, failure: {dead_letter: {table: tb}}}
  b: {instance: here, table_name: tb, tunnel_name: x, failure: {dead_letter: {table: tc}}}
  c: {instance: here, table_name: tc, tunnel_name: x, failure: {dead_letter: {table: td}}}
  d: {instance: here, table_name: te, tunnel_name: x, failure: {dead_letter: {table: td}}}
`, ""},
		"tables of the same name in another instance": {`
  a: {instance: here, table_name: ta, tunnel_name: x, failure: {dead_letter: {instance: twin, table: ta}}}
  b: {instance: twin, table_name: tb, tunnel_name: x, failure: {dead_letter: {instance: here, table: tb}}}
`, ""},
		"crossed": {`
  a: {instance: here, table_name: ta, tunnel_name: x, failure: {dead_letter: {table: tb}}}
  b: {instance: here, table_name: tb, tunnel_name: x, failure: {dead_letter: {table: ta}}}
`, `test.yaml:8: tunnels.a.failure.dead_letter.table: is the table that tunnels.b handles, whose own dead letters lead back to the table handled here` + round + `
test.yaml:9: tunnels.b.failure.dead_letter.table: is the table that tunnels.a handles, whose own dead letters lead back to the table handled here` + round},
		"crossed by other names of the instance": {`
  a: {instance: same, table_name: ta, tunnel_name: x, failure: {dead_letter: {instance: slash, table: tb}}}
  b: {instance: here, table_name: tb, tunnel_name: x, failure: {dead_letter: {table: ta}}}
`, `test.yaml:8: tunnels.a.failure.dead_letter.table: is the table that tunnels.b handles, whose own dead letters lead back to the table handled here` + round + `
test.yaml:9: tunnels.b.failure.dead_letter.table: is the table that tunnels.a handles, whose own dead letters lead back to the table handled here` + round},
		"its own by another name": {`
  a: {instance: here, table_name: ta, tunnel_name: x, failure: {dead_letter: {instance: slash, table: ta}}}
`, `test.yaml:8: tunnels.a.failure.dead_letter.table: is the table whose changes are handled: its dead letters would come back as changes; use another one`},
	} {
		t.Run(name, func(t *testing.T) {
			_, err := router.Parse("test.yaml", []byte(instances+c.tunnels))
			got := ""
			if err != nil {
				got = err.Error()
			}
			if got != c.want {
				t.Errorf("got\n%s\nwant\n%s", got, c.want)
			}
		})
	}
}
