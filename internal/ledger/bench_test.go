package ledger

import (
	"fmt"
	"testing"
	"time"
)

// BenchmarkRecord measures a record from Add to Committed, at a given number of
// records in flight. ns/op and allocs are per record.
func BenchmarkRecord(b *testing.B) {
	for _, o := range []struct {
		name string
		Ordering
		keys int // 0: each record has its own key
	}{
		{"ByKey/distinct", ByKey, 0},
		{"ByKey/16_keys", ByKey, 16},
		{"ByChannel", ByChannel, 0},
		{"Unordered", Unordered, 0},
	} {
		for _, inFlight := range []int{1, 1_000, 100_000, 1_000_000} {
			b.Run(fmt.Sprintf("%s/in_flight=%d", o.name, inFlight), func(b *testing.B) {
				benchmarkRecord(b, o.Ordering, o.keys, inFlight)
			})
		}
	}
}

func benchmarkRecord(b *testing.B, o Ordering, distinct, inFlight int) {
	page := min(inFlight, 1_000)
	keys := make([][]string, max(1, inFlight/page))
	for i := range keys {
		keys[i] = make([]string, page)
		for j := range keys[i] {
			n := i*page + j
			if distinct > 0 {
				n %= distinct
			}
			keys[i][j] = fmt.Sprintf("some-primary-key-%08d", n)
		}
	}
	t := New(o, "channel", NewWindow(2*inFlight+page, 1<<40).Open())
	now := time.Unix(1_700_000_000, 0)
	pages := 0
	add := func() {
		if !t.lane.Admit() {
			b.Fatal("the window is full")
		}
		t.Add(Page{Token: "token", Keys: keys[pages%len(keys)], Bytes: 1 << 20})
		pages++
	}
	for range inFlight / page {
		add()
	}
	value := any(t)
	b.ReportAllocs()
	b.ResetTimer()
	for n := 0; n < b.N; n++ {
		a, _, ok := t.Next(now)
		if !ok {
			b.Fatal("nothing to deliver")
		}
		t.Bind(a, value)
		t.Ack(a)
		if (n+1)%page == 0 {
			if _, position, ok := t.Committable(); ok {
				t.Committed(position)
			}
			add()
		}
	}
	b.ReportMetric(float64(b.N)/b.Elapsed().Seconds(), "records/s")
}

// BenchmarkBatch measures a record that is handed off to a batch of 100.
func BenchmarkBatch(b *testing.B) {
	keys := make([]string, 100)
	for i := range keys {
		keys[i] = fmt.Sprintf("some-primary-key-%d", i%10)
	}
	t := New(ByKey, "channel", NewWindow(1_000, 1<<40).Open())
	now := time.Unix(1_700_000_000, 0)
	batch := make([]Attempt, 0, 100)
	b.ReportAllocs()
	b.ResetTimer()
	for n := 0; n < b.N; n++ {
		if n%100 == 0 {
			t.lane.Admit()
			t.Add(Page{Token: "token", Keys: keys})
		}
		a, _, ok := t.Next(now)
		if !ok {
			b.Fatal("nothing to deliver")
		}
		t.Hurry()
		t.HandOff(a)
		if batch = append(batch, a); len(batch) == 100 {
			for _, a := range batch {
				t.Begin(a)
			}
			for _, a := range batch {
				t.Ack(a)
			}
			batch = batch[:0]
		}
	}
}

// BenchmarkParallel is BenchmarkRecord on all processors, with one channel each and
// one window: it shows the cost of the shared lock.
func BenchmarkParallel(b *testing.B) {
	w := NewWindow(1<<20, 1<<40)
	keys := make([]string, 1_000)
	for i := range keys {
		keys[i] = fmt.Sprintf("some-primary-key-%d", i)
	}
	now := time.Unix(1_700_000_000, 0)
	b.ReportAllocs()
	b.RunParallel(func(pb *testing.PB) {
		t := New(ByKey, "channel", w.Open())
		for n := 0; pb.Next(); n++ {
			if n%len(keys) == 0 {
				t.lane.Admit()
				t.Add(Page{Token: "token", Keys: keys})
			}
			a, _, _ := t.Next(now)
			t.Ack(a)
		}
	})
}

// BenchmarkFailingKey measures a nack and its redelivery while many other records wait
// for theirs.
func BenchmarkFailingKey(b *testing.B) {
	for _, others := range []int{0, 1_000, 100_000} {
		b.Run(fmt.Sprintf("retrying=%d", others), func(b *testing.B) {
			t := New(Unordered, "", NewWindow(others+2, 1<<40).Open())
			t.lane.Admit()
			t.Add(Page{Keys: make([]string, others+1)})
			now := time.Unix(1_700_000_000, 0)
			for range others {
				a, _, _ := t.Next(now)
				t.Nack(a, now.Add(1000*time.Hour))
			}
			b.ReportAllocs()
			for b.Loop() {
				a, _, _ := t.Next(now)
				t.Nack(a, now)
			}
		})
	}
}
