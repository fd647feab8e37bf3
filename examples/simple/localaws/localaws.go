// Package localaws runs an SQS and an S3 inside the process, for examples
// without an AWS account. Both use the services' own protocols over HTTP, so
// the AWS SDK works with them as with AWS: only its base endpoint differs.
// Neither checks signatures, and both keep everything in memory.
package localaws

import (
	"errors"
	"fmt"
	"net"
	"net/http"

	"github.com/johannesboyne/gofakes3"
	"github.com/johannesboyne/gofakes3/backend/s3mem"
)

// Servers are a running SQS and S3 on loopback. The methods may be called
// concurrently.
type Servers struct {
	sqs, s3 *server
	queues  *SQS
	buckets gofakes3.Backend
}

// Start starts both servers, each on its own free port.
func Start() (*Servers, error) {
	queues := NewSQS()
	sqs, err := serve(queues)
	if err != nil {
		return nil, fmt.Errorf("starting the local sqs: %w", err)
	}
	buckets := s3mem.New()
	s3, err := serve(gofakes3.New(buckets).Server())
	if err != nil {
		return nil, errors.Join(fmt.Errorf("starting the local s3: %w", err), sqs.close())
	}
	return &Servers{sqs: sqs, s3: s3, queues: queues, buckets: buckets}, nil
}

// SQSEndpoint returns the base endpoint for the SDK's SQS client.
func (s *Servers) SQSEndpoint() string { return s.sqs.endpoint }

// S3Endpoint returns the base endpoint for the SDK's S3 client, which must use
// path-style addresses.
func (s *Servers) S3Endpoint() string { return s.s3.endpoint }

// Queues returns the number of queues.
func (s *Servers) Queues() int { return s.queues.count() }

// Buckets returns the names of the buckets.
func (s *Servers) Buckets() ([]string, error) {
	buckets, err := s.buckets.ListBuckets()
	names := make([]string, len(buckets))
	for i, b := range buckets {
		names[i] = b.Name
	}
	return names, err
}

// Close breaks all connections and waits for the servers to end.
func (s *Servers) Close() error {
	s.queues.Close()
	return errors.Join(s.sqs.close(), s.s3.close())
}

// server is an HTTP server and the goroutine in which it runs.
type server struct {
	http     *http.Server
	endpoint string
	ended    chan error
}

func serve(h http.Handler) (*server, error) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return nil, err
	}
	s := &server{http: &http.Server{Handler: h}, endpoint: "http://" + l.Addr().String(), ended: make(chan error, 1)}
	go func() { s.ended <- s.http.Serve(l) }() // ends with close, which waits for it
	return s, nil
}

func (s *server) close() error {
	err := s.http.Close()
	if end := <-s.ended; !errors.Is(end, http.ErrServerClosed) {
		err = errors.Join(err, end)
	}
	return err
}
