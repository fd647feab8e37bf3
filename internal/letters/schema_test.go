package letters

import (
	"context"
	"slices"
	"strings"
	"sync"
	"testing"

	"github.com/ThreeDotsLabs/watermill"
	"github.com/aliyun/aliyun-tablestore-go-sdk/tablestore"

	"github.com/watermill-ots/watermill-ots/internal/testbed"
)

// keyColumn is a column of a table's primary key.
type keyColumn struct {
	name string
	kind tablestore.PrimaryKeyType
}

func createTable(t *testing.T, bed *testbed.Bed, name string, option *tablestore.TableOption, key ...keyColumn) {
	t.Helper()
	meta := &tablestore.TableMeta{TableName: name}
	for _, c := range key {
		meta.AddPrimaryKeyColumn(c.name, c.kind)
	}
	if _, err := bed.Client.CreateTable(&tablestore.CreateTableRequest{TableMeta: meta, TableOption: option, ReservedThroughput: &tablestore.ReservedThroughput{}}); err != nil {
		t.Fatal(err)
	}
}

func deleteTable(t *testing.T, bed *testbed.Bed, name string) {
	t.Helper()
	if _, err := bed.Client.DeleteTable(&tablestore.DeleteTableRequest{TableName: name}); err != nil {
		t.Fatal(err)
	}
}

var forever = &tablestore.TableOption{TimeToAlive: -1, MaxVersion: 1}

// errorLog collects the errors of the log.
type errorLog struct {
	watermill.NopLogger
	mu   sync.Mutex
	errs []error
}

func (l *errorLog) With(watermill.LogFields) watermill.LoggerAdapter { return l }

func (l *errorLog) Error(_ string, err error, _ watermill.LogFields) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.errs = append(l.errs, err)
}

// A table that makes letters vanish, or keeps Replay from claiming them, is used with a warning.
func TestTable_settings_that_do_not_suit_are_logged(t *testing.T) {
	no := false
	for _, c := range []struct {
		name   string
		option *tablestore.TableOption
		want   []error
	}{
		{"suits", forever, nil},
		{"letters expire", &tablestore.TableOption{TimeToAlive: 86400, MaxVersion: 1}, []error{errLettersExpire}},
		{"no updates", &tablestore.TableOption{TimeToAlive: -1, MaxVersion: 1, AllowUpdate: &no}, []error{errNoUpdates}},
	} {
		t.Run(c.name, func(t *testing.T) {
			b := newBed(t, nil)
			var key []keyColumn
			for _, name := range letterKey {
				key = append(key, keyColumn{name, tablestore.PrimaryKeyType_STRING})
			}
			deleteTable(t, b.Bed, "dead")
			createTable(t, b.Bed, "dead", c.option, key...)
			log := new(errorLog)
			for _, verify := range []func(context.Context) error{b.over(b.wire, log).Prepare, b.over(b.wire, log).verify} {
				log.errs = nil
				if err := verify(context.Background()); err != nil {
					t.Error(err)
				}
				if !slices.Equal(log.errs, c.want) {
					t.Errorf("the log has %v, not %v", log.errs, c.want)
				}
			}
		})
	}
}

// The longest name of a pipeline is a key of the table.
func TestTable_takes_the_longest_name_of_a_pipeline(t *testing.T) {
	b := newBed(t, nil)
	longest := strings.Repeat("n", MaxPipeline)
	l := letterOfRow("a", 1, blob(1, 3<<20)) // with parts
	l.Pipeline = longest
	b.put(t, l)
	page, _, err := b.table.page(context.Background(), longest, nil, 10)
	if err != nil || len(page) != 1 {
		t.Fatalf("read %d letters, %v", len(page), err)
	}
	page[0].foreign = b.table.unpack(context.Background(), page[0])
	same(t, page[0], l)
}
