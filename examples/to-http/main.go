// To-http forwards the changes of a table to a web server, with a Watermill
// Router and Watermill's HTTP publisher, and compares what the server received
// with what was written.
//
//	go run ./examples/to-http
//
// needs only Go: the table and the server are inside the process. It ends by
// itself, or cleanly on Ctrl-C.
package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"time"

	wmhttp "github.com/ThreeDotsLabs/watermill-http/v2/pkg/http"
	"github.com/ThreeDotsLabs/watermill/message"

	"github.com/watermill-ots/watermill-ots/examples/forward"
)

func main() { forward.Main("to-http", open) }

func open(_ context.Context, b *forward.Broker) error {
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return fmt.Errorf("listen for the web server: %w", err)
	}
	b.Topic = fmt.Sprintf("http://%s/%s", listener.Addr(), b.Name) // Watermill's topic is the URL
	b.Server = "a web server inside this process, POST " + b.Topic

	// Order per key limits the speed of one key: its next change is sent when
	// the previous request is answered. Requests for different keys run side by
	// side.
	client := &http.Client{
		Timeout:   10 * time.Second,                          // without a timeout, a server that hangs holds the key forever
		Transport: &http.Transport{MaxIdleConnsPerHost: 100}, // the default is 2, and a new connection for each other request
	}
	b.AtEnd(func(context.Context) error { client.CloseIdleConnections(); return nil })
	b.Publisher, err = wmhttp.NewPublisher(wmhttp.PublisherConfig{Client: client, MarshalMessageFunc: request}, b.Logger)
	b.Read = func(ctx context.Context, got func(string, []byte)) error { return serve(ctx, listener, got) }
	return err
}

// request builds the default request (POST, UUID and metadata in the header),
// and ends it with the message's context.
func request(url string, msg *message.Message) (*http.Request, error) {
	req, err := wmhttp.DefaultMarshalMessageFunc(url, msg)
	if err != nil {
		return nil, err
	}
	return req.WithContext(msg.Context()), nil
}

// serve is the web server. Its response acks the message, so it is sent once
// the message is accepted.
func serve(ctx context.Context, listener net.Listener, got func(uuid string, payload []byte)) error {
	srv := &http.Server{ReadHeaderTimeout: 10 * time.Second, Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		body, err := io.ReadAll(r.Body)
		if err != nil {
			http.Error(w, err.Error(), http.StatusBadRequest) // nacks it
			return
		}
		got(r.Header.Get(wmhttp.HeaderUUID), body)
		w.WriteHeader(http.StatusNoContent)
	})}
	defer context.AfterFunc(ctx, func() { _ = srv.Close() })() // its error is the listener's, which is closed
	if err := srv.Serve(listener); !errors.Is(err, http.ErrServerClosed) {
		return err
	}
	return nil
}
