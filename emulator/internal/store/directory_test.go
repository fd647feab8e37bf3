package store

import (
	"errors"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

func TestDirectory(t *testing.T) {
	t.Run("of a fresh volume, with lost+found, is accepted", func(t *testing.T) {
		dir := t.TempDir()
		if err := os.Mkdir(filepath.Join(dir, "lost+found"), 0o700); err != nil {
			t.Fatal(err)
		}
		open(t, Config{Dir: dir})
	})
	t.Run("with a file called lost+found holds other things", func(t *testing.T) {
		dir := t.TempDir()
		os.WriteFile(filepath.Join(dir, "lost+found"), nil, 0o600)
		_, err := Open(Config{Dir: dir})
		refused(t, err, ErrForeign, dir)
	})
	t.Run("holds nothing but the file", func(t *testing.T) {
		dir := t.TempDir()
		open(t, Config{Dir: dir})
		entries, err := os.ReadDir(dir)
		if err != nil || len(entries) != 1 || entries[0].Name() != fileName {
			t.Errorf("got %v, %v", entries, err)
		}
	})
	t.Run("whose file another process creates meanwhile keeps that file", func(t *testing.T) {
		dir := t.TempDir()
		first, second := &disk{path: filepath.Join(dir, fileName)}, &disk{path: filepath.Join(dir, fileName)}
		if err := first.create(); err != nil {
			t.Fatal(err)
		}
		before, err := os.Stat(first.path)
		if err != nil {
			t.Fatal(err)
		}
		if err := second.create(); err != nil {
			t.Fatal(err)
		}
		if after, err := os.Stat(first.path); err != nil || !os.SameFile(before, after) {
			t.Errorf("the file was replaced (%v)", err)
		}
	})
}

func TestSync(t *testing.T) {
	watch := func(t *testing.T, fail error) *[]string {
		var synced []string
		old := syncDir
		syncDir = func(dir string) error {
			if _, err := os.Stat(filepath.Join(dir, fileName)); err != nil && len(synced) == 0 {
				t.Errorf("%s was flushed before the file was in it: %v", dir, err)
			}
			synced = append(synced, dir)
			return errors.Join(fail, old(dir))
		}
		t.Cleanup(func() { syncDir = old })
		return &synced
	}
	t.Run("flushes the directory, and those in which it created one", func(t *testing.T) {
		synced := watch(t, nil)
		root := t.TempDir()
		dir := filepath.Join(root, "a", "b")
		open(t, Config{Dir: dir, Sync: true})
		if want := []string{dir, filepath.Join(root, "a"), root}; !slices.Equal(*synced, want) {
			t.Errorf("flushed %v, want %v", *synced, want)
		}
	})
	t.Run("is not done without Sync", func(t *testing.T) {
		synced := watch(t, nil)
		open(t, Config{Dir: t.TempDir()})
		if len(*synced) > 0 {
			t.Errorf("flushed %v", *synced)
		}
	})
	t.Run("is an error if the directory cannot be flushed", func(t *testing.T) {
		watch(t, errors.New("broken device"))
		dir := t.TempDir()
		_, err := Open(Config{Dir: dir, Sync: true})
		if err == nil || !strings.Contains(err.Error(), dir) || !strings.Contains(err.Error(), "broken device") {
			t.Errorf("got %v", err)
		}
		if s, err := Open(Config{Dir: dir}); err != nil {
			t.Errorf("the file is still locked: %v", err)
		} else {
			s.Close()
		}
	})
}
