package main

import (
	"testing"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"

	"github.com/watermill-ots/watermill-ots/examples/forward/forwardtest"
	"github.com/watermill-ots/watermill-ots/examples/simple/exampletest"
)

func TestMain(m *testing.M) { exampletest.Main(m, main) }

func TestToNATS_forwards_each_change_in_order(t *testing.T) {
	t.Run("embedded", func(t *testing.T) { forwardtest.Forwards(t, true, "NATS_URL=") })
	t.Run("server", func(t *testing.T) {
		url := forwardtest.Server(t, "NATS_URL", "nats://127.0.0.1:4222")
		name := forwardtest.Forwards(t, true, "NATS_URL="+url)
		conn, err := nats.Connect(url)
		if err != nil {
			t.Fatal(err)
		}
		defer conn.Close()
		js, err := jetstream.New(conn)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := js.Stream(t.Context(), name); err != jetstream.ErrStreamNotFound {
			t.Errorf("the stream %s was not deleted: %v", name, err)
		}
	})
}

func TestToNATS_says_which_server_it_cannot_use(t *testing.T) {
	forwardtest.Refuses(t, "NATS_URL", "nats://user:geheim@127.0.0.1:1")
	forwardtest.Refuses(t, "NATS_URL", "nats://user:geheim@127.0.0.1:1x")
}
