package store

import (
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/watermill-ots/watermill-ots/internal/plainbuffer"
)

// indexed has the keys id and sub, and predefined columns n (integer), s (string)
// and v (integer).
func indexed(name string) Schema {
	sc := schema(name)
	sc.Options.MaxVersions = 1
	sc.LocalTransactions = true
	sc.Defined = []DefinedColumn{{"n", 1}, {"s", 4}, {"v", 1}}
	return sc
}

var (
	byN  = IndexMeta{Name: "by_n", Key: []string{"n"}, Defined: []string{"v"}}
	byS  = IndexMeta{Name: "by_s", Key: []string{"id", "s"}, Local: true}
	turn = IndexMeta{Name: "turned", Key: []string{"sub"}, Defined: []string{"n", "v"}}
)

// tableRows returns all rows of a table as text.
func tableRows(t *testing.T, s *Store, name string) []string {
	t.Helper()
	table, err := s.Table(name)
	if err != nil {
		t.Fatal(err)
	}
	found, _, err := table.Scan(nil, nil, nil, false, 1<<20)
	if err != nil {
		t.Fatal(err)
	}
	var rows []string
	for _, b := range found {
		var r plainbuffer.Row
		alive, err := table.Live(b, &r)
		if err != nil {
			t.Fatal(err)
		}
		if alive {
			rows = append(rows, cellsText(r.PrimaryKey)+" "+cellsText(r.Cells))
		}
	}
	return rows
}

// expectIndexes compares every index with its expected rows, which are derived
// from the table's rows in the simplest way.
func expectIndexes(t *testing.T, s *Store, name string) {
	t.Helper()
	table, err := s.Table(name)
	if err != nil {
		t.Fatal(err)
	}
	found, _, err := table.Scan(nil, nil, nil, false, 1<<20)
	if err != nil {
		t.Fatal(err)
	}
	for _, meta := range table.Indexes() {
		var want []string
		for _, b := range found {
			var r plainbuffer.Row
			if alive, err := table.Live(b, &r); err != nil || !alive {
				continue
			}
			columns := make(map[string]plainbuffer.Cell)
			for _, c := range append(slices.Clone(r.Cells), r.PrimaryKey...) {
				columns[c.Name] = c
			}
			key, ok := "", true
			for _, column := range slices.Concat(meta.Key, []string{"id", "sub"}) {
				c, there := columns[column]
				isText := c.Value.Kind() == plainbuffer.String
				ok = ok && there && isText == (column == "s" || column == "sub")
				if !strings.Contains(key, "["+column+"=") {
					key += cellsText([]plainbuffer.Cell{c})
				}
			}
			rest := ""
			for _, column := range meta.Defined {
				if c, there := columns[column]; there && c.Value.Kind() == plainbuffer.Integer {
					rest += cellsText([]plainbuffer.Cell{c})
				}
			}
			if ok {
				want = append(want, key+" "+rest)
			}
		}
		got := tableRows(t, s, meta.Name)
		slices.Sort(got)
		slices.Sort(want)
		if !slices.Equal(got, want) {
			t.Fatalf("index %s has\n%s\nwant\n%s", meta.Name, strings.Join(got, "\n"), strings.Join(want, "\n"))
		}
	}
}

