package letters

import (
	"context"
	"errors"
	"fmt"
	"io"
	"maps"
	"math/rand/v2"
	"net/http"
	"path"
	"reflect"
	"sync"
	"testing"
	"time"

	"github.com/ThreeDotsLabs/watermill"
	"github.com/ThreeDotsLabs/watermill/message"
	"github.com/aliyun/aliyun-tablestore-go-sdk/tablestore"

	"github.com/watermill-ots/watermill-ots/ack"
	"github.com/watermill-ots/watermill-ots/emulator"
	"github.com/watermill-ots/watermill-ots/internal/feed"
	"github.com/watermill-ots/watermill-ots/internal/service"
	"github.com/watermill-ots/watermill-ots/internal/testbed"
	"github.com/watermill-ots/watermill-ots/ots"
)

// bed is an empty dead-letter table and a handler of its letters. The test can count, stop
// and lose the answers of the requests.
type bed struct {
	*testbed.Bed
	process func(*message.Message) error
	keys    *service.CredentialsCache
	table   *Table
	wire    *wire
}

// wire is what is between a table's client and the emulator.
type wire struct {
	t    *testing.T
	base http.RoundTripper

	mu     sync.Mutex
	left   int            // requests that still get through; negative: all
	heal   int            // requests that are cut until all get through again; 0: for ever
	lose   map[string]int // answers to lose, by operation
	counts map[string]int // requests by operation
}

var (
	errCut  = errors.New("cut by the test")
	errLost = errors.New("answer lost by the test")
)

// maxRequest is the service's limit.
const maxRequest = 4 << 20

func (w *wire) RoundTrip(req *http.Request) (*http.Response, error) {
	operation := path.Base(req.URL.Path)
	if req.ContentLength > maxRequest {
		w.t.Errorf("a %s request has %d bytes, the service takes %d", operation, req.ContentLength, maxRequest)
	}
	w.mu.Lock()
	cut := w.left == 0
	if cut && w.heal > 0 {
		if w.heal--; w.heal == 0 {
			w.left = -1
		}
	}
	if w.left > 0 {
		w.left--
	}
	w.counts[operation]++
	lose := !cut && w.lose[operation] > 0
	if lose {
		w.lose[operation]--
	}
	w.mu.Unlock()
	if cut {
		return nil, errCut
	}
	resp, err := w.base.RoundTrip(req)
	if err == nil && lose {
		io.Copy(io.Discard, resp.Body)
		resp.Body.Close()
		return nil, errLost
	}
	return resp, err
}

// cutAfter lets n more requests through, all for a negative n.
func (w *wire) cutAfter(n int) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.left = n
}

// fail lets n requests through and cuts one call, with all its tries; what comes then gets through.
func (w *wire) fail(n int) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.left, w.heal = n, callTries
}

func (w *wire) loseAnswers(operation string, n int) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.lose[operation] = n
}

func newBed(t *testing.T, process func(*message.Message) error) *bed {
	t.Helper()
	b := &bed{
		Bed: testbed.New(t, emulator.Options{}), process: process,
		keys: service.NewCredentialsCache(service.StaticCredentials{AccessKeyID: testbed.KeyID, AccessKeySecret: testbed.KeySecret}, watermill.NopLogger{}),
	}
	t.Cleanup(func() { b.keys.Close(service.CredentialsGrace) })
	b.table, b.wire = b.open(t)
	if err := b.table.Prepare(context.Background()); err != nil {
		t.Fatal(err)
	}
	return b
}

// open returns the table behind a wire of its own.
func (b *bed) open(t *testing.T) (*Table, *wire) {
	transport := service.NewTransport(100)
	t.Cleanup(transport.CloseIdleConnections)
	w := &wire{t: t, base: transport, left: -1, lose: make(map[string]int), counts: make(map[string]int)}
	return b.over(w, watermill.NopLogger{}), w
}

// over returns the table behind a transport.
func (b *bed) over(transport http.RoundTripper, logger watermill.LoggerAdapter) *Table {
	return NewTable(service.TableClient{Endpoint: b.Emulator.Endpoint(), Instance: testbed.Instance, Transport: transport, Credentials: b.keys}, "dead", logger)
}

// replay returns a Replay of the pipeline "numbers" with a wire of its own. It is ordered by
// the primary key.
func (b *bed) replay(t *testing.T) (*replay, *wire) {
	t.Helper()
	table, w := b.open(t)
	return newReplay(Replay{
		Table: table, Pipeline: "numbers", Lease: 2 * time.Minute,
		OrderingKey: func(_, key string) string { return key },
		Handle: func(ctx context.Context, messages []*message.Message, keys []string) []error {
			return feed.Run(ctx, b.process, messages, keys)
		},
		Counts: func(_ context.Context, err error) bool { return !errors.Is(err, ack.ErrCalledBack) },
	}), w
}

