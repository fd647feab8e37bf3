package store

import (
	"runtime"
	"testing"
	"time"

	"github.com/watermill-ots/watermill-ots/internal/plainbuffer"
)

// BenchmarkTenMillionRows loads ten million small rows into memory, and reports
// their cost and the speed of operations on them. One iteration takes about 20
// s and 1.1 GB.
func BenchmarkTenMillionRows(b *testing.B) {
	const rows = 10_000_000
	for b.Loop() {
		s, err := Open(Config{})
		if err != nil {
			b.Fatal(err)
		}
		if err := s.CreateTable(schema("t"), StreamSpec{}, nil); err != nil {
			b.Fatal(err)
		}
		table, err := s.Table("t")
		if err != nil {
			b.Fatal(err)
		}
		began := time.Now()
		for first := int64(0); first < rows; first += 1000 {
			changes := make([]*Change, 0, 1000)
			for id := first; id < first+1000; id++ {
				changes = append(changes, &Change{Action: PutRow, Row: &plainbuffer.Row{PrimaryKey: pk(id, "s"), Cells: []plainbuffer.Cell{number("n", id)}}})
			}
			if err := table.Apply(changes, false); err != nil {
				b.Fatal(err)
			}
		}
		b.ReportMetric(rows/time.Since(began).Seconds(), "rows-loaded/s")

		runtime.GC()
		var m runtime.MemStats
		runtime.ReadMemStats(&m)
		b.ReportMetric(float64(m.HeapAlloc)/rows, "B-heap/row")
		b.ReportMetric(float64(table.partitions[0].rows.bytes)/rows, "B/row")

		began = time.Now()
		buf := make([]byte, 0, 2<<20)
		for start := []byte(nil); ; {
			page, err := s.ReadBase(buf[:0], tableID(b, s, "t"), start, nil, 5000, 1<<20)
			if err != nil {
				b.Fatal(err)
			}
			if start = page.Next; start == nil {
				break
			}
		}
		b.ReportMetric(rows/time.Since(began).Seconds(), "rows-scanned/s")

		began = time.Now()
		if err := s.Split("t"); err != nil {
			b.Fatal(err)
		}
		b.ReportMetric(float64(time.Since(began).Milliseconds()), "ms/split")
		if err := s.Close(); err != nil {
			b.Fatal(err)
		}
	}
}
