package store

import (
	"fmt"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/watermill-ots/watermill-ots/emulator/internal/tunnels"
	"github.com/watermill-ots/watermill-ots/internal/plainbuffer"
)

func TestLog(t *testing.T) {
	t.Run("holds the full row of a put and the changed cells of an update", func(t *testing.T) {
		s := open(t, Config{})
		table := create(t, s, schema("t"), StreamSpec{Enabled: true})
		apply(t, table, change(PutRow, 1, text("b", "1"), text("a", "1")))
		apply(t, table, change(UpdateRow, 1, text("c", "1"), plainbuffer.Cell{Name: "a", Op: plainbuffer.DeleteAllVersion}))
		apply(t, table, change(DeleteRow, 1))
		expectLog(t, s, "t", shards(t, s, "t")[0].ID,
			"PUT_ROW 1 [a=1][b=1]", "UPDATE_ROW 1 [c=1][a gone]", "DELETE_ROW 1 ")
		for _, r := range log(t, s, "t", shards(t, s, "t")[0].ID) {
			for _, c := range r.row.Cells {
				if c.Op == plainbuffer.Put && !c.HasTimestamp {
					t.Errorf("the put of %s has no timestamp, which the Java SDK refuses", c.Name)
				}
			}
		}
	})
	t.Run("does not hold changes that a condition refused", func(t *testing.T) {
		s := open(t, Config{})
		table := create(t, s, schema("t"), StreamSpec{Enabled: true})
		c := change(PutRow, 1)
		c.Expect = ExpectExist
		if err := table.Apply([]*Change{c, change(PutRow, 2)}, false); err != nil {
			t.Fatal(err)
		}
		expectLog(t, s, "t", shards(t, s, "t")[0].ID, "PUT_ROW 2 ")
	})
	t.Run("holds the origin columns with their previous values", func(t *testing.T) {
		c := newClock()
		s := open(t, Config{Now: c.Now})
		table := create(t, s, schema("t"), StreamSpec{Enabled: true, Origin: []string{"a", "missing"}})
		apply(t, table, change(PutRow, 1, text("a", "1"), text("b", "1")))
		c.advance(time.Second)
		apply(t, table, change(UpdateRow, 1, text("a", "2")))
		apply(t, table, change(DeleteRow, 1))
		expectLog(t, s, "t", shards(t, s, "t")[0].ID,
			"PUT_ROW 1 [a=1][b=1]", "UPDATE_ROW 1 [a=2] was [a=1]", "DELETE_ROW 1  was [a=2]")
	})
	t.Run("gives each write a later time, and the rows of a batch the same time and an index each", func(t *testing.T) {
		c := newClock() // stands still
		s := open(t, Config{Now: c.Now})
		table := create(t, s, schema("t"), StreamSpec{Enabled: true})
		apply(t, table, change(PutRow, 1))
		apply(t, table, change(PutRow, 2), change(PutRow, 3), change(PutRow, 4))
		apply(t, table, change(PutRow, 5))
		now := c.Now().UnixMicro()
		want := []plainbuffer.Sequence{{Timestamp: now}, {Timestamp: now + 1}, {Timestamp: now + 1, RowIndex: 1}, {Timestamp: now + 1, RowIndex: 2}, {Timestamp: now + 2}}
		for i, r := range log(t, s, "t", shards(t, s, "t")[0].ID) {
			if !r.row.HasSequence || r.row.Sequence != want[i] {
				t.Errorf("record %d has sequence %v, want %v", i, r.row.Sequence, want[i])
			}
		}
	})
	t.Run("never goes back in time with the clock", func(t *testing.T) {
		c := newClock()
		s := open(t, Config{Now: c.Now})
		table := create(t, s, schema("t"), StreamSpec{Enabled: true})
		apply(t, table, change(PutRow, 1))
		c.advance(-time.Hour)
		apply(t, table, change(PutRow, 1))
		records := log(t, s, "t", shards(t, s, "t")[0].ID)
		if a, b := records[0].row.Sequence.Timestamp, records[1].row.Sequence.Timestamp; b <= a {
			t.Errorf("%d after %d", b, a)
		}
	})
	t.Run("ends when the stream is turned off, and starts anew", func(t *testing.T) {
		s := open(t, Config{})
		table := create(t, s, schema("t"), StreamSpec{Enabled: true})
		apply(t, table, change(PutRow, 1))
		old := shards(t, s, "t")[0].ID
		if err := table.Update(nil, nil, &StreamSpec{}); err != nil {
			t.Fatal(err)
		}
		apply(t, table, change(PutRow, 2))
		if _, err := s.Stream(tableID(t, s, "t"), true); err != nil {
			t.Fatal(err)
		}
		apply(t, table, change(PutRow, 3))
		if _, err := s.ReadShard(nil, tableID(t, s, "t"), old, 0, time.Time{}, 1, 1); code(err) != "OTSParameterInvalid" {
			t.Errorf("reading the old shard: %v", err)
		}
		expectLog(t, s, "t", shards(t, s, "t")[0].ID, "PUT_ROW 3 ")
	})
}

