package router_test

import (
	"errors"
	"fmt"
	"runtime"
	"strings"
	"testing"

	"github.com/watermill-ots/watermill-ots/router"
)

// manyTunnels is a file with n instances and n tunnels. With broken set, each
// tunnel names an instance that is not there.
func manyTunnels(n int, broken bool) []byte {
	var b strings.Builder
	suffix := ""
	if broken {
		suffix = "x"
	}
	b.WriteString("instances:\n")
	for i := range n {
		fmt.Fprintf(&b, "  i%04d: {name: i%04d, endpoint: https://example.com, access_key_id: a, access_key_secret: b}\n", i, i)
	}
	b.WriteString("tunnels:\n")
	for i := range n {
		fmt.Fprintf(&b, "  t%04d: {instance: i%04d%s, table_name: t, tunnel_name: u, batchers: {default: {}}}\n", i, i, suffix)
	}
	return []byte(b.String())
}

// What Parse allocates grows with the file, not with its square. Sorting all names,
// or listing or comparing them, for each tunnel would make it 64 times as much
// where this takes 8.
func TestParse_takes_work_that_grows_with_the_file(t *testing.T) {
	allocated := func(n int, broken bool) uint64 {
		data := manyTunnels(n, broken)
		var before, after runtime.MemStats
		runtime.ReadMemStats(&before)
		_, err := router.Parse("ots.yaml", data)
		runtime.ReadMemStats(&after)
		var ce *router.ConfigError
		if broken && (!errors.As(err, &ce) || len(ce.Faults) != n) || !broken && err != nil {
			t.Fatalf("got %v", err)
		}
		return after.TotalAlloc - before.TotalAlloc
	}
	for _, broken := range []bool{false, true} {
		few, many := allocated(400, broken), allocated(3200, broken)
		for range 2 { // what other goroutines of the process allocate does not count
			if many > 12*few {
				few, many = min(few, allocated(400, broken)), min(many, allocated(3200, broken))
			}
		}
		if many > 12*few {
			t.Errorf("400 tunnels (broken: %v) take %d bytes and 3200 take %d, %.1f times as much", broken, few, many, float64(many)/float64(few))
		}
	}
}

func TestParse_lists_not_all_of_many_names(t *testing.T) {
	_, err := router.Parse("ots.yaml", []byte(strings.Replace(string(manyTunnels(400, false)), "instance: i0007", "instance: other", 1)))
	want := `ots.yaml:410: tunnels.t0007.instance: no instance is called "other"; instances are: i0000, i0001, `
	if err == nil || !strings.HasPrefix(err.Error(), want) || !strings.HasSuffix(err.Error(), "i0029 and 370 more") {
		t.Errorf("got %v", err)
	}
}

func BenchmarkParse(b *testing.B) {
	for _, n := range []int{30, 300, 3000} {
		data := manyTunnels(n, false)
		b.Run(fmt.Sprintf("tunnels=%d", n), func(b *testing.B) {
			b.SetBytes(int64(len(data)))
			b.ReportAllocs()
			for b.Loop() {
				if _, err := router.Parse("ots.yaml", data); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}
