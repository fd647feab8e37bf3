package store

import (
	"errors"
	"testing"
	"time"

	"go.etcd.io/bbolt"

	"github.com/watermill-ots/watermill-ots/emulator/internal/tunnels"
)

func TestTableIdentity(t *testing.T) {
	s := open(t, Config{})
	first := create(t, s, schema("t"), StreamSpec{Enabled: true})
	apply(t, first, change(PutRow, 1))
	old, shard := tableID(t, s, "t"), shards(t, s, "t")[0].ID
	type news struct {
		table string
		gone  bool
	}
	var heard []news
	s.Watch(func(table string, gone bool) { heard = append(heard, news{table, gone}) })
	if err := s.DeleteTable("t"); err != nil {
		t.Fatal(err)
	}
	t.Run("watchers learn which table was deleted", func(t *testing.T) {
		if len(heard) != 1 || heard[0] != (news{old, true}) {
			t.Errorf("heard %v of table %s", heard, old)
		}
	})
	create(t, s, schema("t"), StreamSpec{Enabled: true})
	t.Run("a table with the same name has another id, and the old id finds nothing", func(t *testing.T) {
		if id := tableID(t, s, "t"); id == old {
			t.Errorf("both tables have the id %s", id)
		}
		_, streamErr := s.Stream(old, false)
		_, shardsErr := s.Shards(old)
		_, _, seekErr := s.SeekShard(old, shard, time.Time{})
		_, readErr := s.ReadShard(nil, old, shard, 0, time.Time{}, 1, 1)
		_, rangesErr := s.BaseRanges(old)
		_, baseErr := s.ReadBase(nil, old, nil, nil, 1, 1)
		for call, err := range map[string]error{"Stream": streamErr, "Shards": shardsErr, "SeekShard": seekErr, "ReadShard": readErr, "BaseRanges": rangesErr, "ReadBase": baseErr} {
			if !errors.Is(err, tunnels.ErrNoTable) {
				t.Errorf("%s of the old table: %v", call, err)
			}
		}
	})
}

func TestWatchersOfARefusedChange(t *testing.T) {
	s := filled(t, false)
	kept := tableID(t, s, "t")
	gone := map[string]bool{}
	s.Watch(func(table string, dropped bool) { gone[table] = dropped })
	update := s.commits.update
	s.commits.update = func(func(*bbolt.Tx) error) error { return errDisk }
	if err := s.DeleteTable("t"); err == nil {
		t.Fatal("the disk accepted the deletion")
	}
	s.commits.update = update
	if dropped, heard := gone[kept]; dropped || !heard {
		t.Errorf("watchers were notified of a deletion that was taken back: %v", gone)
	}
	if _, err := s.Stream(kept, false); err != nil {
		t.Errorf("the table's stream: %v", err)
	}
}
