package store

import (
	"errors"
	"strings"
	"testing"
	"time"

	"go.etcd.io/bbolt"

	"github.com/watermill-ots/watermill-ots/internal/plainbuffer"
)

// skew sets the clock forward or back as the emulator does: the time that has
// passed so far counts.
func skew(s *Store, c *clock, d time.Duration) {
	s.aging.Now()
	c.advance(d)
	s.aging.Now()
}

// TestClockSetForwardAndBack writes before, while and after the clock is ahead,
// and checks that each record is kept for the stream's retention.
func TestClockSetForwardAndBack(t *testing.T) {
	const day = 24 * time.Hour
	begin := func(t *testing.T, cfg Config) (*Store, *clock, string) {
		c := newClock()
		cfg.Now = c.Now
		s := open(t, cfg)
		create(t, s, schema("t"), StreamSpec{Enabled: true, Expiration: day})
		return s, c, shards(t, s, "t")[0].ID
	}
	put := func(t *testing.T, s *Store, id int64) {
		t.Helper()
		table, err := s.Table("t")
		if err != nil {
			t.Fatal(err)
		}
		apply(t, table, change(PutRow, id))
	}
	// count is how many records the log still has.
	count := func(t *testing.T, s *Store, shard string) int {
		t.Helper()
		oldest, _, err := s.SeekShard(tableID(t, s, "t"), shard, time.Time{})
		if err != nil {
			t.Fatal(err)
		}
		tail, _, err := s.SeekShard(tableID(t, s, "t"), shard, time.Unix(1<<40, 0))
		if err != nil {
			t.Fatal(err)
		}
		return int(tail - oldest)
	}
	for _, ahead := range []time.Duration{time.Hour, 100 * day} {
		t.Run("records written "+ahead.String()+" ahead expire a day after they were written", func(t *testing.T) {
			s, c, shard := begin(t, Config{})
			skew(s, c, ahead)
			put(t, s, 1)
			skew(s, c, -ahead)
			put(t, s, 2)
			c.advance(day - time.Minute)
			expectCount(t, count(t, s, shard), 2)
			c.advance(2 * time.Minute)
			expectCount(t, count(t, s, shard), 0)
		})
		t.Run("records written after the clock was "+ahead.String()+" ahead are kept for a day", func(t *testing.T) {
			s, c, shard := begin(t, Config{})
			skew(s, c, ahead)
			skew(s, c, -ahead)
			put(t, s, 1)
			c.advance(day - time.Minute)
			expectCount(t, count(t, s, shard), 1)
			c.advance(2 * time.Minute)
			expectCount(t, count(t, s, shard), 0)
		})
		t.Run("records written while the clock catches up "+ahead.String()+" expire one by one", func(t *testing.T) {
			s, c, shard := begin(t, Config{})
			skew(s, c, ahead)
			put(t, s, 0)
			skew(s, c, -ahead)
			for id := range int64(6) {
				c.advance(10 * time.Minute)
				put(t, s, id+1)
			}
			c.advance(day - 35*time.Minute)
			expectCount(t, count(t, s, shard), 4)
		})
	}
	t.Run("a step forward expires what it skips", func(t *testing.T) {
		s, c, shard := begin(t, Config{})
		put(t, s, 1)
		skew(s, c, 2*day)
		expectCount(t, count(t, s, shard), 0)
	})
	t.Run("a refused write loses no age", func(t *testing.T) {
		s, c, shard := begin(t, Config{Dir: t.TempDir()})
		skew(s, c, 100*day)
		skew(s, c, -100*day)
		put(t, s, 1)
		update := s.commits.update
		s.commits.update = func(func(*bbolt.Tx) error) error { return errDisk }
		table, err := s.Table("t")
		if err != nil {
			t.Fatal(err)
		}
		if err := table.Apply([]*Change{change(PutRow, 2)}, false); code(err) != "OTSServerUnavailable" {
			t.Fatalf("got %v", err)
		}
		s.commits.update = update
		c.advance(day - time.Minute)
		expectCount(t, count(t, s, shard), 1)
		c.advance(2 * time.Minute)
		expectCount(t, count(t, s, shard), 0)
	})
	t.Run("records from ahead expire a day after a restart at the latest", func(t *testing.T) {
		dir := t.TempDir()
		s, c, shard := begin(t, Config{Dir: dir})
		put(t, s, 0)
		skew(s, c, 100*day)
		put(t, s, 1)
		put(t, s, 2)
		if err := s.Close(); err != nil {
			t.Fatal(err)
		}
		c.advance(-100 * day)
		s = open(t, Config{Dir: dir, Now: c.Now})
		c.advance(day - time.Minute)
		expectCount(t, count(t, s, shard), 3)
		c.advance(2 * time.Minute)
		expectCount(t, count(t, s, shard), 0)
	})
	t.Run("shards closed ahead are dropped with their last record", func(t *testing.T) {
		for _, restart := range []bool{false, true} {
			dir := t.TempDir()
			s, c, _ := begin(t, Config{Dir: dir})
			skew(s, c, 100*day)
			if err := s.Split("t"); err != nil {
				t.Fatal(err)
			}
			skew(s, c, -100*day)
			if restart {
				if err := s.Close(); err != nil {
					t.Fatal(err)
				}
				s = open(t, Config{Dir: dir, Now: c.Now})
			}
			c.advance(day - time.Minute)
			expectCount(t, len(shards(t, s, "t")), 3)
			c.advance(2 * time.Minute)
			expectCount(t, len(shards(t, s, "t")), 2)
		}
	})
	t.Run("shards closed after the clock was ahead stay for a day", func(t *testing.T) {
		s, c, _ := begin(t, Config{})
		skew(s, c, 100*day)
		skew(s, c, -100*day)
		if err := s.Split("t"); err != nil {
			t.Fatal(err)
		}
		c.advance(day - time.Minute)
		expectCount(t, len(shards(t, s, "t")), 3)
		c.advance(2 * time.Minute)
		expectCount(t, len(shards(t, s, "t")), 2)
	})
	t.Run("ages of records that were taken back are forgotten", func(t *testing.T) {
		sh := &shard{}
		sh.append([]byte("x"), 0)
		mark := sh.mark()
		sh.agedAt = -10 * ageSlack
		sh.append([]byte("y"), 0)
		sh.append([]byte("y"), 0)
		if len(sh.ages) != 2 {
			t.Fatalf("ages are %v", sh.ages)
		}
		sh.rewind(mark)
		if len(sh.ages) != 1 {
			t.Errorf("ages are %v", sh.ages)
		}
	})
	t.Run("what was reported as the end of a shard stays the end", func(t *testing.T) {
		s, c, shard := begin(t, Config{})
		end := c.Now().Add(time.Hour)
		skew(s, c, 2*time.Hour)
		page, err := s.ReadShard(nil, tableID(t, s, "t"), shard, 0, end, 10, 1<<20)
		if err != nil || !page.End {
			t.Fatalf("end %v, %v", page.End, err)
		}
		skew(s, c, -2*time.Hour)
		put(t, s, 1)
		page, err = s.ReadShard(nil, tableID(t, s, "t"), shard, 0, end, 10, 1<<20)
		if err != nil || !page.End || page.Records != 0 {
			t.Errorf("then %d records, end %v, %v", page.Records, page.End, err)
		}
	})
}

