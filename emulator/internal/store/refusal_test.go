package store

import (
	"errors"
	"fmt"
	"os"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"go.etcd.io/bbolt"

	"github.com/watermill-ots/watermill-ots/internal/plainbuffer"
)

var errDisk = errors.New("no space left on device")

// gate makes commits wait, and fail if the test says so.
type gate struct {
	entered chan struct{} // receives a value when a commit waits
	release chan error    // the error with which the commit then fails, or nil
	update  func(func(*bbolt.Tx) error) error
}

// shut puts a gate before the store's disk.
func shut(s *Store) *gate {
	g := &gate{entered: make(chan struct{}), release: make(chan error), update: s.commits.update}
	s.commits.update = func(f func(*bbolt.Tx) error) error {
		g.entered <- struct{}{}
		if err := <-g.release; err != nil {
			return err
		}
		return g.update(f)
	}
	return g
}

// open lets every later commit through. None may be waiting.
func (g *gate) open(s *Store) { s.commits.update = g.update }

// seen are the ways in which callers see a store's contents. At the start table
// t has row 1 with a=old in partition 0.
var seen = map[string]struct {
	change func(s *Store, t *Table) error // the change that the disk delays
	look   func(s *Store) string          // how a caller may see it
}{
	"a row": {put, func(s *Store) string {
		return view(s, func(t *Table) (string, error) {
			var r plainbuffer.Row
			_, err := t.Get(pk(1, "s"), &r)
			return cellsText(r.Cells), err
		})
	}},
	"a range": {put, func(s *Store) string {
		return view(s, func(t *Table) (string, error) {
			found, _, err := t.Scan(nil, nil, nil, false, 10)
			return fmt.Sprintf("%x", found), err
		})
	}},
	"base data": {put, func(s *Store) string {
		page, err := s.ReadBase(nil, idOf(s), nil, nil, 10, 1<<20)
		return fmt.Sprintf("%x %v", page.Data, err)
	}},
	"the stream": {put, func(s *Store) string {
		list, err := s.Shards(idOf(s))
		if err != nil {
			return err.Error()
		}
		page, err := s.ReadShard(nil, idOf(s), list[0].ID, 0, time.Time{}, 10, 1<<20)
		return fmt.Sprintf("%x %v", page.Data, err)
	}},
	"a condition": {remove, func(s *Store) string {
		t, err := s.Table("t")
		if err != nil {
			return err.Error()
		}
		c := change(UpdateRow, 1, text("b", "1"))
		c.Expect = ExpectExist
		return fmt.Sprint(t.Apply([]*Change{c}, false), c.Err)
	}},
	"an atomic refusal": {remove, func(s *Store) string {
		t, err := s.Table("t")
		if err != nil {
			return err.Error()
		}
		c := change(UpdateRow, 1, text("b", "1"))
		c.Expect = ExpectExist
		return fmt.Sprint(t.Apply([]*Change{c}, true))
	}},
	"the end of a shard": {func(s *Store, _ *Table) error { return s.Split("t") }, func(s *Store) string {
		page, err := s.ReadShard(nil, idOf(s), firstShard(s), 1, time.Time{}, 10, 1<<20)
		return fmt.Sprint(page.End, err)
	}},
	"shards": {func(s *Store, _ *Table) error { return s.Split("t") }, func(s *Store) string {
		list, err := s.Shards(idOf(s))
		return fmt.Sprint(len(list), err)
	}},
	"ranges": {func(s *Store, _ *Table) error { return s.Split("t") }, func(s *Store) string {
		list, err := s.BaseRanges(idOf(s))
		return fmt.Sprint(len(list), err)
	}},
	"a table created": {func(s *Store, _ *Table) error { return s.CreateTable(schema("other"), StreamSpec{}, nil) }, func(s *Store) string {
		var names []string
		err := s.Read(func() error { names = s.Tables(); return nil })
		return fmt.Sprint(names, err)
	}},
	"a table deleted": {func(s *Store, _ *Table) error { return s.DeleteTable("t") }, func(s *Store) string {
		var names []string
		err := s.Read(func() error { names = s.Tables(); return nil })
		return fmt.Sprint(names, err)
	}},
	"a table deleted, by its stream": {func(s *Store, _ *Table) error { return s.DeleteTable("t") }, func(s *Store) string {
		_, err := s.Stream(idOf(s), false)
		return fmt.Sprint(err)
	}},
	"options": {func(s *Store, t *Table) error {
		return t.Update(&Options{TTL: -1, MaxVersions: 7, Deviation: 1}, nil, nil)
	}, func(s *Store) string {
		return view(s, func(t *Table) (string, error) { return fmt.Sprint(t.Schema().Options), nil })
	}},
	"a stream turned off": {func(s *Store, t *Table) error { return t.Update(nil, nil, &StreamSpec{}) }, func(s *Store) string {
		info, err := s.Stream(idOf(s), false)
		return fmt.Sprint(info.Enabled, err)
	}},
	"state":         {func(s *Store, _ *Table) error { return s.SaveState(map[string][]byte{"k": []byte("new")}) }, state},
	"state deleted": {func(s *Store, _ *Table) error { return s.DeleteState("k") }, state},
}

