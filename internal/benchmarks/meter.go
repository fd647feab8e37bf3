package main

import (
	"context"
	"encoding/json"
	"fmt"
	"os"
	"runtime"
	"slices"
	"sync"
	"sync/atomic"
	"syscall"
	"time"
)

// meter counts what a consumer process does. Its methods may be called
// concurrently.
type meter struct {
	latencies bool
	records   atomic.Int64

	mu   sync.Mutex
	late []time.Duration // with latencies: the time from each record's change until it was done
}

// done counts a record that is done. changed is the time of its change, µs
// since 1970.
func (m *meter) done(changed int64) {
	m.records.Add(1)
	if m.latencies && changed > 0 {
		d := time.Since(timeOf(changed))
		m.mu.Lock()
		m.late = append(m.late, d)
		m.mu.Unlock()
	}
}

// reading holds the counters' values at one moment.
type reading struct {
	at      time.Time
	records int64
	cpu     time.Duration
	allocs  uint64
}

func (m *meter) read() (reading, error) {
	var usage syscall.Rusage
	if err := syscall.Getrusage(syscall.RUSAGE_SELF, &usage); err != nil {
		return reading{}, fmt.Errorf("getrusage: %w", err)
	}
	var mem runtime.MemStats
	runtime.ReadMemStats(&mem)
	return reading{
		at: time.Now(), records: m.records.Load(), allocs: mem.Mallocs,
		cpu: time.Duration(usage.Utime.Nano() + usage.Stime.Nano()),
	}, nil
}

// result is the result of one run of a consumer. Its process prints it, the
// driver reads it.
type result struct {
	Records   int64         `json:"records"`
	Elapsed   time.Duration `json:"elapsed"`
	CPU       time.Duration `json:"cpu"`
	Allocs    uint64        `json:"allocs"`
	RSS       int64         `json:"rss"` // peak, bytes
	P50       time.Duration `json:"p50,omitempty"`
	P99       time.Duration `json:"p99,omitempty"`
	Latencies int           `json:"latencies,omitempty"`

	// From the server: reads during the measurement, connections of the
	// consumer's whole life.
	Reads       int64 `json:"-"`
	Connections int64 `json:"-"`
}

func (r result) readRate() float64 { return float64(r.Reads) / r.Elapsed.Seconds() }

func (r result) rate() float64 { return float64(r.Records) / r.Elapsed.Seconds() }

// cpuPerMillion returns the consumer's CPU seconds per million records.
func (r result) cpuPerMillion() float64 { return r.CPU.Seconds() / float64(r.Records) * 1e6 }

func (r result) allocsPerRecord() float64 { return float64(r.Allocs) / float64(r.Records) }

// wait waits for d, or until ctx ends.
func wait(ctx context.Context, d time.Duration) error {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-timer.C:
		return nil
	case <-ctx.Done():
		return context.Cause(ctx)
	}
}

// measure waits for warmup and then measures for d.
func (m *meter) measure(ctx context.Context, warmup, d time.Duration) (result, error) {
	if err := wait(ctx, warmup); err != nil {
		return result{}, err
	}
	m.mu.Lock()
	m.late = nil
	m.mu.Unlock()
	fmt.Println("measuring") // read by the driver
	before, err := m.read()
	if err != nil {
		return result{}, err
	}
	if err := wait(ctx, d); err != nil {
		return result{}, err
	}
	after, err := m.read()
	if err != nil {
		return result{}, err
	}
	r := result{
		Records: after.records - before.records, Elapsed: after.at.Sub(before.at),
		CPU: after.cpu - before.cpu, Allocs: after.allocs - before.allocs,
	}
	var usage syscall.Rusage
	if err := syscall.Getrusage(syscall.RUSAGE_SELF, &usage); err != nil {
		return result{}, fmt.Errorf("getrusage: %w", err)
	}
	r.RSS = usage.Maxrss << 10 // Linux counts KiB
	m.mu.Lock()
	defer m.mu.Unlock()
	if n := len(m.late); n > 0 {
		slices.Sort(m.late)
		r.Latencies, r.P50, r.P99 = n, m.late[n/2], m.late[n*99/100]
	}
	return r, nil
}

// print writes the result for the driver.
func (r result) print() error { return json.NewEncoder(os.Stdout).Encode(r) }
