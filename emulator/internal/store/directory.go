package store

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"runtime"
	"strings"

	"go.etcd.io/bbolt"
)

// makeDir creates the directory, or refuses one that holds only other files. It
// returns the directories whose entries it changed.
func makeDir(dir string) (changed []string, err error) {
	for missing := filepath.Clean(dir); ; missing = filepath.Dir(missing) {
		if _, err := os.Stat(missing); !errors.Is(err, os.ErrNotExist) {
			break
		}
		changed = append(changed, filepath.Dir(missing))
	}
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return nil, fmt.Errorf("creating data directory %s: %w", dir, err)
	}
	entries, err := os.ReadDir(dir)
	if err != nil {
		return nil, fmt.Errorf("reading data directory %s: %w", dir, err)
	}
	other := ""
	for _, e := range entries {
		switch {
		case e.Name() == fileName:
			return changed, nil
		case strings.HasPrefix(e.Name(), "."):
		case e.Name() == "lost+found" && e.IsDir(): // the root of a volume has one
		default:
			other = e.Name()
		}
	}
	if other != "" {
		return nil, fmt.Errorf("data directory %s holds %s but no %s: %w; choose an empty one", dir, other, fileName, ErrForeign)
	}
	return changed, nil
}

// create makes the file. The file gets its name only once it is complete, so an
// empty file is never left behind by a crash: it means that data was lost.
func (d *disk) create() (err error) {
	dir := filepath.Dir(d.path)
	temp, err := os.CreateTemp(dir, "."+fileName+".")
	if err != nil {
		return fmt.Errorf("creating %s: %w", d.path, err)
	}
	defer os.Remove(temp.Name()) // its other name stays
	if err := temp.Close(); err != nil {
		return fmt.Errorf("creating %s: %w", d.path, err)
	}
	fresh := &disk{path: temp.Name()}
	if err := fresh.open(&bbolt.Options{Timeout: lockTimeout}); err != nil {
		return fmt.Errorf("creating %s: %w", d.path, err)
	}
	if err := errors.Join(fresh.checkFormat(), fresh.db.Close()); err != nil {
		return fmt.Errorf("creating %s: %w", d.path, err)
	}
	err = os.Link(temp.Name(), d.path)
	if err != nil && !errors.Is(err, os.ErrExist) { // a file system without hard links
		err = os.Rename(temp.Name(), d.path)
	}
	if err != nil && !errors.Is(err, os.ErrExist) { // a file that another process created meanwhile is fine too
		return fmt.Errorf("creating %s: %w", d.path, err)
	}
	return nil
}

// syncDir makes a directory's entries durable. Tests replace it.
var syncDir = func(dir string) error {
	if runtime.GOOS == "windows" {
		return nil // directories cannot be flushed there, and need not be
	}
	f, err := os.Open(dir)
	if err != nil {
		return err
	}
	return errors.Join(f.Sync(), f.Close())
}

// syncDirs makes the file's directory entry durable, and those of the
// directories that were created for it.
func (d *disk) syncDirs(changed []string) error {
	for _, dir := range append([]string{filepath.Dir(d.path)}, changed...) {
		if err := syncDir(dir); err != nil {
			return fmt.Errorf("flushing directory %s: %w", dir, err)
		}
	}
	return nil
}
