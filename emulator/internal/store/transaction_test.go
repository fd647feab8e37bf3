package store

import (
	"fmt"
	"math/rand/v2"
	"testing"
	"testing/synctest"
	"time"

	"go.etcd.io/bbolt"

	"github.com/watermill-ots/watermill-ots/internal/plainbuffer"
)

// transactional has the keys id and sub; a transaction has one id.
func transactional(name string) Schema {
	s := schema(name)
	s.LocalTransactions = true
	return s
}

func begin(t *testing.T, s *Store, table *Table, id int64) string {
	t.Helper()
	tx, err := s.StartTransaction(table, pk(id, "")[:1])
	if err != nil {
		t.Fatal(err)
	}
	return tx
}

// within makes changes in a transaction; they must succeed.
func within(t *testing.T, s *Store, table *Table, tx string, changes ...*Change) {
	t.Helper()
	err := s.Transaction(tx, func(tx *Transaction) error { return tx.Apply(table, changes, 1, false) })
	for _, c := range changes {
		if err == nil {
			err = c.Err
		}
	}
	if err != nil {
		t.Fatal(err)
	}
}

func TestTransaction(t *testing.T) {
	t.Run("is used by one request at a time", func(t *testing.T) {
		clock := newClock()
		s := open(t, Config{Now: clock.Now})
		table := create(t, s, transactional("t"), StreamSpec{})
		tx := begin(t, s, table, 1)
		err := s.Transaction(tx, func(*Transaction) error {
			expectText(t, "a second use", code(s.Transaction(tx, (*Transaction).Commit)), "OTSSessionBusy")
			clock.advance(2 * transactionLife)
			c := change(PutRow, 1)
			if err := table.Apply([]*Change{c}, false); err != nil {
				t.Fatal(err)
			}
			expectText(t, "a write while it is in use, after its time", code(c.Err), "OTSRowOperationConflict")
			return nil
		})
		if err != nil {
			t.Error(err)
		}
		apply(t, table, change(PutRow, 1))
		expectText(t, "the use after that", code(s.Transaction(tx, (*Transaction).Commit)), "OTSSessionNotExist")
	})
	t.Run("is not kept alive by a clock that is set back", func(t *testing.T) {
		clock := newClock()
		s := open(t, Config{Now: clock.Now})
		table := create(t, s, transactional("t"), StreamSpec{})
		back := func() {
			s.aging.Now()
			clock.advance(-time.Hour)
			s.aging.Now()
		}
		back()
		begin(t, s, table, 1)
		c := change(PutRow, 1)
		if err := table.Apply([]*Change{c}, false); err != nil {
			t.Fatal(err)
		}
		expectText(t, "a write at once", code(c.Err), "OTSRowOperationConflict")
		back()
		clock.advance(transactionLife)
		apply(t, table, change(PutRow, 1))
	})
	t.Run("can be committed although a row on which it had a condition has expired since", func(t *testing.T) {
		clock := newClock()
		s := open(t, Config{Now: clock.Now})
		sc := transactional("t")
		sc.Options.TTL = 86400
		table := create(t, s, sc, StreamSpec{})
		apply(t, table, change(PutRow, 1, text("a", "x")))
		clock.advance(24*time.Hour - 10*time.Second)
		tx := begin(t, s, table, 1)
		c := change(UpdateRow, 1, text("b", "y"))
		c.Expect = ExpectExist
		within(t, s, table, tx, c)
		clock.advance(20 * time.Second)
		if err := s.Transaction(tx, (*Transaction).Commit); err != nil {
			t.Fatal(err)
		}
		expectText(t, "row", row(t, table, 1), "[b=y]")
	})
	t.Run("that the disk refuses stays open and can be committed again", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			s, err := Open(Config{Dir: t.TempDir()})
			if err != nil {
				t.Fatal(err)
			}
			defer s.Close()
			table := create(t, s, transactional("t"), StreamSpec{Enabled: true})
			apply(t, table, change(PutRow, 1, number("n", 1)))
			tx := begin(t, s, table, 1)
			add := plainbuffer.Cell{Name: "n", Op: plainbuffer.Increment, HasValue: true, Value: plainbuffer.IntegerValue(1)}
			within(t, s, table, tx, change(UpdateRow, 1, add))
			update := s.commits.update
			s.commits.update = func(func(*bbolt.Tx) error) error { return errDisk }
			expectText(t, "commit", code(s.Transaction(tx, (*Transaction).Commit)), "OTSServerUnavailable")
			if table, err = s.Table("t"); err != nil {
				t.Fatal(err)
			}
			expectText(t, "row", row(t, table, 1), "[n=1]")
			s.commits.update = update
			time.Sleep(probeInterval)
			c := change(PutRow, 1)
			if err := table.Apply([]*Change{c}, false); err != nil {
				t.Fatal(err)
			}
			expectText(t, "another write meanwhile", code(c.Err), "OTSRowOperationConflict")
			if err := s.Transaction(tx, (*Transaction).Commit); err != nil {
				t.Fatal(err)
			}
			expectText(t, "row", row(t, table, 1), "[n=2]")
			expectLog(t, s, "t", shards(t, s, "t")[0].ID, "PUT_ROW 1 [n=1]", "UPDATE_ROW 1 [n=2]")
		})
	})
	t.Run("holds its rows until its commit is durable", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			s, err := Open(Config{Dir: t.TempDir()})
			if err != nil {
				t.Fatal(err)
			}
			defer s.Close()
			table := create(t, s, transactional("t"), StreamSpec{})
			tx := begin(t, s, table, 1)
			within(t, s, table, tx, change(PutRow, 1, text("a", "x")))
			g := shut(s)
			committed := make(chan error, 1)
			go func() { committed <- s.Transaction(tx, (*Transaction).Commit) }()
			<-g.entered
			_, err = s.StartTransaction(table, pk(1, "")[:1])
			expectText(t, "another transaction meanwhile", code(err), "OTSRowOperationConflict")
			g.open(s)
			g.release <- nil
			if err := <-committed; err != nil {
				t.Fatal(err)
			}
			begin(t, s, table, 1)
		})
	})
}