// TestIndexesFollowTheirTable makes random changes, including refused ones, and
// checks the indexes after each; at the end also after a restart, which
// verifies what is on disk.
func TestIndexesFollowTheirTable(t *testing.T) {
	seed := rand.Uint64()
	t.Logf("seed %d", seed)
	random := rand.New(rand.NewPCG(seed, 0))
	clock := newClock()
	cfg := Config{Dir: t.TempDir(), Now: clock.Now}
	s, err := Open(cfg)
	if err != nil {
		t.Fatal(err)
	}
	if err := s.CreateTable(indexed("t"), StreamSpec{Enabled: true}, []plainbuffer.Value{plainbuffer.IntegerValue(2)}, byN, byS); err != nil {
		t.Fatal(err)
	}
	table, err := s.Table("t")
	if err != nil {
		t.Fatal(err)
	}
	for step := range 300 {
		clock.advance(time.Duration(random.IntN(2)) * time.Millisecond)
		changes := make([]*Change, 1+random.IntN(3))
		atomic := random.IntN(2) == 0
		id := random.Int64N(4)
		for i := range changes {
			if !atomic {
				id = random.Int64N(4)
			}
			changes[i] = indexedChange(random, id)
		}
		switch random.IntN(12) {
		case 0:
			err = s.Split("t")
			if code(err) == "OTSParameterInvalid" { // too few rows
				err = nil
			}
		case 1:
			if err = s.DropIndex("t", "turned"); code(err) == "OTSObjectNotExist" {
				err = s.CreateIndex("t", turn, true)
			}
		case 2:
			var tx string
			if tx, err = s.StartTransaction(table, pk(id, "")[:1]); err != nil {
				break
			}
			err = s.Transaction(tx, func(tx *Transaction) error {
				if err := tx.Apply(table, changes, 1, false); err != nil {
					return err
				}
				expectIndexes(t, s, "t") // the indexes must not reflect what is not committed
				if random.IntN(2) == 0 {
					tx.Abort()
					return nil
				}
				return tx.Commit()
			})
		default:
			if err = table.Apply(changes, atomic); atomic && slices.ContainsFunc(changes, func(c *Change) bool { return c.Err != nil }) {
				err = nil
			}
		}
		if err != nil {
			t.Fatalf("step %d: %v", step, err)
		}
		expectIndexes(t, s, "t")
	}
	if err := s.DropIndex("t", "turned"); err != nil && code(err) != "OTSObjectNotExist" {
		t.Fatal(err)
	}
	if err := s.CreateIndex("t", turn, true); err != nil {
		t.Fatal(err)
	}
	before := fmt.Sprint(table.Indexes())
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	s = open(t, cfg)
	expectIndexes(t, s, "t")
	if table, err = s.Table("t"); err != nil {
		t.Fatal(err)
	}
	expectText(t, "indexes after a restart", fmt.Sprint(table.Indexes()), before)
	apply(t, table, change(PutRow, 9, number("n", 9)))
	expectIndexes(t, s, "t")
}

// indexedChange returns a change of one of a few rows; some are refused.
func indexedChange(random *rand.Rand, id int64) *Change {
	c := &Change{Action: Action(1 + random.IntN(3)), Expect: Existence(random.IntN(3))}
	c.Row = &plainbuffer.Row{PrimaryKey: pk(id, fmt.Sprint(random.IntN(3)))}
	names := []string{"n", "s", "v", "other"}
	random.Shuffle(len(names), func(i, j int) { names[i], names[j] = names[j], names[i] })
	for _, name := range names[:1+random.IntN(3)] {
		cell := number(name, random.Int64N(3))
		switch n := random.IntN(20); {
		case n == 0:
			cell = text(name, strings.Repeat("x", maxKeyValue+1)) // more than a key may have
		case (n == 1) != (name == "s"): // sometimes of another type
			cell = text(name, fmt.Sprint(random.IntN(3)))
		case n < 6 && c.Action == UpdateRow:
			cell = plainbuffer.Cell{Name: name, Op: plainbuffer.DeleteAllVersion}
		}
		if c.Action != DeleteRow {
			c.Row.Cells = append(c.Row.Cells, cell)
		}
	}
	return c
}