func TestReadShard(t *testing.T) {
	c := newClock()
	s := open(t, Config{Now: c.Now})
	table := create(t, s, schema("t"), StreamSpec{Enabled: true})
	start := c.Now()
	for id := range int64(10) {
		apply(t, table, change(PutRow, id, text("a", "x")))
		c.advance(time.Minute)
	}
	shard := shards(t, s, "t")[0].ID
	read := func(offset int64, before time.Time, rows, bytes int) tunnels.ShardPage {
		t.Helper()
		page, err := s.ReadShard([]byte("kept"), tableID(t, s, "t"), shard, offset, before, rows, bytes)
		if err != nil {
			t.Fatal(err)
		}
		if string(page.Data[:4]) != "kept" {
			t.Errorf("the page is not appended to dst")
		}
		page.Data = page.Data[4:]
		return page
	}
	size := len(read(0, time.Time{}, 1, 1<<20).Data)
	for _, v := range []struct {
		name        string
		offset      int64
		before      time.Time
		rows, bytes int
		want        tunnels.ShardPage // without Data
	}{
		{"stops at the number of rows", 2, time.Time{}, 3, 1 << 20, tunnels.ShardPage{Records: 3, Next: 5, More: true, LastTime: start.Add(4 * time.Minute)}},
		{"stops at the number of bytes", 0, time.Time{}, 100, 2*size + 1, tunnels.ShardPage{Records: 2, Next: 2, More: true, LastTime: start.Add(time.Minute)}},
		{"reads one record at least", 0, time.Time{}, 100, 1, tunnels.ShardPage{Records: 1, Next: 1, More: true, LastTime: start}},
		{"reports that the tail is reached", 8, time.Time{}, 100, 1 << 20, tunnels.ShardPage{Records: 2, Next: 10, LastTime: start.Add(9 * time.Minute)}},
		{"is empty at the tail", 10, time.Time{}, 100, 1 << 20, tunnels.ShardPage{Next: 10}},
		{"ends before a time", 0, start.Add(3 * time.Minute), 100, 1 << 20, tunnels.ShardPage{Records: 3, Next: 3, End: true, LastTime: start.Add(2 * time.Minute)}},
		{"has more before a time", 0, start.Add(3 * time.Minute), 2, 1 << 20, tunnels.ShardPage{Records: 2, Next: 2, More: true, LastTime: start.Add(time.Minute)}},
		{"has more before a time by bytes", 0, start.Add(3 * time.Minute), 100, 2*size + 1, tunnels.ShardPage{Records: 2, Next: 2, More: true, LastTime: start.Add(time.Minute)}},
		{"ends when the time has come without a record", 10, start.Add(10 * time.Minute), 100, 1 << 20, tunnels.ShardPage{Next: 10, End: true}},
		{"continues until the time has come", 10, start.Add(11 * time.Minute), 100, 1 << 20, tunnels.ShardPage{Next: 10}},
	} {
		t.Run(v.name, func(t *testing.T) {
			got := read(v.offset, v.before, v.rows, v.bytes)
			if n := len(decodeRecords(t, got.Data)); n != got.Records {
				t.Errorf("%d records in the page, which reports %d", n, got.Records)
			}
			got.Data = nil
			if !got.LastTime.Equal(v.want.LastTime) {
				t.Errorf("last time %v, want %v", got.LastTime, v.want.LastTime)
			}
			known := c.Now() // at the tail everything up to now is known
			if got.More {
				known = got.LastTime
			}
			if !got.Known.Equal(known) {
				t.Errorf("everything is known up to %v, want %v", got.Known, known)
			}
			got.LastTime, got.Known, v.want.LastTime = time.Time{}, time.Time{}, time.Time{}
			if fmt.Sprint(got) != fmt.Sprint(v.want) {
				t.Errorf("got %+v, want %+v", got, v.want)
			}
		})
	}
	for _, v := range []struct {
		name   string
		at     time.Time
		offset int64
	}{
		{"the zero time is the oldest", time.Time{}, 0},
		{"a record's time is that record", start.Add(4 * time.Minute), 4},
		{"between two records is the later", start.Add(4*time.Minute + 1000), 5},
		{"before all is the oldest", start.Add(-time.Hour), 0},
		{"after all is the tail", start.Add(time.Hour), 10},
	} {
		t.Run("seek: "+v.name, func(t *testing.T) {
			offset, truncated, err := s.SeekShard(tableID(t, s, "t"), shard, v.at)
			if err != nil || truncated || offset != v.offset {
				t.Errorf("got %d, %v, %v; want %d", offset, truncated, err, v.offset)
			}
		})
	}
}

