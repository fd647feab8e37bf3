package router

import (
	"context"
	"errors"
	"strings"
	"testing"

	"github.com/ThreeDotsLabs/watermill"
	"github.com/ThreeDotsLabs/watermill/message"
	"github.com/aliyun/aliyun-tablestore-go-sdk/tablestore"
	"github.com/aliyun/aliyun-tablestore-go-sdk/tunnel"

	"github.com/watermill-ots/watermill-ots/emulator"
	"github.com/watermill-ots/watermill-ots/internal/letters"
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
				t.Errorf("the tunnel was created before the table was checked: %v, %v", tunnels, err)
			}
		})
	}
}

// A name that is not a key of the table, because it is too long or not UTF-8, is a fault.
func TestDeadLetterTable_takes_names_of_pipelines_or_New_refuses_them(t *testing.T) {
	with := func(name string) error {
		cfg := Config{
			Instances: map[string]Instance{"main": {Name: testbed.Instance, Endpoint: "https://example.com", AccessKeyID: testbed.KeyID, AccessKeySecret: testbed.KeySecret}},
			Tunnels: map[string]Tunnel{name: {Instance: "main", TableName: testbed.Table, TunnelName: testbed.Tunnel,
				Failure: Failure{DeadLetter: &DeadLetterTarget{Table: "dead"}}}},
		}
		r, err := New(cfg, nil)
		if err == nil {
			err = r.Close()
		}
		return err
	}
	longest := strings.Repeat("n", letters.MaxPipeline)
	if err := with(longest); err != nil {
		t.Error(err)
	}
	for _, name := range []string{longest + "n", "\xff"} {
		if err := with(name); !errors.Is(err, ErrInvalidConfig) || !strings.Contains(err.Error(), "dead letters are kept under the pipeline's name") {
			t.Errorf("a name of %d bytes: %v", len(name), err)
		}
	}
}