func expectCount(t *testing.T, got, want int) {
	t.Helper()
	if got != want {
		t.Errorf("got %d, want %d", got, want)
	}
}

func TestAutoIncrement(t *testing.T) {
	sc := schema("t")
	sc.Key[1] = KeyColumn{Name: "n", Kind: plainbuffer.Integer, AutoIncrement: true}
	next := func(t *testing.T, s *Store) int64 {
		t.Helper()
		table, err := s.Table("t")
		if err != nil {
			t.Fatal(err)
		}
		key := []plainbuffer.Cell{
			{Name: "id", HasValue: true, Value: plainbuffer.IntegerValue(1)},
			{Name: "n", HasValue: true, Value: plainbuffer.Special(plainbuffer.AutoIncrement)},
		}
		c := &Change{Action: PutRow, Row: &plainbuffer.Row{PrimaryKey: key}}
		apply(t, table, c)
		// The row is deleted at once, so that its key is not a hint.
		apply(t, table, &Change{Action: DeleteRow, Row: &plainbuffer.Row{PrimaryKey: c.Row.PrimaryKey}})
		return c.Row.PrimaryKey[1].Value.Integer()
	}
	t.Run("ascends over clocks that are set back and over restarts", func(t *testing.T) {
		dir := t.TempDir()
		c := newClock()
		s := open(t, Config{Dir: dir, Now: c.Now})
		create(t, s, sc, StreamSpec{})
		last := int64(0)
		for _, step := range []time.Duration{0, time.Hour, -2 * time.Hour, 0, time.Hour} {
			c.advance(step)
			for range 3 {
				n := next(t, s)
				if n <= last {
					t.Errorf("%d after %d", n, last)
				}
				last = n
			}
			if err := s.Close(); err != nil {
				t.Fatal(err)
			}
			s = open(t, Config{Dir: dir, Now: c.Now})
		}
		if n := 0; s.LoadState("", func(string, []byte) error { n++; return nil }) != nil || n > 0 {
			t.Errorf("the tunnel service sees %d entries that are not its own", n)
		}
	})
	t.Run("leaves nothing of a deleted table", func(t *testing.T) {
		dir := t.TempDir()
		s := open(t, Config{Dir: dir})
		create(t, s, sc, StreamSpec{})
		next(t, s)
		if err := s.DeleteTable("t"); err != nil {
			t.Fatal(err)
		}
		err := s.disk.db.View(func(tx *bbolt.Tx) error {
			return tx.Bucket([]byte(stateBucket)).ForEach(func(key, _ []byte) error { return errors.New(string(key)) })
		})
		if err != nil {
			t.Errorf("left: %v", err)
		}
	})
}

func TestAheadOfTheLog(t *testing.T) {
	s := open(t, Config{})
	table := create(t, s, schema("t"), StreamSpec{Enabled: true})
	apply(t, table, change(PutRow, 1))
	shard := shards(t, s, "t")[0].ID
	if page, err := s.ReadShard(nil, table.id, shard, 1, time.Time{}, 10, 1<<20); err != nil || page.Next != 1 {
		t.Errorf("at the tail: %d, %v", page.Next, err)
	}
	_, err := s.ReadShard(nil, table.id, shard, 2, time.Time{}, 10, 1<<20)
	if code(err) != "OTSParameterInvalid" || !strings.Contains(err.Error(), "ahead of the log") || !strings.Contains(err.Error(), shard) {
		t.Errorf("after the tail: %v", err)
	}
}
