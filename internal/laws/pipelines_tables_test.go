package laws

import (
	"encoding/json"
	"fmt"
	"math/rand/v2"
	"strings"
	"sync"
	"time"

	"github.com/aliyun/aliyun-tablestore-go-sdk/tablestore"

	"github.com/watermill-ots/watermill-ots/internal/testbed"
)

const (
	// changePause is the pause between two rounds of changes.
	changePause = 30 * time.Millisecond
	roundRows   = 7
	liveKeys    = 40 // keys that change
	stillKeys   = 60 // keys that existed before the tunnels and never change
	// badShare of 1000 puts and updates are bad.
	badShare = 15
)

// written is one write of a row.
type written struct {
	typ     string // put, update or delete
	version int    // 0 for a delete
	bad     int
}

// table is a table of the emulator and what was written to it. Every row has a
// string key "k", and columns "v", an increasing version, and "bad".
//
// The methods of the writer (fill, round, tick) are called by one goroutine at
// a time; all others may be called concurrently.
type table struct {
	name   string
	client *tablestore.TableStoreClient
	random *rand.Rand

	mu      sync.Mutex // guards the following
	base    map[string]written
	stream  map[string][]written // by key, in order, since the tunnels were created
	changes int                  // in stream
}

func newTable(client *tablestore.TableStoreClient, name string, seed uint64) *table {
	return &table{
		name: name, client: client, random: rand.New(rand.NewPCG(seed, uint64(len(name)))),
		base: make(map[string]written), stream: make(map[string][]written),
	}
}

// create creates the table.
func (t *table) create() error {
	meta := &tablestore.TableMeta{TableName: t.name}
	meta.AddPrimaryKeyColumn("k", tablestore.PrimaryKeyType_STRING)
	_, err := t.client.CreateTable(&tablestore.CreateTableRequest{
		TableMeta:          meta,
		TableOption:        &tablestore.TableOption{TimeToAlive: -1, MaxVersion: 1},
		ReservedThroughput: &tablestore.ReservedThroughput{},
		StreamSpec:         &tablestore.StreamSpecification{EnableStream: true, ExpirationTime: 24},
	})
	return err
}

// Names of keys. hotKey occurs in every round.
func liveKey(i int) string  { return fmt.Sprintf("live-%03d", i) }
func stillKey(i int) string { return fmt.Sprintf("still-%03d", i) }

const hotKey = "hot"

func isHot(keyText string) bool { return keyText == keyTextOf(hotKey) }

// keyTextOf returns the ots.Record.KeyText of a key.
func keyTextOf(key string) string {
	text, _ := json.Marshal([]string{key}) // strings always have a JSON form
	return string(text)
}

// fill writes the base data: rows that exist before the tunnels.
func (t *table) fill() error {
	var keys []string
	for i := range stillKeys {
		keys = append(keys, stillKey(i))
	}
	for i := range liveKeys / 2 {
		keys = append(keys, liveKey(i))
	}
	for _, key := range append(keys, hotKey) {
		w := written{typ: "put", version: 1, bad: t.badness()}
		if err := t.write(map[string]written{key: w}); err != nil {
			return err
		}
		t.base[keyTextOf(key)] = w
	}
	return nil
}

// badness decides at random about one row.
func (t *table) badness() int {
	if t.random.IntN(1000) >= badShare {
		return good
	}
	return []int{badAtSink, badAtSink, badAtSink, badInProcess}[t.random.IntN(4)]
}

// round writes the hot key and some others.
func (t *table) round() error {
	keys := []string{hotKey}
	for _, i := range t.random.Perm(liveKeys)[:roundRows-1] {
		keys = append(keys, liveKey(i))
	}
	rows := make(map[string]written)
	for _, key := range keys {
		version := t.next(key)
		switch n := t.random.IntN(100); {
		case n < 10:
			rows[key] = written{typ: "delete"}
		case n < 50:
			rows[key] = written{typ: "update", version: version, bad: t.badness()}
		default:
			rows[key] = written{typ: "put", version: version, bad: t.badness()}
		}
	}
	return t.change(rows)
}

// next returns the number of the key's next change, starting at 2: 1 is in the
// base data.
func (t *table) next(key string) int {
	t.mu.Lock()
	defer t.mu.Unlock()
	return len(t.stream[keyTextOf(key)]) + 2
}

// tick writes good changes of some keys. A bad row is given up only where
// others succeed (L9), so there must be some in each worker and each batcher,
// whatever channels the worker has.
func (t *table) tick() error {
	rows := make(map[string]written)
	for _, key := range tickKeys() {
		rows[key] = written{typ: "put", version: t.next(key)}
	}
	return t.change(rows)
}

// tickKeys are the keys whose changes continue until all others have arrived.
// They are spread over the table, between the others, so that each partition
// has some, and for each batcher.
func tickKeys() (keys []string) {
	near := []string{hotKey}
	for i := 3; i < liveKeys; i += 7 {
		near = append(near, liveKey(i))
	}
	for i := 9; i < stillKeys; i += 12 {
		near = append(near, stillKey(i))
	}
	for _, key := range near {
		for _, batcher := range batcherNames {
			n := 0
			for batcherOf(keyTextOf(tickKey(key, n))) != batcher {
				n++
			}
			keys = append(keys, tickKey(key, n))
		}
	}
	return keys
}

func tickKey(near string, n int) string { return fmt.Sprintf("%s-tick-%d", near, n) }

// change writes rows and records them.
func (t *table) change(rows map[string]written) error {
	if err := t.write(rows); err != nil {
		return err
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	for key, w := range rows {
		key = keyTextOf(key)
		t.stream[key] = append(t.stream[key], w)
		t.changes++
	}
	return nil
}

func (t *table) write(rows map[string]written) error {
	req := new(tablestore.BatchWriteRowRequest)
	for key, w := range rows {
		pk := new(tablestore.PrimaryKey)
		pk.AddPrimaryKeyColumn("k", key)
		switch w.typ {
		case "put":
			put := &tablestore.PutRowChange{TableName: t.name, PrimaryKey: pk}
			put.AddColumn("v", int64(w.version))
			put.AddColumn("bad", int64(w.bad))
			put.SetCondition(tablestore.RowExistenceExpectation_IGNORE)
			req.AddRowChange(put)
		case "update":
			update := &tablestore.UpdateRowChange{TableName: t.name, PrimaryKey: pk}
			update.PutColumn("v", int64(w.version))
			update.PutColumn("bad", int64(w.bad))
			update.SetCondition(tablestore.RowExistenceExpectation_IGNORE)
			req.AddRowChange(update)
		default:
			del := &tablestore.DeleteRowChange{TableName: t.name, PrimaryKey: pk}
			del.SetCondition(tablestore.RowExistenceExpectation_IGNORE)
			req.AddRowChange(del)
		}
	}
	if err := testbed.BatchWrite(t.client, req); err != nil {
		return fmt.Errorf("writing to %s: %w", t.name, err)
	}
	return nil
}

// written returns the number of changes since the tunnels were created.
func (t *table) written() int {
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.changes
}

// ticks returns how many of them were ticks.
func (t *table) ticks() (n int) {
	t.mu.Lock()
	defer t.mu.Unlock()
	for key, changes := range t.stream {
		if isTick(key) {
			n += len(changes)
		}
	}
	return n
}

func isTick(keyText string) bool { return strings.Contains(keyText, "-tick-") }