// put writes letters.
func (b *bed) put(t *testing.T, letters ...*Letter) {
	t.Helper()
	for _, l := range letters {
		if err := b.table.Put(context.Background(), l); err != nil {
			t.Fatal(err)
		}
	}
}

// letters reads all letters, whole.
func (b *bed) letters(t *testing.T) []*kept {
	t.Helper()
	var all []*kept
	var from *tablestore.PrimaryKey
	for {
		page, next, err := b.table.page(context.Background(), "numbers", from, 2)
		if err != nil {
			t.Fatal(err)
		}
		for _, k := range page {
			if k.foreign == nil {
				k.foreign = b.table.unpack(context.Background(), k)
			}
			all = append(all, k)
		}
		if from = next; from == nil {
			return all
		}
	}
}

// rows returns the ids of all rows, letters and parts.
func (b *bed) rows(t *testing.T) (letters, parts []string) {
	t.Helper()
	from, end := new(tablestore.PrimaryKey), new(tablestore.PrimaryKey)
	for _, name := range letterKey {
		from.AddPrimaryKeyColumnWithMinValue(name)
		end.AddPrimaryKeyColumnWithMaxValue(name)
	}
	for from != nil {
		rows, next, err := b.table.read(context.Background(), from, end, 100)
		if err != nil {
			t.Fatal(err)
		}
		for _, row := range rows {
			c := cellsOf(row.PrimaryKey, row.Columns)
			if c.texts[columnSequence] == partsSequence {
				parts = append(parts, c.texts[columnID])
			} else {
				letters = append(letters, c.texts[columnID])
			}
		}
		from = next
	}
	return letters, parts
}

// noise is data that does not compress.
func noise(seed uint64, n int) []byte {
	random := rand.New(rand.NewPCG(seed, 1))
	b := make([]byte, n)
	for i := range b {
		b[i] = byte(random.Uint32())
	}
	return b
}

// letterOfRow returns the letter of version v of a row. Version 0 is base data.
func letterOfRow(key string, v int, columns ...ots.Cell) *Letter {
	r := &ots.Record{
		Instance: testbed.Instance, Table: testbed.Table, Tunnel: testbed.Tunnel, Channel: "c", UUID: fmt.Sprintf("%s-%d", key, v),
		Type: ots.Put, Attempt: 1, PrimaryKey: []ots.Column{{Name: "k", Value: ots.StringValue(key)}}, Columns: columns,
	}
	l := &Letter{
		Pipeline: "numbers", ID: r.UUID, Identity: r.UUID, Table: r.Table, Tunnel: r.Tunnel, Channel: r.Channel, Type: "put", Key: r.KeyText(),
		Error: "boom", Attempts: 5, FailedAt: Now(), Metadata: map[string]string{"a": "b"}, Payload: []byte("{}"), Record: r,
	}
	if v > 0 {
		r.Sequence = ots.Sequence{Timestamp: int64(v)}
		l.Sequence = r.Sequence.String()
	}
	return l
}

func blob(seed uint64, n int) ots.Cell {
	return ots.Cell{Name: fmt.Sprintf("c%d", seed), Value: ots.BinaryValue(noise(seed, n)), Type: ots.CellPut, Timestamp: 1}
}

// same compares what a letter was with what came back.
func same(t *testing.T, got *kept, want *Letter) {
	t.Helper()
	if got.foreign != nil {
		t.Errorf("the letter cannot be read: %v", got.foreign)
		return
	}
	expected := *want
	expected.Identity = want.identity()
	if !reflect.DeepEqual(got.Letter, &expected) {
		t.Errorf("the letter came back changed: id %.40q, identity %.40q, %d bytes of payload, %d metadata, record %v; it had id %.40q, identity %.40q, %d bytes, %d metadata, record %v",
			got.ID, got.Identity, len(got.Payload), len(got.Metadata), got.Record != nil, want.ID, expected.Identity, len(want.Payload), len(want.Metadata), want.Record != nil)
	}
}

// set changes columns of a row without the Table; nil deletes one.
func (b *bed) set(t *testing.T, key *tablestore.PrimaryKey, columns map[string]any) {
	t.Helper()
	change := &tablestore.UpdateRowChange{TableName: "dead", PrimaryKey: key}
	change.SetCondition(tablestore.RowExistenceExpectation_IGNORE)
	for name, v := range maps.All(columns) {
		if v == nil {
			change.DeleteColumn(name)
		} else {
			change.PutColumn(name, v)
		}
	}
	if _, err := b.Client.UpdateRow(&tablestore.UpdateRowRequest{UpdateRowChange: change}); err != nil {
		t.Fatal(err)
	}
}
