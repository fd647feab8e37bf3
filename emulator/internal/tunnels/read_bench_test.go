package tunnels

import (
	"strings"
	"testing"
	"time"
)

// cannedSource answers every read with the same page, without any work or
// allocation, so that only the service is measured.
type cannedSource struct {
	*fakeSource
	data    []byte
	records int
}

func (s *cannedSource) ReadShard(dst []byte, _, _ string, offset int64, _ time.Time, _, _ int) (ShardPage, error) {
	return ShardPage{Data: append(dst, s.data...), Records: s.records, Next: offset, More: true, LastTime: s.now()}, nil
}

// cannedBench returns a service with canned pages, and the body of a request
// that reads one.
func cannedBench(t tester, records int) (b *bench, body []byte) {
	t.Helper()
	b = newBench(t)
	src := &cannedSource{fakeSource: b.src, records: records}
	for range records {
		src.data = appendFakeRecord(src.data, strings.Repeat("x", 150))
	}
	s, err := New(src, b.cfg)
	b.must(err)
	b.s = s
	c := b.connect(b.create(stream))
	c.heartbeat()
	return b, c.readBody("shard-0")
}

func TestReadRecordsAllocatesPerPageOnly(t *testing.T) {
	for _, records := range []int{0, 5000} {
		b, body := cannedBench(t, records)
		dst := make([]byte, 0, 2<<20)
		allocs := testing.AllocsPerRun(100, func() {
			if _, err := b.s.Handle("readrecords", body, dst); err != nil {
				t.Fatal(err)
			}
		})
		if allocs > 16 {
			t.Errorf("%d records: %v allocations a page, want at most 16", records, allocs)
		}
	}
}

func BenchmarkReadRecords(b *testing.B) {
	const records = 5000
	w, body := cannedBench(b, records)
	b.ReportAllocs()
	b.RunParallel(func(pb *testing.PB) {
		var dst []byte
		for pb.Next() {
			out, err := w.s.Handle("readrecords", body, dst[:0])
			if err != nil {
				b.Error(err)
				return
			}
			dst = out
		}
	})
	b.ReportMetric(float64(b.N)*records/b.Elapsed().Seconds(), "records/s")
}

func BenchmarkEmptyReadRecords(b *testing.B) {
	w, body := cannedBench(b, 0)
	dst := make([]byte, 0, 1<<10)
	b.ReportAllocs()
	for b.Loop() {
		if _, err := w.s.Handle("readrecords", body, dst); err != nil {
			b.Fatal(err)
		}
	}
}
