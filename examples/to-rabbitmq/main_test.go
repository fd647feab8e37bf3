package main

import (
	"testing"

	amqp "github.com/rabbitmq/amqp091-go"

	"github.com/watermill-ots/watermill-ots/examples/forward/forwardtest"
	"github.com/watermill-ots/watermill-ots/examples/simple/exampletest"
)

func TestMain(m *testing.M) { exampletest.Main(m, main) }

func TestToRabbitMQ_forwards_each_change_in_order(t *testing.T) {
	url := forwardtest.Server(t, "AMQP_URL", "amqp://guest:guest@127.0.0.1:5672/")
	name := forwardtest.Forwards(t, false, "AMQP_URL="+url)
	conn, err := amqp.Dial(url)
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	channel, err := conn.Channel()
	if err != nil {
		t.Fatal(err)
	}
	if q, err := channel.QueueDeclarePassive(name, true, false, false, false, nil); err == nil {
		t.Errorf("the queue %s is left: %+v", name, q)
	}
}

func TestToRabbitMQ_says_which_server_it_cannot_use(t *testing.T) {
	forwardtest.Refuses(t, "AMQP_URL", "amqp://user:geheim@127.0.0.1:1/")
	forwardtest.Refuses(t, "AMQP_URL", "amqp://user:geheim@127.0.0.1:1x/")
}
