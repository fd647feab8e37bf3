package verify

import (
	"io"
	"maps"
	"net/http"
	"strings"
	"sync"
	"sync/atomic"
	"time"
)

// meter counts the calls that pass through it, and their bytes. It is safe for
// concurrent use.
type meter struct {
	base *http.Transport

	sent, received atomic.Int64 // bytes of bodies
	read, write    atomic.Int64 // capacity units, as the table API answers them

	mu  sync.Mutex
	ops map[string]Calls
}

func newMeter(base *http.Transport) *meter {
	return &meter{base: base, ops: make(map[string]Calls)}
}

// RoundTrip implements http.RoundTripper.
func (m *meter) RoundTrip(req *http.Request) (*http.Response, error) {
	m.sent.Add(max(req.ContentLength, 0))
	started := time.Now()
	resp, err := m.base.RoundTrip(req)
	m.count(strings.TrimPrefix(req.URL.Path, "/"), time.Since(started))
	if err == nil {
		resp.Body = &countedBody{resp.Body, &m.received}
	}
	return resp, err
}

// count counts a call whose answer began after d.
func (m *meter) count(op string, d time.Duration) {
	m.mu.Lock()
	defer m.mu.Unlock()
	c := m.ops[op]
	c.N++
	c.total += d
	c.Mean = (c.total / time.Duration(c.N)).Round(time.Microsecond).String()
	m.ops[op] = c
}

// calls returns the calls by operation.
func (m *meter) calls() map[string]Calls {
	m.mu.Lock()
	defer m.mu.Unlock()
	return maps.Clone(m.ops)
}

// cost returns what the run used.
func (m *meter) cost() Cost {
	return Cost{
		BytesSent: m.sent.Load(), BytesReceived: m.received.Load(),
		ReadUnits: m.read.Load(), WriteUnits: m.write.Load(),
	}
}

// consumed adds capacity units.
func (m *meter) consumed(read, write int32) {
	m.read.Add(int64(read))
	m.write.Add(int64(write))
}

// countedBody counts the bytes that are read.
type countedBody struct {
	io.ReadCloser
	n *atomic.Int64
}

func (b *countedBody) Read(p []byte) (int, error) {
	n, err := b.ReadCloser.Read(p)
	b.n.Add(int64(n))
	return n, err
}