func TestIndex(t *testing.T) {
	t.Run("without base data has the rows that are written later", func(t *testing.T) {
		s := open(t, Config{})
		table := create(t, s, indexed("t"), StreamSpec{})
		apply(t, table, change(PutRow, 1, number("n", 1)), change(PutRow, 2, number("n", 2)), change(PutRow, 3, number("n", 3)))
		if err := s.CreateIndex("t", byN, false); err != nil {
			t.Fatal(err)
		}
		failing := change(PutRow, 2)
		failing.Expect = ExpectNotExist
		if err := table.Apply([]*Change{failing}, true); code(err) != "OTSConditionCheckFail" {
			t.Fatal(err)
		}
		apply(t, table, change(UpdateRow, 2, text("other", "x")), change(DeleteRow, 3))
		expectText(t, "rows", fmt.Sprint(tableRows(t, s, "by_n")), "[[n=2][id=2][sub=s] ]")
	})
	t.Run("is taken back with an atomic batch, also where it lacked the row", func(t *testing.T) {
		dir := t.TempDir()
		s, err := Open(Config{Dir: dir})
		if err != nil {
			t.Fatal(err)
		}
		table := create(t, s, indexed("t"), StreamSpec{})
		apply(t, table, change(PutRow, 1, number("n", 1)))
		if err := s.CreateIndex("t", byN, false); err != nil {
			t.Fatal(err)
		}
		failing := change(DeleteRow, 1)
		failing.Row.PrimaryKey = pk(1, "missing")
		failing.Expect = ExpectExist
		if err := table.Apply([]*Change{change(UpdateRow, 1, number("v", 1)), failing}, true); code(err) != "OTSConditionCheckFail" {
			t.Fatal(err)
		}
		expectText(t, "rows", fmt.Sprint(tableRows(t, s, "by_n")), "[]")
		apply(t, table, change(UpdateRow, 1, number("v", 2)))
		expectText(t, "rows", fmt.Sprint(tableRows(t, s, "by_n")), "[[n=1][id=1][sub=s] [v=2]]")
		if err := s.Close(); err != nil {
			t.Fatal(err)
		}
		s = open(t, Config{Dir: dir})
		expectText(t, "rows after a restart", fmt.Sprint(tableRows(t, s, "by_n")), "[[n=1][id=1][sub=s] [v=2]]")
	})
	t.Run("can no longer be read by callers that held it when it was dropped, or its table was deleted", func(t *testing.T) {
		s := open(t, Config{})
		if err := s.CreateTable(indexed("t"), StreamSpec{}, nil, byN, byS); err != nil {
			t.Fatal(err)
		}
		for _, v := range []struct {
			index string
			drop  func() error
		}{
			{"by_n", func() error { return s.DropIndex("t", "by_n") }},
			{"by_s", func() error { return s.DeleteTable("t") }},
		} {
			table, err := s.Table(v.index)
			if err != nil {
				t.Fatal(err)
			}
			if err := v.drop(); err != nil {
				t.Fatal(err)
			}
			_, _, err = table.Scan(nil, nil, nil, false, 1)
			expectText(t, v.index, code(err), "OTSObjectNotExist")
		}
	})
	t.Run("refuses values that are longer than a key", func(t *testing.T) {
		s := open(t, Config{})
		sc := indexed("t")
		if err := s.CreateTable(sc, StreamSpec{}, nil, byS); err != nil {
			t.Fatal(err)
		}
		table, err := s.Table("t")
		if err != nil {
			t.Fatal(err)
		}
		long := change(PutRow, 1, text("s", strings.Repeat("x", maxKeyValue+1)))
		if err := table.Apply([]*Change{long}, false); err != nil {
			t.Fatal(err)
		}
		expectText(t, "a long value", fmt.Sprint(long.Err), "OTSParameterInvalid: The length of primary key column: 's' exceeds the MaxLength:1024 with CurrentLength:1025. (status 400)")
		apply(t, table, change(PutRow, 1, text("other", strings.Repeat("x", maxKeyValue+1))))
		if err := s.DropIndex("t", "by_s"); err != nil {
			t.Fatal(err)
		}
		apply(t, table, change(PutRow, 2, text("s", strings.Repeat("x", maxKeyValue+1))), change(PutRow, 3, text("s", "short")))
		if err := s.CreateIndex("t", byS, true); err != nil {
			t.Fatal(err)
		}
		expectText(t, "rows of an index over longer values", fmt.Sprint(tableRows(t, s, "by_s")), "[[id=3][s=short][sub=s] ]")
	})
	t.Run("expires with the columns that it is derived from", func(t *testing.T) {
		clock := newClock()
		s := open(t, Config{Now: clock.Now})
		sc := indexed("t")
		sc.Options.TTL, sc.Options.AllowUpdate = 86400, false
		both := IndexMeta{Name: "both", Key: []string{"n", "s"}}
		if err := s.CreateTable(sc, StreamSpec{}, nil, byN, turn, both); err != nil {
			t.Fatal(err)
		}
		table, err := s.Table("t")
		if err != nil {
			t.Fatal(err)
		}
		start := clock.Now().UnixMilli()
		// n expires first, then v, then the row.
		apply(t, table, change(PutRow, 1, at(number("n", 1), start-7200_000), at(number("v", 1), start-3600_000), text("s", "x")))
		for _, v := range []struct {
			after       time.Duration
			byN, turned string
			both        string
		}{
			{0, "[[n=1][id=1][sub=s] [v=1]]", "[[sub=s][id=1] [n=1][v=1]]", "[[n=1][s=x][id=1][sub=s] ]"},
			{22*time.Hour + time.Second, "[]", "[[sub=s][id=1] [v=1]]", "[]"},
			{time.Hour, "[]", "[[sub=s][id=1] ]", "[]"},
			{time.Hour, "[]", "[]", "[]"},
		} {
			clock.advance(v.after)
			expectText(t, "by_n", fmt.Sprint(tableRows(t, s, "by_n")), v.byN)
			expectText(t, "turned", fmt.Sprint(tableRows(t, s, "turned")), v.turned)
			expectText(t, "both", fmt.Sprint(tableRows(t, s, "both")), v.both)
		}
		if err := table.Update(&Options{TTL: -1, MaxVersions: 1, Deviation: 1}, nil, nil); err != nil {
			t.Fatal(err)
		}
		expectText(t, "by_n without time to live", fmt.Sprint(tableRows(t, s, "by_n")), "[[n=1][id=1][sub=s] [v=1]]")
	})
	t.Run("becomes visible when the change of its table is durable", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			s, err := Open(Config{Dir: t.TempDir()})
			if err != nil {
				t.Fatal(err)
			}
			defer s.Close()
			if err := s.CreateTable(indexed("t"), StreamSpec{}, nil, byN); err != nil {
				t.Fatal(err)
			}
			table, err := s.Table("t")
			if err != nil {
				t.Fatal(err)
			}
			look := func() string {
				var rows []string
				if err := s.Read(func() error { rows = tableRows(t, s, "by_n"); return nil }); err != nil {
					return err.Error()
				}
				return fmt.Sprint(rows)
			}
			g := shut(s)
			c := change(PutRow, 1, number("n", 1))
			written, looked := make(chan error, 1), make(chan string, 1)
			go func() { written <- table.Apply([]*Change{c}, false) }()
			<-g.entered
			go func() { looked <- look() }()
			synctest.Wait()
			if len(looked) > 0 {
				t.Errorf("while the commit waits, %s is seen", <-looked)
			}
			g.open(s)
			g.release <- errDisk
			expectText(t, "the write", code(<-written), "OTSServerUnavailable")
			expectText(t, "what is seen of a refused write", <-looked, "[]")
			time.Sleep(probeInterval)
			if table, err = s.Table("t"); err != nil {
				t.Fatal(err)
			}
			apply(t, table, change(PutRow, 1, number("n", 1)))
			expectText(t, "what is seen of the next one", look(), "[[n=1][id=1][sub=s] ]")
		})
	})
	t.Run("is read while all partitions of its table are written", func(t *testing.T) {
		s := open(t, Config{})
		if err := s.CreateTable(indexed("t"), StreamSpec{}, []plainbuffer.Value{plainbuffer.IntegerValue(2)}, byN, byS); err != nil {
			t.Fatal(err)
		}
		table, err := s.Table("t")
		if err != nil {
			t.Fatal(err)
		}
		var writers sync.WaitGroup
		for id := range int64(4) {
			writers.Go(func() {
				for n := range int64(100) {
					if err := table.Apply([]*Change{change(PutRow, id, number("n", n))}, n%2 == 0); err != nil {
						t.Error(err)
					}
				}
			})
		}
		for range 50 {
			if rows := tableRows(t, s, "by_n"); len(rows) > 4 {
				t.Errorf("four rows have %d rows in the index", len(rows))
			}
		}
		writers.Wait()
		expectIndexes(t, s, "t")
	})
}
