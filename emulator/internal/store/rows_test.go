package store

import (
	"bytes"
	"fmt"
	"slices"
	"testing"

	"pgregory.net/rapid"
)

// model is rows as a plain map.
type model map[string]string

func (m model) keys() []string {
	keys := make([]string, 0, len(m))
	for k := range m {
		keys = append(keys, k)
	}
	slices.Sort(keys)
	return keys
}

// agree fails unless r holds exactly m, read from both ends and from the
// middle.
func agree(t *rapid.T, r *rows, m model) {
	keys := m.keys()
	var up, down []string
	size := 0
	for at := (place{}); ; at = r.next(at) {
		k, v, ok := r.at(at)
		if !ok {
			break
		}
		if m[string(k)] != string(v) {
			t.Fatalf("row %q is %.20q, want %.20q", k, v, m[string(k)])
		}
		up = append(up, string(k))
		size += len(k) + len(v)
	}
	for at := r.prev(place{leaf: len(r.leaves)}); ; at = r.prev(at) {
		k, _, ok := r.at(at)
		if !ok {
			break
		}
		down = append(down, string(k))
	}
	slices.Reverse(down)
	if !slices.Equal(up, keys) || !slices.Equal(down, keys) {
		t.Fatalf("%d keys upwards, %d downwards, want %d", len(up), len(down), len(keys))
	}
	if r.count != len(m) || r.bytes != int64(size) {
		t.Fatalf("counts %d rows of %d bytes, want %d of %d", r.count, r.bytes, len(m), size)
	}
	for _, l := range r.leaves {
		if len(l.offs) == 0 || len(l.offs) > leafEntries {
			t.Fatalf("a leaf has %d entries", len(l.offs))
		}
	}
}

func TestRows(t *testing.T) {
	t.Run("behaves as a sorted map", func(t *testing.T) {
		rapid.Check(t, func(t *rapid.T) {
			r, m := &rows{}, model{}
			// Few keys are replaced often, many keys split leaves; large rows
			// exceed a leaf's bytes.
			space := rapid.SampledFrom([]int{3, 50, 5000}).Draw(t, "keys")
			big := rapid.SampledFrom([]int{1, 100, 40_000}).Draw(t, "row bytes")
			key := func() []byte { return fmt.Appendf(nil, "%05d", rapid.IntRange(0, space).Draw(t, "key")) }
			for range rapid.IntRange(1, 600).Draw(t, "steps") {
				switch k := key(); rapid.IntRange(0, 9).Draw(t, "step") {
				case 0:
					_, had := m[string(k)]
					if r.delete(k) != had {
						t.Fatalf("delete(%s) disagrees", k)
					}
					delete(m, string(k))
				case 1:
					v, ok := r.get(k)
					if want, had := m[string(k)]; ok != had || string(v) != want {
						t.Fatalf("get(%s) = %.20q, %v; want %.20q, %v", k, v, ok, want, had)
					}
				case 2:
					want, had := slices.BinarySearch(m.keys(), string(k))
					found, _, ok := r.at(r.seek(k))
					if keys := m.keys(); ok != (want < len(keys)) || ok && string(found) != keys[want] {
						t.Fatalf("seek(%s) found %q (%v, %v)", k, found, ok, had)
					}
				default:
					v := bytes.Repeat([]byte{byte(len(m))}, rapid.IntRange(0, big).Draw(t, "size"))
					kept, row := r.put(k, v)
					if !bytes.Equal(kept, k) || !bytes.Equal(row, v) {
						t.Fatalf("put(%s) kept %q", k, kept)
					}
					m[string(k)] = string(v)
				}
			}
			agree(t, r, m)
		})
	})
	t.Run("is divided and joined without losses", func(t *testing.T) {
		rapid.Check(t, func(t *rapid.T) {
			r, left, right := &rows{}, model{}, model{}
			cut := rapid.IntRange(0, 3000).Draw(t, "cut")
			n := rapid.IntRange(0, 3000).Draw(t, "rows")
			for i := range n {
				k := fmt.Appendf(nil, "%05d", i)
				r.put(k, k)
				if i < cut {
					left[string(k)] = string(k)
				} else {
					right[string(k)] = string(k)
				}
			}
			other := r.cut(fmt.Appendf(nil, "%05d", cut))
			agree(t, r, left)
			agree(t, other, right)
			r.join(other)
			for k, v := range right {
				left[k] = v
			}
			agree(t, r, left)
		})
	})
	t.Run("does not change slices that were read", func(t *testing.T) {
		r := &rows{}
		k := []byte("key")
		_, first := r.put(k, []byte("first"))
		for i := range 20_000 {
			r.put(k, fmt.Appendf(nil, "later %d", i))
		}
		if string(first) != "first" {
			t.Errorf("the first value reads %q", first)
		}
		if len(r.leaves) != 1 || len(r.leaves[0].data) > 2*leafBytes {
			t.Errorf("replacing one row grew its leaf to %d bytes", len(r.leaves[0].data))
		}
	})
	t.Run("fills leaves when keys ascend", func(t *testing.T) {
		r := &rows{}
		for i := range 100 * leafEntries {
			r.put(fmt.Appendf(nil, "%08d", i), []byte("row"))
		}
		if len(r.leaves) > 101 {
			t.Errorf("%d leaves for %d full ones", len(r.leaves), 100)
		}
	})
}

func BenchmarkRowsPut(b *testing.B) {
	for _, order := range []string{"ascending", "random"} {
		b.Run(order, func(b *testing.B) {
			b.ReportAllocs()
			r := &rows{}
			row := bytes.Repeat([]byte("x"), 100)
			var key [8]byte
			x := uint64(1)
			for i := 0; b.Loop(); i++ {
				n := uint64(i)
				if order == "random" {
					x ^= x << 13
					x ^= x >> 7
					x ^= x << 17
					n = x
				}
				for j := range key {
					key[j] = byte(n >> (56 - 8*j))
				}
				r.put(key[:], row)
			}
		})
	}
}
