package router

import (
	"context"
	"errors"
	"slices"
	"strings"
	"sync"
	"testing"

	"github.com/ThreeDotsLabs/watermill"
	"github.com/ThreeDotsLabs/watermill/message"
	"github.com/aliyun/aliyun-tablestore-go-sdk/tablestore"
	"github.com/aliyun/aliyun-tablestore-go-sdk/tunnel"

	"github.com/watermill-ots/watermill-ots/emulator"
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

// lettersRouter is a router of one pipeline whose letters go to the table "dead".
func lettersRouter(t *testing.T, bed *testbed.Bed, logger watermill.LoggerAdapter) *Router {
	t.Helper()
	r, err := New(Config{
		Instances: map[string]Instance{"main": {Name: testbed.Instance, Endpoint: bed.Emulator.Endpoint(), AccessKeyID: testbed.KeyID, AccessKeySecret: testbed.KeySecret}},
		Tunnels: map[string]Tunnel{"numbers": {Instance: "main", TableName: testbed.Table, TunnelName: testbed.Tunnel,
			Tunnel: TunnelSpec{Create: true}, Failure: Failure{DeadLetter: &DeadLetterTarget{Table: "dead"}}}},
	}, logger)
	if err != nil {
		t.Fatal(err)
	}
	err = r.Handle("numbers", Handlers{Process: func(*message.Message) error { t.Error("a message was handled"); return nil }})
	if err != nil {
		t.Fatal(err)
	}
	return r
}

var forever = &tablestore.TableOption{TimeToAlive: -1, MaxVersion: 1}

// A table with another key is refused before anything runs, by Run and by Replay.
func TestDeadLetterTable_with_another_key_is_refused(t *testing.T) {
	const text, number = tablestore.PrimaryKeyType_STRING, tablestore.PrimaryKeyType_INTEGER
	const want = "that of a dead-letter table is (pipeline STRING, sequence STRING, id STRING)"
	for has, key := range map[string][]keyColumn{
		"(id STRING)": {{"id", text}},
		"(pipeline STRING, sequence INTEGER, id STRING)":                {{"pipeline", text}, {"sequence", number}, {"id", text}},
		"(pipeline STRING, id STRING, sequence STRING)":                 {{"pipeline", text}, {"id", text}, {"sequence", text}},
		"(pipeline STRING, sequence STRING, id STRING, version STRING)": {{"pipeline", text}, {"sequence", text}, {"id", text}, {"version", text}},
	} {
		t.Run(has, func(t *testing.T) {
			bed := testbed.New(t, emulator.Options{})
			createTable(t, bed, "dead", forever, key...)
			r := lettersRouter(t, bed, nil)
			check := func(err error) {
				t.Helper()
				if !errors.Is(err, ErrLetterTable) || !strings.Contains(err.Error(), "its primary key is "+has) || !strings.Contains(err.Error(), want) {
					t.Errorf("got %v", err)
				}
			}
			_, err := r.Replay(context.Background(), "numbers")
			check(err)
			check(r.Run(context.Background()))
			check(r.Close())
			if tunnels, err := bed.Tunnels.ListTunnel(&tunnel.ListTunnelRequest{TableName: testbed.Table}); err != nil || len(tunnels.Tunnels) != 0 {
				t.Errorf("the tunnel was made before the table was looked at: %v, %v", tunnels, err)
			}
		})
	}
}

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
func TestDeadLetterTable_settings_that_do_not_suit_are_logged(t *testing.T) {
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
			bed := testbed.New(t, emulator.Options{})
			var key []keyColumn
			for _, name := range letterKey {
				key = append(key, keyColumn{name, tablestore.PrimaryKeyType_STRING})
			}
			createTable(t, bed, "dead", c.option, key...)
			log := new(errorLog)
			r := lettersRouter(t, bed, log)
			defer r.Close()
			if _, err := r.Replay(context.Background(), "numbers"); err != nil {
				t.Error(err)
			}
			if !slices.Equal(log.errs, c.want) {
				t.Errorf("the log has %v, not %v", log.errs, c.want)
			}
		})
	}
}

// The longest name of a pipeline is a key of the table; a longer one, and one that is not
// UTF-8, is a fault.
func TestDeadLetterTable_takes_names_of_pipelines_or_New_refuses_them(t *testing.T) {
	b := newLettersBed(t, func(*message.Message) error { return nil })
	with := func(name string) error {
		cfg := Config{
			Instances: b.router.cfg.Instances,
			Tunnels:   map[string]Tunnel{name: b.router.cfg.Tunnels["numbers"]},
		}
		r, err := New(cfg, nil)
		if err == nil {
			err = r.Close()
		}
		return err
	}
	longest := strings.Repeat("n", maxPipeline)
	if err := with(longest); err != nil {
		t.Error(err)
	}
	l := letterOfRow("a", 1, blob(1, 3<<20)) // with parts
	l.Pipeline = longest
	b.put(t, l)
	page, _, err := b.table.page(context.Background(), longest, nil, 10)
	if err != nil || len(page) != 1 {
		t.Fatalf("read %d letters, %v", len(page), err)
	}
	page[0].foreign = b.table.unpack(context.Background(), page[0])
	same(t, page[0], l)
	for _, name := range []string{longest + "n", "\xff"} {
		if err := with(name); !errors.Is(err, ErrInvalidConfig) || !strings.Contains(err.Error(), "dead letters are kept under the pipeline's name") {
			t.Errorf("a name of %d bytes: %v", len(name), err)
		}
	}
}
