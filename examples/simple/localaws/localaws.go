// Package localaws runs an SQS and an S3 inside the process, for examples that
// need no account. Both speak the services' own protocols over HTTP, so the AWS
// SDK is used on them as it is on AWS: only its base endpoint differs. Neither
// checks signatures, and both keep all in memory.
package localaws

import (
	"errors"
	"fmt"
	"net"
	"net/http"

	"github.com/johannesboyne/gofakes3"
	"github.com/johannesboyne/gofakes3/backend/s3mem"
)

// Servers are a running SQS and S3 on loopback. The methods may be called by
// several goroutines.
type Servers struct {
	sqs, s3 *server
	queues  *SQS
	buckets gofakes3.Backend
}

// Start starts both servers, each on a free port of its own.
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

// S3Endpoint returns the base endpoint for the SDK's S3 client, which has to
// use path-style addresses.
func (s *Servers) S3Endpoint() string { return s.s3.endpoint }

// Queues returns how many queues there are.
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

// Close breaks all connections and waits for the servers' ends.
func (s *Servers) Close() error {
	s.queues.Close()
	return errors.Join(s.sqs.close(), s.s3.close())
}

// server is one HTTP server and the goroutine that it runs in.
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
	go func() { s.ended <- s.http.Serve(l) }() // ends at close, which waits for it
	return s, nil
}

func (s *server) close() error {
	err := s.http.Close()
	if end := <-s.ended; !errors.Is(end, http.ErrServerClosed) {
		err = errors.Join(err, end)
	}
	return err
}
