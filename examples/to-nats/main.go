// To-nats forwards the changes of a table to a stream of NATS JetStream, with a
// Watermill Router and Watermill's NATS publisher, and compares what a consumer
// of the stream receives with what was written.
//
//	go run ./examples/to-nats
//
// needs only Go: the table and the NATS server are inside the process. It ends
// by itself, or cleanly on Ctrl-C.
//
// With NATS_URL set, such as nats://127.0.0.1:4222, it creates a stream on that
// server, and deletes it at the end.
package main

import (
	"context"
	"errors"
	"fmt"
	"net/url"
	"os"
	"time"

	natsbroker "github.com/ThreeDotsLabs/watermill-nats/v2/pkg/nats"
	natsserver "github.com/nats-io/nats-server/v2/server"
	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"

	"github.com/watermill-ots/watermill-ots/examples/forward"
)

func main() { forward.Main("to-nats", open) }

func open(ctx context.Context, b *forward.Broker) error {
	servers, where := os.Getenv("NATS_URL"), ""
	if servers == "" {
		srv, err := startServer(b)
		if err != nil {
			return err
		}
		servers, where = srv.ClientURL(), " inside this process"
	}
	conn, err := nats.Connect(servers)
	if malformed := new(url.Error); errors.As(err, &malformed) { // without the text, which quotes the password
		return fmt.Errorf("NATS_URL is not a URL of the form nats://user:password@host:4222: %w", malformed.Err)
	} else if err != nil {
		return fmt.Errorf("connect to the NATS server of NATS_URL: %w", err)
	}
	b.AtEnd(func(context.Context) error { conn.Close(); return nil })
	js, err := jetstream.New(conn)
	if err != nil {
		return err
	}
	stream, err := js.CreateStream(ctx, jetstream.StreamConfig{Name: b.Name, Subjects: []string{b.Name}})
	if err != nil {
		return fmt.Errorf("create the stream %s: %w", b.Name, err)
	}
	b.AtEnd(func(ctx context.Context) error { return js.DeleteStream(ctx, b.Name) })
	b.Server = fmt.Sprintf("NATS %s%s, %s, stream %s", conn.ConnectedServerVersion(), where, conn.ConnectedUrlRedacted(), b.Name)

	// With TrackMsgId the server drops a message whose UUID it has seen within
	// the stream's window (two minutes): a change that is published again is
	// stored once.
	b.DropsDuplicates = true
	b.Publisher, err = natsbroker.NewPublisher(natsbroker.PublisherConfig{
		URL:       servers,
		JetStream: natsbroker.JetStreamConfig{TrackMsgId: true},
	}, b.Logger)

	// Order per key costs nothing on the server, since a stream has a single
	// order. It costs the consumer its parallelism: the order holds with one
	// message at a time, not across a queue group.
	b.Read = func(ctx context.Context, got func(string, []byte)) error { return read(ctx, stream, got) }
	return err
}

func read(ctx context.Context, stream jetstream.Stream, got func(uuid string, payload []byte)) error {
	consumer, err := stream.OrderedConsumer(ctx, jetstream.OrderedConsumerConfig{})
	if err != nil {
		return err
	}
	consuming, err := consumer.Consume(func(msg jetstream.Msg) {
		got(msg.Headers().Get(natsbroker.WatermillUUIDHdr), msg.Data())
	})
	if err != nil {
		return err
	}
	<-ctx.Done()
	consuming.Stop()
	<-consuming.Closed()
	return nil
}

// startServer starts a NATS server inside this process.
func startServer(b *forward.Broker) (*natsserver.Server, error) {
	dir, err := os.MkdirTemp("", "to-nats")
	if err != nil {
		return nil, err
	}
	b.AtEnd(func(context.Context) error { return os.RemoveAll(dir) })
	srv, err := natsserver.NewServer(&natsserver.Options{
		Host: "127.0.0.1", Port: natsserver.RANDOM_PORT, JetStream: true, StoreDir: dir, NoSigs: true, NoLog: true,
	})
	if err != nil {
		return nil, fmt.Errorf("create the NATS server: %w", err)
	}
	srv.Start()
	b.AtEnd(func(context.Context) error { srv.Shutdown(); srv.WaitForShutdown(); return nil })
	if !srv.ReadyForConnections(10 * time.Second) {
		return nil, errors.New("the NATS server is not ready after 10s")
	}
	return srv, nil
}