func TestExpiry(t *testing.T) {
	for _, mode := range []string{"memory", "disk"} {
		t.Run("drops records older than the retention, "+mode, func(t *testing.T) {
			c := newClock()
			cfg := Config{Now: c.Now}
			if mode == "disk" {
				cfg.Dir = t.TempDir()
			}
			s := open(t, cfg)
			table := create(t, s, schema("t"), StreamSpec{Enabled: true, Expiration: time.Hour})
			start := c.Now()
			for id := range int64(10) {
				apply(t, table, change(PutRow, id))
				c.advance(10 * time.Minute)
			}
			shard := shards(t, s, "t")[0].ID
			check := func(what string, s *Store, offset int64) {
				t.Helper()
				page, err := s.ReadShard(nil, tableID(t, s, "t"), shard, 0, time.Time{}, 1, 1<<20)
				if err != nil || page.Trimmed != (offset > 0) || page.Next != min(offset+1, 10) {
					t.Errorf("%s: reading from 0: %+v, %v; want to begin at %d", what, page, err, offset)
				}
				for _, v := range []struct {
					at        time.Duration
					truncated bool
				}{{0, offset > 0}, {time.Duration(offset-1) * 10 * time.Minute, offset > 0}, {time.Duration(offset-1)*10*time.Minute + time.Second, false}} {
					got, truncated, err := s.SeekShard(tableID(t, s, "t"), shard, start.Add(v.at))
					if err != nil || truncated != v.truncated || got != offset {
						t.Errorf("%s: seeking %v: %d, %v, %v; want %d, %v", what, v.at, got, truncated, err, offset, v.truncated)
					}
				}
			}
			// The clock is at minute 100, the horizon at minute 40.
			check("at minute 100", s, 4)
			c.advance(25 * time.Minute)
			check("at minute 125", s, 7)
			if mode == "disk" {
				if err := s.Close(); err != nil {
					t.Fatal(err)
				}
				s = open(t, cfg)
				check("after a restart", s, 7)
			}
			c.advance(24 * time.Hour)
			page, err := s.ReadShard(nil, tableID(t, s, "t"), shard, 0, time.Time{}, 1, 1<<20)
			if err != nil || page.Next != 10 || page.Records != 0 || !page.Trimmed {
				t.Errorf("a day later: %+v, %v", page, err)
			}
			if mode == "disk" {
				if err := s.Close(); err != nil {
					t.Fatal(err)
				}
				s = open(t, cfg)
			}
			table, _ = s.Table("t")
			apply(t, table, change(PutRow, 99))
			if page, err := s.ReadShard(nil, tableID(t, s, "t"), shard, 10, time.Time{}, 1, 1<<20); err != nil || page.Next != 11 || page.Trimmed {
				t.Errorf("offsets do not continue: %+v, %v", page, err)
			}
		})
	}
	t.Run("drops closed shards", func(t *testing.T) {
		c := newClock()
		s := open(t, Config{Now: c.Now})
		table := create(t, s, schema("t"), StreamSpec{Enabled: true, Expiration: time.Hour})
		apply(t, table, change(PutRow, 1), change(PutRow, 2))
		if err := s.Split("t"); err != nil {
			t.Fatal(err)
		}
		c.advance(2 * time.Hour)
		for _, sh := range shards(t, s, "t") {
			if sh.Closed || len(sh.Parents) > 0 {
				t.Errorf("shard %+v is left", sh)
			}
		}
	})
}