// TestTransactionsChangeWhatDirectWritesChange makes random changes of a few
// rows, in transactions of one table and directly in another. The outcome of
// each change, the rows after it and the log must be the same.
func TestTransactionsChangeWhatDirectWritesChange(t *testing.T) {
	seed := rand.Uint64()
	t.Logf("seed %d", seed)
	random := rand.New(rand.NewPCG(seed, 0))
	clock := newClock()
	s := open(t, Config{Now: clock.Now})
	inside := create(t, s, transactional("inside"), StreamSpec{Enabled: true})
	direct := create(t, s, schema("direct"), StreamSpec{Enabled: true})
	for round := range 60 {
		tx := begin(t, s, inside, 1)
		for step := range 20 {
			clock.advance(time.Duration(random.IntN(3)) * time.Millisecond)
			pair := randomChange(random)
			err := s.Transaction(tx, func(tx *Transaction) error { return tx.Apply(inside, []*Change{pair[0]}, 1, random.IntN(2) == 0) })
			if pair[0].Err == nil && err != nil {
				t.Fatal(err)
			}
			if err := direct.Apply([]*Change{pair[1]}, false); err != nil {
				t.Fatal(err)
			}
			if got, want := code(pair[0].Err), code(pair[1].Err); got != want {
				t.Fatalf("round %d, step %d: %s in the transaction, %s directly", round, step, got, want)
			}
			want := scanned(t, direct, direct)
			err = s.Transaction(tx, func(tx *Transaction) error {
				if random.IntN(2) == 0 {
					if got := scanned(t, tx.View(inside), inside); got != want {
						t.Fatalf("round %d, step %d: the transaction sees\n%s\nwant\n%s", round, step, got, want)
					}
				}
				key := pair[0].Row.PrimaryKey
				if got, want := gotten(t, tx.View(inside), key), gotten(t, direct, key); got != want {
					t.Fatalf("round %d, step %d: the transaction gets %s, want %s", round, step, got, want)
				}
				return nil
			})
			if err != nil {
				t.Fatal(err)
			}
		}
		if err := s.Transaction(tx, (*Transaction).Commit); err != nil {
			t.Fatal(err)
		}
		if got, want := scanned(t, inside, inside), scanned(t, direct, direct); got != want {
			t.Fatalf("round %d: committed is\n%s\nwant\n%s", round, got, want)
		}
	}
	got, want := log(t, s, "inside", shards(t, s, "inside")[0].ID), log(t, s, "direct", shards(t, s, "direct")[0].ID)
	if fmt.Sprint(got) != fmt.Sprint(want) {
		t.Errorf("the log of %d records differs from that of %d", len(got), len(want))
	}
}

// randomChange returns a random change twice.
func randomChange(random *rand.Rand) [2]*Change {
	sub, action, expect := fmt.Sprint(random.IntN(4)), Action(1+random.IntN(3)), Existence(random.IntN(3))
	var cells []plainbuffer.Cell
	name := fmt.Sprint("c", random.IntN(2))
	switch op := random.IntN(3); {
	case action == DeleteRow:
	case action == UpdateRow && op == 0:
		cells = []plainbuffer.Cell{{Name: name, Op: plainbuffer.DeleteAllVersion}}
	case action == UpdateRow && op == 1:
		cells = []plainbuffer.Cell{{Name: name, Op: plainbuffer.Increment, HasValue: true, Value: plainbuffer.IntegerValue(1)}}
	default:
		cells = []plainbuffer.Cell{number(name, random.Int64N(9))}
	}
	var pair [2]*Change
	for i := range pair {
		pair[i] = &Change{Action: action, Expect: expect, Row: &plainbuffer.Row{PrimaryKey: pk(1, sub), Cells: append([]plainbuffer.Cell(nil), cells...)}}
	}
	return pair
}

// scanned returns the rows of id 1 as text.
func scanned(t *testing.T, v View, table *Table) string {
	t.Helper()
	bound := func(k plainbuffer.Kind) []byte {
		key := pk(1, "")
		key[1].Value = plainbuffer.Special(k)
		return plainbuffer.AppendOrderedKey(nil, key)
	}
	found, _, err := v.Scan(nil, bound(plainbuffer.InfMin), bound(plainbuffer.InfMax), false, 100)
	if err != nil {
		t.Fatal(err)
	}
	out := ""
	for _, b := range found {
		var r plainbuffer.Row
		if alive, err := table.Live(b, &r); err != nil || !alive {
			t.Fatal(alive, err)
		}
		out += r.PrimaryKey[1].Value.Str() + ":" + cellsText(r.Cells) + " "
	}
	return out
}

func gotten(t *testing.T, v View, key []plainbuffer.Cell) string {
	t.Helper()
	var r plainbuffer.Row
	ok, err := v.Get(key, &r)
	return fmt.Sprint(ok, err, cellsText(r.Cells))
}
