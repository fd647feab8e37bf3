//go:build unix

package store

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/watermill-ots/watermill-ots/emulator/internal/fulldisk"
)

// TestFullDisk runs against a file that cannot grow. It must not run in
// parallel with tests that write files.
func TestFullDisk(t *testing.T) {
	for _, sync := range []bool{false, true} {
		t.Run(fmt.Sprintf("with Sync %v", sync), func(t *testing.T) { fullDisk(t, sync) })
	}
}

func fullDisk(t *testing.T, sync bool) {
	dir := t.TempDir()
	s := open(t, Config{Dir: dir, Sync: sync})
	create(t, s, schema("t"), StreamSpec{Enabled: true})
	large := text("a", strings.Repeat("x", 300_000))
	write := func(id int64) error {
		table, err := s.Table("t")
		if err != nil {
			return err
		}
		c := change(PutRow, id, large)
		if err := table.Apply([]*Change{c}, false); err != nil {
			return err
		}
		return c.Err
	}
	if err := write(0); err != nil {
		t.Fatal(err)
	}
	info, err := os.Stat(filepath.Join(dir, fileName))
	if err != nil {
		t.Fatal(err)
	}
	undo := fulldisk.Limit(t, info.Size()+1<<20)
	written := int64(1)
	for ; written < 1000; written++ {
		if err = write(written); err != nil {
			break
		}
	}
	if code(err) != "OTSServerUnavailable" || !strings.Contains(err.Error(), dir) || !strings.Contains(err.Error(), "free space") {
		t.Fatalf("after %d rows: %v", written, err)
	}
	shard := shards(t, s, "t")[0].ID
	served := func(what string, rows int64) {
		t.Helper()
		table, err := s.Table("t")
		if err != nil {
			t.Fatal(err)
		}
		for id := range rows {
			if row(t, table, id) == "-" {
				t.Errorf("%s: row %d is gone", what, id)
			}
		}
		if row(t, table, rows) != "-" {
			t.Errorf("%s: row %d exists", what, rows)
		}
		if n := len(log(t, s, "t", shard)); n != int(rows) {
			t.Errorf("%s: the log has %d records of %d", what, n, rows)
		}
	}
	served("with the disk full", written)
	if err := s.CreateTable(schema("other"), StreamSpec{}, nil); code(err) != "OTSServerUnavailable" {
		t.Errorf("creating a table: %v", err)
	}
	if err := s.SaveState(map[string][]byte{"k": []byte("v")}); code(err) != "OTSServerUnavailable" {
		t.Errorf("saving state: %v", err)
	}
	time.Sleep(probeInterval)
	if err := write(written); code(err) != "OTSServerUnavailable" {
		t.Errorf("the disk is still full: %v", err)
	}
	served("after a second try", written)
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	s = open(t, Config{Dir: dir, Sync: sync}) // serving what is on disk needs no space
	served("after a restart with the disk full", written)
	for err = write(written); err == nil; err = write(written) {
		written++ // pages that a failed commit left free
	}
	undo()
	time.Sleep(probeInterval)
	if err := write(written); err != nil {
		t.Fatalf("with space: %v", err)
	}
	written++
	served("with space", written)
	if err := s.CreateTable(schema("other"), StreamSpec{}, nil); err != nil {
		t.Errorf("creating a table with space: %v", err)
	}
	before := picture(t, s)
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	s = open(t, Config{Dir: dir, Sync: sync})
	if picture(t, s) != before {
		t.Error("a restart shows other contents")
	}
}