func TestSplitAndMerge(t *testing.T) {
	t.Run("closes the shard and opens two children", func(t *testing.T) {
		s := open(t, Config{})
		table := create(t, s, schema("t"), StreamSpec{Enabled: true})
		for id := range int64(10) {
			apply(t, table, change(PutRow, id))
		}
		if err := s.Split("t"); err != nil {
			t.Fatal(err)
		}
		list := shards(t, s, "t")
		if len(list) != 3 || !list[0].Closed || list[1].Closed || list[2].Closed {
			t.Fatalf("shards are %+v", list)
		}
		for _, child := range list[1:] {
			if !slices.Equal(child.Parents, []string{list[0].ID}) {
				t.Errorf("the parents of %s are %v", child.ID, child.Parents)
			}
		}
		page, err := s.ReadShard(nil, tableID(t, s, "t"), list[0].ID, 0, time.Time{}, 100, 1<<20)
		if err != nil || !page.End || page.Records != 10 {
			t.Errorf("the parent reads %+v, %v", page, err)
		}
		apply(t, table, change(PutRow, 4), change(PutRow, 5))
		expectLog(t, s, "t", list[1].ID, "PUT_ROW 4 ")
		expectLog(t, s, "t", list[2].ID, "PUT_ROW 5 ")
		if err := s.Merge("t"); err != nil {
			t.Fatal(err)
		}
		list = shards(t, s, "t")
		if merged := list[3]; !slices.Equal(merged.Parents, []string{list[1].ID, list[2].ID}) || merged.Closed || !list[1].Closed || !list[2].Closed {
			t.Errorf("after the merge the shards are %+v", list)
		}
		expectText(t, "row", row(t, table, 4), "")
		expectText(t, "row", row(t, table, 9), "")
	})
	t.Run("continues time and raises the epoch", func(t *testing.T) {
		c := newClock()
		s := open(t, Config{Now: c.Now})
		table := create(t, s, schema("t"), StreamSpec{Enabled: true})
		apply(t, table, change(PutRow, 1), change(PutRow, 2))
		c.advance(-time.Hour)
		if err := s.Split("t"); err != nil {
			t.Fatal(err)
		}
		apply(t, table, change(PutRow, 1))
		list := shards(t, s, "t")
		parent, child := log(t, s, "t", list[0].ID)[0].row.Sequence, log(t, s, "t", list[1].ID)[0].row.Sequence
		if child.Timestamp <= parent.Timestamp || child.Epoch != parent.Epoch+1 {
			t.Errorf("child's %v does not follow parent's %v", child, parent)
		}
	})
	t.Run("never cuts a partition key in two", func(t *testing.T) {
		s := open(t, Config{})
		table := create(t, s, schema("t"), StreamSpec{Enabled: true})
		for i := range 10 {
			apply(t, table, &Change{Action: PutRow, Row: &plainbuffer.Row{PrimaryKey: pk(7, fmt.Sprint(i))}})
		}
		apply(t, table, change(PutRow, 8))
		if err := s.Split("t"); err != nil {
			t.Fatal(err)
		}
		if b := table.Bounds(); len(b) != 1 {
			t.Fatalf("%d bounds", len(b))
		}
		apply(t, table, change(PutRow, 7), change(PutRow, 8))
		list := shards(t, s, "t")
		expectLog(t, s, "t", list[1].ID, "PUT_ROW 7 ")
		expectLog(t, s, "t", list[2].ID, "PUT_ROW 8 ")
	})
	t.Run("splits an empty table of any key type", func(t *testing.T) {
		for _, kind := range []plainbuffer.Kind{plainbuffer.Integer, plainbuffer.String, plainbuffer.Binary} {
			s := open(t, Config{})
			sc := schema("t")
			sc.Key[0].Kind = kind
			table := create(t, s, sc, StreamSpec{})
			for range 4 {
				if err := s.Split("t"); err != nil {
					t.Fatal(err)
				}
			}
			if n := len(table.Bounds()); n != 4 {
				t.Errorf("%d bounds after 4 splits", n)
			}
			for range 4 {
				if err := s.Merge("t"); err != nil {
					t.Fatal(err)
				}
			}
			if err := s.Merge("t"); code(err) != "OTSParameterInvalid" {
				t.Errorf("merging one partition: %v", err)
			}
		}
	})
	t.Run("neither loses nor repeats writes meanwhile", func(t *testing.T) {
		s := open(t, Config{})
		table := create(t, s, schema("t"), StreamSpec{Enabled: true})
		const writers, writes = 4, 300
		var wg sync.WaitGroup
		for w := range int64(writers) {
			wg.Go(func() {
				for i := range int64(writes) {
					c := change(UpdateRow, i*writers+w, number("n", i))
					if err := table.Apply([]*Change{c}, false); err != nil || c.Err != nil {
						t.Errorf("writing: %v, %v", err, c.Err)
					}
				}
			})
		}
		for i := range 40 {
			reshape := s.Split
			if i%3 == 2 {
				reshape = s.Merge
			}
			if err := reshape("t"); err != nil {
				t.Error(err)
			}
		}
		wg.Wait()
		seen := map[int64]int{}
		for _, sh := range shards(t, s, "t") {
			for _, r := range log(t, s, "t", sh.ID) {
				seen[r.row.PrimaryKey[0].Value.Integer()]++
			}
		}
		rows, err := s.ReadBase(nil, tableID(t, s, "t"), nil, nil, 1<<30, 1<<30)
		if err != nil || rows.Records != writers*writes || len(seen) != writers*writes {
			t.Errorf("%d rows, %d keys in the log, %v; want %d", rows.Records, len(seen), err, writers*writes)
		}
		for id, n := range seen {
			if n != 1 {
				t.Errorf("%d is in the log %d times", id, n)
			}
		}
	})
}

