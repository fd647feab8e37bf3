package store

import (
	"bytes"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"go.etcd.io/bbolt"

	"github.com/watermill-ots/watermill-ots/internal/plainbuffer"
)

// fill adds something of every kind to a store.
func fill(t *testing.T, s *Store) {
	t.Helper()
	table := create(t, s, schema("t"), StreamSpec{Enabled: true, Origin: []string{"a"}}, 50)
	for id := range int64(100) {
		apply(t, table, change(PutRow, id, text("a", "1")))
	}
	if err := s.Split("t"); err != nil {
		t.Fatal(err)
	}
	for id := range int64(100) {
		apply(t, table, change(UpdateRow, id, text("b", "1")))
	}
	apply(t, table, change(DeleteRow, 3))
	create(t, s, schema("empty"), StreamSpec{})
	gone := create(t, s, schema("gone"), StreamSpec{Enabled: true})
	apply(t, gone, change(PutRow, 1))
	if err := s.DeleteTable("gone"); err != nil {
		t.Fatal(err)
	}
	if err := s.SaveState(map[string][]byte{"x/1": []byte("one"), "x/2": []byte("two"), "y": []byte("three")}); err != nil {
		t.Fatal(err)
	}
	if err := s.DeleteState("x/1"); err != nil {
		t.Fatal(err)
	}
}