func put(_ *Store, t *Table) error {
	return t.Apply([]*Change{change(PutRow, 1, text("a", "new")), change(PutRow, 2)}, false)
}

func remove(_ *Store, t *Table) error { return t.Apply([]*Change{change(DeleteRow, 1)}, false) }

func state(s *Store) string {
	out := ""
	err := s.LoadState("", func(key string, value []byte) error { out += key + "=" + string(value); return nil })
	return fmt.Sprint(out, err)
}

// view reads table t as the table API does.
func view(s *Store, f func(t *Table) (string, error)) string {
	out := ""
	err := s.Read(func() error {
		t, err := s.Table("t")
		if err == nil {
			out, err = f(t)
		}
		return err
	})
	return fmt.Sprint(out, err)
}

// firstShard returns the id of table t's first shard, durable or not.
func firstShard(s *Store) string {
	t, err := s.Table("t")
	if err != nil {
		return err.Error()
	}
	t.mu.RLock()
	defer t.mu.RUnlock()
	return t.shards[0].id
}

// filled returns a store with a data directory and table t.
func filled(t *testing.T, sync bool) *Store {
	t.Helper()
	s := open(t, Config{Dir: t.TempDir(), Sync: sync})
	table := create(t, s, schema("t"), StreamSpec{Enabled: true})
	apply(t, table, change(PutRow, 1, text("a", "old")))
	if err := s.SaveState(map[string][]byte{"k": []byte("old")}); err != nil {
		t.Fatal(err)
	}
	return s
}

func TestNothingIsSeenBeforeItIsDurable(t *testing.T) {
	for name, v := range seen {
		for what, failure := range map[string]error{"that is committed": nil, "that the disk refuses": errDisk} {
			t.Run(name+" "+what, func(t *testing.T) {
				synctest.Test(t, func(t *testing.T) {
					s := filled(t, false)
					before := v.look(s)
					g := shut(s)
					table, err := s.Table("t")
					if err != nil {
						t.Fatal(err)
					}
					written, looked := make(chan error, 1), make(chan string, 1)
					go func() { written <- v.change(s, table) }()
					<-g.entered
					go func() { looked <- v.look(s) }()
					synctest.Wait()
					select {
					case got := <-looked:
						// What was durable before may be seen meanwhile.
						if got != before {
							t.Errorf("while the commit waits %s is seen as %s, before it was %s", name, got, before)
						}
						looked <- got
					default:
					}
					g.open(s)
					g.release <- failure
					err, got := <-written, <-looked
					if failure == nil {
						if err != nil {
							t.Errorf("the change failed: %v", err)
						}
						if v.look(s) == before {
							t.Error("the change is not seen at all")
						}
						return
					}
					if code(err) != "OTSServerUnavailable" || !strings.Contains(err.Error(), errDisk.Error()) {
						t.Errorf("the change was answered with %v", err)
					}
					if got != before && !strings.Contains(got, "OTSServerUnavailable") {
						t.Errorf("the refused change is seen: %s, before %s", got, before)
					}
				})
			})
		}
	}
}