func TestReadBase(t *testing.T) {
	s := open(t, Config{})
	table := create(t, s, schema("t"), StreamSpec{}, 30, 60)
	for id := range int64(100) {
		apply(t, table, change(PutRow, id, text("a", "x")))
	}
	ranges, err := s.BaseRanges(tableID(t, s, "t"))
	if err != nil || len(ranges) != 3 || ranges[0].Start != nil || ranges[2].End != nil {
		t.Fatalf("ranges are %v, %v", ranges, err)
	}
	read := func(between func()) (ids []int64) {
		for _, r := range ranges {
			for start := r.Start; ; {
				page, err := s.ReadBase(nil, tableID(t, s, "t"), start, r.End, 7, 1<<20)
				if err != nil {
					t.Fatal(err)
				}
				for _, rec := range decodeRecords(t, page.Data) {
					if rec.row.HasSequence || rec.action != 1 {
						t.Errorf("base record %s has a sequence or is not a put", rec)
					}
					ids = append(ids, rec.row.PrimaryKey[0].Value.Integer())
				}
				between()
				if start = page.Next; start == nil {
					break
				}
			}
		}
		return ids
	}
	want := make([]int64, 100)
	for i := range want {
		want[i] = int64(i)
	}
	t.Run("pages cover each range once", func(t *testing.T) {
		if got := read(func() {}); !slices.Equal(got, want) {
			t.Errorf("got %v", got)
		}
	})
	t.Run("also when partitions split and merge between pages", func(t *testing.T) {
		step := 0
		got := read(func() {
			reshape := s.Split
			if step++; step%2 == 0 {
				reshape = s.Merge
			}
			if err := reshape("t"); err != nil {
				t.Fatal(err)
			}
		})
		if !slices.Equal(got, want) {
			t.Errorf("got %v", got)
		}
	})
	t.Run("stops at the number of bytes, after one row at least", func(t *testing.T) {
		page, err := s.ReadBase(nil, tableID(t, s, "t"), nil, nil, 100, 1)
		if err != nil || page.Records != 1 || page.Next == nil {
			t.Errorf("got %+v, %v", page, err)
		}
	})
	t.Run("refuses a start that is not a key of the table", func(t *testing.T) {
		for _, start := range [][]byte{{}, {1, 2, 3}, plainbuffer.AppendPrimaryKey(nil, pk(1, "s")[:1])} {
			if _, err := s.ReadBase(nil, tableID(t, s, "t"), start, nil, 100, 1); err == nil {
				t.Errorf("%x is accepted", start)
			}
		}
	})
}

func TestKnown_stops_at_a_write_that_nobody_can_read_yet(t *testing.T) {
	now := time.UnixMicro(1_000_000)
	s := &shard{}
	if got := s.known(now); !got.Equal(now) {
		t.Errorf("an idle shard is known up to %v, want %v", got, now)
	}
	_, stamp := s.stamp(now, now)
	if got := s.known(now.Add(time.Second)); got.UnixMicro() != stamp {
		t.Errorf("while a write of %d is applied everything is known up to %d", stamp, got.UnixMicro())
	}
	offset, _ := s.append([]byte("record"), stamp)
	s.finished()
	if got := s.known(now.Add(time.Second)); got.UnixMicro() != stamp {
		t.Errorf("before a record of %d is on disk everything is known up to %d", stamp, got.UnixMicro())
	}
	s.publish(offset + 1)
	if got := s.known(now.Add(time.Second)); !got.Equal(now.Add(time.Second)) {
		t.Errorf("after it is readable everything is known up to %v", got)
	}
	_, failed := s.stamp(now, now)
	s.finished() // it left no record
	if got := s.known(now.Add(time.Second)); got.UnixMicro() <= failed {
		t.Errorf("a write that failed still holds %d", got.UnixMicro())
	}
}