// picture returns a store's whole contents as text.
func picture(t *testing.T, s *Store) string {
	t.Helper()
	var b strings.Builder
	for _, name := range s.Tables() {
		table, err := s.Table(name)
		if err != nil {
			t.Fatal(err)
		}
		fmt.Fprintf(&b, "table %s %s %+v %x\n", name, table.ID(), table.Schema(), table.Bounds())
		page, err := s.ReadBase(nil, tableID(t, s, name), nil, nil, 1<<30, 1<<30)
		if err != nil {
			t.Fatal(err)
		}
		for _, r := range decodeRecords(t, page.Data) {
			fmt.Fprintln(&b, r)
		}
		for _, sh := range shards(t, s, name) {
			fmt.Fprintf(&b, "shard %s %v %v\n", sh.ID, sh.Parents, sh.Closed)
			for _, r := range log(t, s, name, sh.ID) {
				fmt.Fprintln(&b, r, r.row.Sequence)
			}
		}
	}
	err := s.LoadState("", func(key string, value []byte) error {
		fmt.Fprintf(&b, "state %s=%s\n", key, value)
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	return b.String()
}

func TestDisk(t *testing.T) {
	t.Run("keeps everything over a restart", func(t *testing.T) {
		dir := t.TempDir()
		s := open(t, Config{Dir: dir})
		fill(t, s)
		before := picture(t, s)
		if err := s.Close(); err != nil {
			t.Fatal(err)
		}
		s = open(t, Config{Dir: dir})
		if after := picture(t, s); after != before {
			t.Errorf("before:\n%s\nafter:\n%s", before, after)
		}
		for _, want := range []string{"state x/2=two", "state y=three", "table empty"} {
			if !strings.Contains(before, want) {
				t.Errorf("%q is missing", want)
			}
		}
	})
	t.Run("continues after a restart where it was", func(t *testing.T) {
		dir := t.TempDir()
		c := newClock()
		s := open(t, Config{Dir: dir, Now: c.Now})
		table := create(t, s, schema("t"), StreamSpec{Enabled: true})
		apply(t, table, change(PutRow, 1))
		s.Close()
		c.advance(-time.Hour)
		s = open(t, Config{Dir: dir, Now: c.Now})
		table, err := s.Table("t")
		if err != nil {
			t.Fatal(err)
		}
		apply(t, table, change(PutRow, 2))
		records := log(t, s, "t", shards(t, s, "t")[0].ID)
		if len(records) != 2 || records[1].row.Sequence.Timestamp <= records[0].row.Sequence.Timestamp {
			t.Errorf("got %v", records)
		}
	})
	t.Run("drops a deleted table's buckets", func(t *testing.T) {
		dir := t.TempDir()
		s := open(t, Config{Dir: dir})
		fill(t, s)
		for _, name := range s.Tables() {
			if err := s.DeleteTable(name); err != nil {
				t.Fatal(err)
			}
		}
		s.Close()
		db, err := bbolt.Open(filepath.Join(dir, fileName), 0o600, nil)
		if err != nil {
			t.Fatal(err)
		}
		defer db.Close()
		db.View(func(tx *bbolt.Tx) error {
			return tx.ForEach(func(name []byte, _ *bbolt.Bucket) error {
				if s := string(name); strings.HasPrefix(s, rowBucketPrefix) || strings.HasPrefix(s, logBucketPrefix) {
					t.Errorf("bucket %s is left", s)
				}
				return nil
			})
		})
	})
	t.Run("refuses a directory that another process uses, without a hang", func(t *testing.T) {
		dir := t.TempDir()
		open(t, Config{Dir: dir})
		began := time.Now()
		_, err := Open(Config{Dir: dir}) // flock is per open file, so this process counts as another
		refused(t, err, ErrInUse, dir)
		if d := time.Since(began); d > 10*lockTimeout {
			t.Errorf("that took %v", d)
		}
	})
	t.Run("refuses a directory with other things", func(t *testing.T) {
		dir := t.TempDir()
		os.WriteFile(filepath.Join(dir, "thesis.doc"), []byte("x"), 0o600)
		_, err := Open(Config{Dir: dir})
		refused(t, err, ErrForeign, dir)
	})
	t.Run("refuses another file with its name", func(t *testing.T) {
		dir := t.TempDir()
		os.WriteFile(filepath.Join(dir, fileName), bytes.Repeat([]byte("not bbolt "), 5000), 0o600)
		_, err := Open(Config{Dir: dir})
		refused(t, err, ErrForeign, dir)
	})
	t.Run("refuses another program's bbolt file", func(t *testing.T) {
		dir := t.TempDir()
		db, err := bbolt.Open(filepath.Join(dir, fileName), 0o600, nil)
		if err != nil {
			t.Fatal(err)
		}
		db.Update(func(tx *bbolt.Tx) error { _, err := tx.CreateBucket([]byte("theirs")); return err })
		db.Close()
		_, err = Open(Config{Dir: dir})
		refused(t, err, ErrForeign, dir)
	})
	t.Run("refuses another version's data", func(t *testing.T) {
		dir := t.TempDir()
		open(t, Config{Dir: dir}).Close()
		db, err := bbolt.Open(filepath.Join(dir, fileName), 0o600, nil)
		if err != nil {
			t.Fatal(err)
		}
		db.Update(func(tx *bbolt.Tx) error {
			return tx.Bucket([]byte(metaBucket)).Put([]byte("format"), []byte("ots-emulator 99"))
		})
		db.Close()
		_, err = Open(Config{Dir: dir})
		refused(t, err, ErrForeign, dir)
		if !strings.Contains(err.Error(), "ots-emulator 99") {
			t.Errorf("the error does not name the format: %v", err)
		}
	})
	t.Run("refuses a path that is a file", func(t *testing.T) {
		file := filepath.Join(t.TempDir(), "file")
		os.WriteFile(file, nil, 0o600)
		if _, err := Open(Config{Dir: file}); err == nil || !strings.Contains(err.Error(), file) {
			t.Errorf("got %v", err)
		}
	})
}

func refused(t *testing.T, err, want error, dir string) {
	t.Helper()
	if !errors.Is(err, want) {
		t.Fatalf("got %v, want %v", err, want)
	}
	if !strings.Contains(err.Error(), dir) {
		t.Errorf("the error does not name %s: %v", dir, err)
	}
}

// TestDamage changes and truncates files at random. A file that opens must hold
// the rows that were written; damage to an unused page may go unnoticed.
func TestDamage(t *testing.T) {
	dir := t.TempDir()
	s := open(t, Config{Dir: dir})
	fill(t, s)
	// bbolt uses the previous commit if it finds the last one's meta page
	// damaged; both must hold the same.
	for range 2 {
		if err := s.SaveState(map[string][]byte{"y": []byte("three")}); err != nil {
			t.Fatal(err)
		}
	}
	want := picture(t, s)
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	good, err := os.ReadFile(filepath.Join(dir, fileName))
	if err != nil {
		t.Fatal(err)
	}
	try := func(t *testing.T, b []byte, what string) (opened bool) {
		dir := t.TempDir()
		if err := os.WriteFile(filepath.Join(dir, fileName), b, 0o600); err != nil {
			t.Fatal(err)
		}
		s, err := Open(Config{Dir: dir})
		if err != nil {
			if !errors.Is(err, ErrDamaged) && !errors.Is(err, ErrForeign) || !strings.Contains(err.Error(), dir) {
				t.Errorf("%s: %v", what, err)
			}
			return false
		}
		defer s.Close()
		if got := picture(t, s); got != want {
			t.Errorf("%s: opened with other contents", what)
		}
		return true
	}
	t.Run("a truncated file is refused", func(t *testing.T) {
		for _, n := range []int{1, 100, 4096, 8192, 16384, len(good) / 2, len(good) * 3 / 4} {
			if n < len(good) {
				try(t, good[:n], fmt.Sprintf("%d of %d bytes", n, len(good)))
			}
		}
	})
	t.Run("a changed byte is refused or does not matter", func(t *testing.T) {
		seed := rand.Uint64()
		t.Logf("seed %d", seed)
		random := rand.New(rand.NewPCG(seed, seed))
		refusals := 0
		tries := 300
		if testing.Short() {
			tries = 60
		}
		for range tries {
			b := bytes.Clone(good)
			i := random.IntN(len(b))
			b[i] ^= byte(1 + random.IntN(255))
			if !try(t, b, fmt.Sprintf("byte %d", i)) {
				refusals++
			}
		}
		t.Logf("%d of %d were refused", refusals, tries)
	})
	t.Run("a file that lost all its bytes is refused", func(t *testing.T) {
		dir := t.TempDir()
		os.WriteFile(filepath.Join(dir, fileName), nil, 0o600)
		_, err := Open(Config{Dir: dir})
		refused(t, err, ErrDamaged, dir)
	})
}

func BenchmarkLoad(b *testing.B) {
	dir := b.TempDir()
	s, err := Open(Config{Dir: dir})
	if err != nil {
		b.Fatal(err)
	}
	if err := s.CreateTable(schema("t"), StreamSpec{}, nil); err != nil {
		b.Fatal(err)
	}
	table, _ := s.Table("t")
	const rows = 200_000
	for first := int64(0); first < rows; first += 1000 {
		var changes []*Change
		for id := first; id < first+1000; id++ {
			changes = append(changes, &Change{Action: PutRow, Row: &plainbuffer.Row{PrimaryKey: pk(id, "s"), Cells: []plainbuffer.Cell{text("a", "some text of a row")}}})
		}
		if err := table.Apply(changes, false); err != nil {
			b.Fatal(err)
		}
	}
	if err := s.Close(); err != nil {
		b.Fatal(err)
	}
	for b.Loop() {
		s, err := Open(Config{Dir: dir})
		if err != nil {
			b.Fatal(err)
		}
		s.Close()
	}
	b.ReportMetric(rows*float64(b.N)/b.Elapsed().Seconds(), "rows/s")
}