func TestRefusal(t *testing.T) {
	t.Run("refuses later writes until the disk accepts a probe", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			s := filled(t, false)
			tries, full := 0, true
			update := s.commits.update
			s.commits.update = func(f func(*bbolt.Tx) error) error {
				tries++
				if full {
					return errDisk
				}
				return update(f)
			}
			write := func() string {
				table, err := s.Table("t")
				if err != nil {
					t.Fatal(err)
				}
				return code(put(s, table))
			}
			for range 3 {
				expectText(t, "write", write(), "OTSServerUnavailable")
			}
			if tries != 1 {
				t.Errorf("three writes probed the disk %d times", tries)
			}
			time.Sleep(probeInterval)
			expectText(t, "write after the pause", write(), "OTSServerUnavailable")
			expectText(t, "the next one", write(), "OTSServerUnavailable")
			if tries != 2 {
				t.Errorf("five writes probed the disk %d times", tries)
			}
			full = false
			expectText(t, "write within the pause", write(), "OTSServerUnavailable")
			time.Sleep(probeInterval)
			expectText(t, "write when there is space", write(), "<nil>")
			expectText(t, "and the next", write(), "<nil>")
			table, err := s.Table("t")
			if err != nil {
				t.Fatal(err)
			}
			expectText(t, "row", row(t, table, 1), "[a=new][a=old]"[:7])
		})
	})
	t.Run("of a new table makes watchers check, and not save its deletion", func(t *testing.T) {
		s := filled(t, false)
		update := s.commits.update
		s.commits.update = func(func(*bbolt.Tx) error) error { return errDisk }
		told := 0
		s.Watch(func(_ string, gone bool) {
			told++
			if gone {
				t.Error("notified of a deleted table, by the goroutine that would save it")
			}
		})
		if err := s.CreateTable(schema("other"), StreamSpec{}, nil); code(err) != "OTSServerUnavailable" {
			t.Errorf("got %v", err)
		}
		if told != 2 { // about the new table and t, which was read again
			t.Errorf("notified %d times", told)
		}
		s.commits.update = update
	})
	t.Run("leaves no trace of its probe", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			s := filled(t, false)
			update, once := s.commits.update, true
			s.commits.update = func(f func(*bbolt.Tx) error) error {
				if once {
					once = false
					return errDisk
				}
				return update(f)
			}
			table, _ := s.Table("t")
			put(s, table)
			time.Sleep(probeInterval)
			if err := s.commits.revive(); err != nil {
				t.Fatal(err)
			}
			s.disk.db.View(func(tx *bbolt.Tx) error {
				if v := tx.Bucket([]byte(metaBucket)).Get([]byte("probe")); v != nil {
					t.Errorf("%d bytes are left", len(v))
				}
				return nil
			})
		})
	})
	t.Run("also takes back the writes that are queued", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			s := filled(t, false)
			g := shut(s)
			table, _ := s.Table("t")
			errs := make(chan error, 2)
			go func() { errs <- put(s, table) }()
			<-g.entered
			go func() { errs <- table.Apply([]*Change{change(PutRow, 3)}, false) }()
			synctest.Wait()
			g.open(s)
			g.release <- errDisk
			for range 2 {
				if err := <-errs; code(err) != "OTSServerUnavailable" {
					t.Errorf("got %v", err)
				}
			}
			table, _ = s.Table("t")
			expectText(t, "row 1", row(t, table, 1), "[a=old]")
			expectText(t, "row 3", row(t, table, 3), "-")
		})
	})
	t.Run("prevents the use of a table that was looked up before", func(t *testing.T) {
		s := filled(t, false)
		table, _ := s.Table("t")
		update := s.commits.update
		s.commits.update = func(func(*bbolt.Tx) error) error { return errDisk }
		put(s, table)
		var r plainbuffer.Row
		if _, err := table.Get(pk(1, "s"), &r); code(err) != "OTSServerUnavailable" {
			t.Errorf("got %v", err)
		}
		s.commits.update = update
	})
	t.Run("protects memory, also from a write that had started", func(t *testing.T) {
		s := filled(t, false)
		table, _ := s.Table("t")
		update := s.commits.update
		s.commits.update = func(func(*bbolt.Tx) error) error { return errDisk }
		put(s, table)
		table, _ = s.Table("t")
		if _, err := table.apply([]*Change{change(PutRow, 1, text("a", "late"))}, false); code(err) != "OTSServerUnavailable" {
			t.Errorf("got %v", err)
		}
		expectText(t, "row", row(t, table, 1), "[a=old]")
		s.commits.update = update
	})
	t.Run("repeats a read that saw what was taken back", func(t *testing.T) {
		s := filled(t, false)
		g := shut(s)
		table, _ := s.Table("t")
		written := make(chan error, 1)
		go func() { written <- put(s, table) }()
		<-g.entered
		var saw []string
		err := s.Read(func() error {
			table, err := s.Table("t")
			if err != nil {
				return err
			}
			saw = append(saw, row(t, table, 1))
			if len(saw) == 1 {
				g.open(s)
				g.release <- errDisk
				<-written
			}
			return nil
		})
		if err != nil || len(saw) != 2 || saw[0] != "[a=new]" || saw[1] != "[a=old]" {
			t.Errorf("saw %v, %v", saw, err)
		}
	})
	t.Run("needs more disk space than the write that was refused", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			s := filled(t, false)
			update := s.commits.update
			s.commits.update = func(func(*bbolt.Tx) error) error { return errDisk }
			table, _ := s.Table("t")
			cells := []plainbuffer.Cell{text("a", strings.Repeat("x", 2<<20)), text("b", strings.Repeat("x", 2<<20))}
			if err := table.Apply([]*Change{change(PutRow, 1, cells...)}, false); err == nil {
				t.Error("the write was accepted")
			}
			s.commits.update = update
			time.Sleep(probeInterval)
			if err := s.commits.revive(); err != nil {
				t.Fatal(err)
			}
			info, err := os.Stat(s.disk.path)
			if err != nil || info.Size() < 8<<20 { // the row and its record in the log
				t.Errorf("the file has %d bytes after the probe, %v", info.Size(), err)
			}
		})
	})
	for what, remove := range map[string]func(path string) error{
		"removed": os.Remove,
		"replaced": func(path string) error {
			b, err := os.ReadFile(path)
			return errors.Join(err, os.Rename(path, path+".old"), os.WriteFile(path, b, 0o600))
		},
	} {
		t.Run("is final when the file was "+what, func(t *testing.T) {
			s := filled(t, false)
			table, _ := s.Table("t")
			if err := remove(s.disk.path); err != nil {
				t.Fatal(err)
			}
			for range 2 {
				if err := put(s, table); code(err) != "OTSServerUnavailable" || !strings.Contains(err.Error(), s.disk.path) || !strings.Contains(err.Error(), "removed or replaced") {
					t.Errorf("got %v", err)
				}
			}
			if err := s.Read(func() error { return nil }); code(err) != "OTSServerUnavailable" {
				t.Errorf("a read: %v", err)
			}
		})
	}
	t.Run("of a flush makes the store unusable until it is reopened", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			s := filled(t, true)
			update := s.commits.update
			s.commits.update = func(f func(*bbolt.Tx) error) error {
				// The last step of a commit is the flush of the page that makes it valid.
				return errors.Join(update(f), errDisk)
			}
			table, _ := s.Table("t")
			err := put(s, table)
			s.commits.update = update
			if code(err) != "OTSServerUnavailable" || !strings.Contains(err.Error(), "restart") {
				t.Errorf("got %v", err)
			}
			time.Sleep(time.Hour)
			if err := s.Read(func() error { return nil }); code(err) != "OTSServerUnavailable" {
				t.Errorf("a read: %v", err)
			}
			if err := s.SaveState(map[string][]byte{"k": nil}); code(err) != "OTSServerUnavailable" {
				t.Errorf("a write: %v", err)
			}
		})
	})
}

// idOf returns the id of the table "t", or nothing if there is none.
func idOf(s *Store) string {
	id, err := s.TableID("t")
	if err != nil {
		return ""
	}
	return id
}
