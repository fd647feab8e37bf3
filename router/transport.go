package router

import (
	"net/http"
	"strings"
	"time"

	"github.com/ThreeDotsLabs/watermill"

	"github.com/watermill-ots/watermill-ots/internal/service"
)

// maxIdle is how many idle connections an instance without a pool size keeps: practically all.
const maxIdle = 1024

// newTransport returns the HTTP transport that all calls to an instance share.
//
// pool_size and pool_max_overflow bound the number of connections. A call beyond it waits
// for a connection until its context ends.
func newTransport(in Instance) *http.Transport {
	t := service.NewTransport(maxIdle)
	if in.PoolSize > 0 {
		t.MaxIdleConnsPerHost = in.PoolSize
		t.MaxConnsPerHost = in.PoolSize + in.PoolMaxOverflow
	}
	return t
}

// requestLog logs each request with its answer, for instances with debug: true. It logs at
// level info, since the user asked for it.
type requestLog struct {
	base   http.RoundTripper
	logger watermill.LoggerAdapter
}

// shown are the headers whose values are logged. Any other header may carry credentials or
// signatures, now or in a later protocol.
var shown = map[string]bool{
	"x-ots-apiversion":   true,
	"x-ots-contentmd5":   true,
	"x-ots-date":         true,
	"x-ots-instancename": true,
	"x-ots-requestid":    true,
	"x-ots-signdate":     true,
	"x-ots-signregion":   true,
	"x-ots-contenttype":  true,
	"user-agent":         true,
	"content-type":       true,
	"content-length":     true,
	"date":               true,
}

const redacted = "REDACTED"

// RoundTrip implements http.RoundTripper.
func (l *requestLog) RoundTrip(req *http.Request) (*http.Response, error) {
	start := time.Now()
	resp, err := l.base.RoundTrip(req)
	fields := watermill.LogFields{
		"method":          req.Method,
		"host":            req.URL.Host,
		"path":            req.URL.Path,
		"request_bytes":   req.ContentLength,
		"request_headers": headers(req.Header),
		"took":            time.Since(start).String(),
	}
	if err != nil {
		l.logger.Error("Tablestore request failed", err, fields)
		return nil, err
	}
	fields["status"] = resp.StatusCode
	fields["answer_bytes"] = resp.ContentLength
	fields["answer_headers"] = headers(resp.Header)
	l.logger.Info("Tablestore request", fields)
	return resp, nil
}

// CloseIdleConnections closes those of the underlying transport. http.Client calls it.
func (l *requestLog) CloseIdleConnections() {
	if c, ok := l.base.(interface{ CloseIdleConnections() }); ok {
		c.CloseIdleConnections()
	}
}

// headers returns a loggable copy of h. The SDK sets its headers with names in
// lower case, which http.Header would not find by itself.
func headers(h http.Header) map[string]string {
	out := make(map[string]string, len(h))
	for name, values := range h {
		lower := strings.ToLower(name)
		out[lower] = redacted
		if shown[lower] {
			out[lower] = strings.Join(values, ", ")
		}
	}
	return out
}
