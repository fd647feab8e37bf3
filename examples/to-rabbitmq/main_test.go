package main

import (
	"net/url"
	"testing"
	"time"

	amqp "github.com/rabbitmq/amqp091-go"

	"github.com/watermill-ots/watermill-ots/examples/chaos"
	"github.com/watermill-ots/watermill-ots/examples/forward/forwardtest"
	"github.com/watermill-ots/watermill-ots/examples/simple/exampletest"
)

func TestMain(m *testing.M) { exampletest.Main(m, main) }

func TestToRabbitMQ_forwards_each_change_in_order(t *testing.T) {
	server := forwardtest.Server(t, "AMQP_URL", "amqp://guest:guest@127.0.0.1:5672/")
	name := forwardtest.Forwards(t, false, "AMQP_URL="+server)
	conn, err := amqp.Dial(server)
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	channel, err := conn.Channel()
	if err != nil {
		t.Fatal(err)
	}
	if q, err := channel.QueueDeclarePassive(name, true, false, false, false, nil); err == nil {
		t.Errorf("the queue %s was not deleted: %+v", name, q)
	}
}

// TestToRabbitMQ_continues_when_connections_are_lost: all at once, and several
// times. With forty orders, more changes are being published at that time than
// a pool would have channels.
func TestToRabbitMQ_continues_when_connections_are_lost(t *testing.T) {
	forwardtest.ReconnectsRabbitMQ(t)
	server := forwardtest.Server(t, "AMQP_URL", "amqp://guest:guest@127.0.0.1:5672/")
	u, err := url.Parse(server)
	if err != nil {
		t.Fatal(err)
	}
	proxy, err := chaos.NewProxy(u.Host)
	if err != nil {
		t.Fatal(err)
	}
	defer proxy.Close()
	u.Host = proxy.Addr()
	p := exampletest.Start(t, "forwarded", []string{"AMQP_URL=" + u.String()}, "-orders", "40", "-changes", "60")
	p.Await()
	for range 3 {
		if err := proxy.Turn(chaos.Open); err != nil { // cuts all connections
			t.Fatal(err)
		}
		time.Sleep(1200 * time.Millisecond) // the publisher reconnects half a second later
	}
	p.Wait()
	p.Want("arrived in order")
	t.Log(proxy)
	for row, want := range map[string]int{"changes written": 2400, "forwarded": 2400, "left in the tunnel": 0} {
		if got := p.Figure(row); got != want {
			t.Errorf("%s: %d, want %d:\n%s", row, got, want, p.Output())
		}
	}
}

func TestToRabbitMQ_says_which_server_it_cannot_use(t *testing.T) {
	forwardtest.Refuses(t, "AMQP_URL", "amqp://user:geheim@127.0.0.1:1/")
	forwardtest.Refuses(t, "AMQP_URL", "amqp://user:geheim@127.0.0.1:1x/")
}
