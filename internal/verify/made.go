package verify

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"sync"
)

// madeGlob matches the files that list what runs have made and not removed.
const madeGlob = "ots-verify-*.made.json"

// tableName is the pattern of all tables that this package makes. Clean deletes no other.
var tableName = regexp.MustCompile(`^otsverify_[0-9a-z]{10}(_[a-z]+)?$`)

// Made is the list of tables that one run makes, kept in a file of its directory. A table
// is listed before it is created, so that a crash at any moment leaves none that is not
// listed. It is safe for concurrent use.
type Made struct {
	path string // empty: nothing is kept

	mu   sync.Mutex
	list madeList
}

// madeList is the content of the file.
type madeList struct {
	Endpoint string
	Instance string
	Tables   []string
}

// NewMade returns the list of the run id, to be kept in dir.
func NewMade(dir, id, endpoint, instance string) *Made {
	return &Made{path: filepath.Join(dir, "ots-verify-"+id+".made.json"), list: madeList{Endpoint: endpoint, Instance: instance}}
}

// OpenMade returns the lists that earlier runs have left in dir.
func OpenMade(dir string) ([]*Made, error) {
	paths, err := filepath.Glob(filepath.Join(dir, madeGlob))
	if err != nil {
		return nil, fmt.Errorf("looking for what earlier runs have made: %w", err)
	}
	var all []*Made
	for _, path := range paths {
		b, err := os.ReadFile(path)
		if err != nil {
			return nil, fmt.Errorf("reading what an earlier run has made: %w", err)
		}
		m := &Made{path: path}
		if err := json.Unmarshal(b, &m.list); err != nil {
			return nil, fmt.Errorf("%s: %w", path, err)
		}
		for _, table := range m.list.Tables {
			if !tableName.MatchString(table) {
				return nil, fmt.Errorf("%s names the table %q, which is not one of ots verify: nothing was deleted", path, table)
			}
		}
		all = append(all, m)
	}
	return all, nil
}

// Path is the file of the list.
func (m *Made) Path() string { return m.path }

// Endpoint and Instance say where the tables are.
func (m *Made) Endpoint() string { return m.list.Endpoint }

// Instance is the instance of the tables.
func (m *Made) Instance() string { return m.list.Instance }

// Tables returns what is listed.
func (m *Made) Tables() []string {
	m.mu.Lock()
	defer m.mu.Unlock()
	return slices.Clone(m.list.Tables)
}

// add lists a table that is about to be created.
func (m *Made) add(table string) error {
	if !tableName.MatchString(table) {
		return fmt.Errorf("the table %q does not have a name of ots verify", table)
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	m.list.Tables = append(m.list.Tables, table)
	return m.save()
}

// removed takes a table off the list. The file goes with the last one.
func (m *Made) removed(table string) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.list.Tables = slices.DeleteFunc(m.list.Tables, func(t string) bool { return t == table })
	if len(m.list.Tables) > 0 {
		return m.save()
	}
	if err := os.Remove(m.path); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("removing the list of what was made: %w", err)
	}
	return nil
}

// save needs mu. It replaces the file as a whole.
func (m *Made) save() error {
	b, err := json.MarshalIndent(m.list, "", "  ")
	if err != nil {
		return fmt.Errorf("listing what is made: %w", err)
	}
	f, err := os.CreateTemp(filepath.Dir(m.path), ".ots-verify-*")
	if err != nil {
		return fmt.Errorf("listing what is made: %w", err)
	}
	_, err = f.Write(append(b, '\n'))
	err = errors.Join(err, f.Sync(), f.Close())
	if err == nil {
		err = os.Rename(f.Name(), m.path)
	}
	if err != nil {
		return fmt.Errorf("listing what is made: %w", errors.Join(err, os.Remove(f.Name())))
	}
	return nil
}
