package subscriber_test

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"math/rand/v2"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/ThreeDotsLabs/watermill"
	"github.com/ThreeDotsLabs/watermill/message"
	"github.com/aliyun/aliyun-tablestore-go-sdk/tunnel"

	"github.com/watermill-ots/watermill-ots/emulator"
	"github.com/watermill-ots/watermill-ots/internal/testbed"
	"github.com/watermill-ots/watermill-ots/ots"
	"github.com/watermill-ots/watermill-ots/subscriber"
)

// rowChange is what a reader of a change format makes of a message: the row before and
// after, nil for none.
type rowChange struct{ before, after map[string]any }

func decodeJSON(payload []byte, to any) error {
	d := json.NewDecoder(bytes.NewReader(payload))
	d.UseNumber()
	return d.Decode(to)
}

type envelope struct {
	Op            string
	Before, After map[string]any
	Source        struct{ DB, Table, Channel, Sequence, Image string }
}

// sinkConnector reads envelopes as sink connectors of Debezium do: upserts and deletes by key.
func sinkConnector(payload []byte) (c rowChange, err error) {
	var e envelope
	if err := decodeJSON(payload, &e); err != nil {
		return c, err
	}
	switch e.Op {
	case "c", "r", "u":
		if e.After == nil || e.Source.Image != "full" {
			return c, fmt.Errorf("op %s with the image %q of %v", e.Op, e.Source.Image, e.After)
		}
		return rowChange{after: e.After}, nil
	case "d":
		return rowChange{before: e.Before}, nil
	}
	return c, fmt.Errorf("op %q", e.Op)
}

// withSchema checks that a payload is what its schema says, and reads it as sinkConnector does.
func withSchema(payload []byte) (c rowChange, err error) {
	var e struct {
		Schema  connectSchema
		Payload json.RawMessage
	}
	if err := decodeJSON(payload, &e); err != nil {
		return c, err
	}
	var value any
	if err := decodeJSON(e.Payload, &value); err != nil {
		return c, err
	}
	if err := e.Schema.check("", value); err != nil {
		return c, err
	}
	return sinkConnector(e.Payload)
}

// connectSchema is a schema of Kafka Connect's JsonConverter.
type connectSchema struct {
	Type, Field string
	Optional    bool
	Fields      []connectSchema
}

func (s connectSchema) check(path string, v any) error {
	path += "." + s.Field
	if v == nil {
		if !s.Optional {
			return fmt.Errorf("%s is null, and not optional", path)
		}
		return nil
	}
	ok := false
	switch s.Type {
	case "int64":
		n, number := v.(json.Number)
		_, err := n.Int64()
		ok = number && err == nil
	case "double":
		_, ok = v.(json.Number)
	case "boolean":
		_, ok = v.(bool)
	case "string", "bytes":
		_, ok = v.(string)
	case "struct":
		m, object := v.(map[string]any)
		ok = object
		for _, f := range s.Fields {
			if err := f.check(path, m[f.Field]); err != nil {
				return err
			}
			delete(m, f.Field)
		}
		if len(m) > 0 {
			return fmt.Errorf("%s has %v, which the schema does not", path, m)
		}
	}
	if !ok {
		return fmt.Errorf("%s is %v, and not %s", path, v, s.Type)
	}
	return nil
}

// flinkDebezium follows the rules of Flink's debezium-json: a null before of u or d is an error.
func flinkDebezium(payload []byte) (c rowChange, err error) {
	var e envelope
	if err := decodeJSON(payload, &e); err != nil {
		return c, err
	}
	switch {
	case e.Op == "c" || e.Op == "r":
		return rowChange{after: e.After}, nil
	case e.Before == nil:
		return c, fmt.Errorf("the before of op %s is null", e.Op)
	case e.Op == "u":
		return rowChange{e.Before, e.After}, nil
	case e.Op == "d":
		return rowChange{before: e.Before}, nil
	}
	return c, fmt.Errorf("op %q", e.Op)
}

// flinkCanal follows the rules of Flink's canal-json: what old does not name was as in data.
func flinkCanal(payload []byte) (c rowChange, err error) {
	var e struct {
		Data, Old []map[string]any
		Type      string
	}
	if err := decodeJSON(payload, &e); err != nil {
		return c, err
	}
	if len(e.Data) != 1 {
		return c, fmt.Errorf("%d rows", len(e.Data))
	}
	switch e.Type {
	case "INSERT":
		return rowChange{after: e.Data[0]}, nil
	case "DELETE":
		return rowChange{before: e.Data[0]}, nil
	case "UPDATE":
		if len(e.Old) != 1 {
			return c, errors.New("no old row")
		}
		before := maps.Clone(e.Data[0])
		maps.Copy(before, e.Old[0])
		return rowChange{before, e.Data[0]}, nil
	}
	return c, fmt.Errorf("type %q", e.Type)
}

// rebuilt is a table that a reader makes of messages.
type rebuilt struct {
	t    *testing.T
	read func([]byte) (rowChange, error)
	mu   sync.Mutex
	rows map[string]string
}

func (r *rebuilt) handle(msg *message.Message) error {
	c, err := r.read(msg.Payload)
	rec := record(r.t, msg)
	if rec.RowState == ots.RowGone && rec.Type == ots.Update { // its deletion follows, and after is not the whole row
		return nil
	}
	if err != nil {
		r.t.Errorf("%v: %s", err, msg.Payload)
		return nil
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	if c.before != nil {
		delete(r.rows, fmt.Sprintf("[%q]", c.before["k"]))
	}
	if c.after != nil {
		key := fmt.Sprintf("[%q]", c.after["k"])
		delete(c.after, "k")
		r.rows[key] = fmt.Sprint(c.after)
	}
	return nil
}

func TestFormats_consumers_rebuild_the_table_from_envelopes(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct {
		format ots.Unmarshaler
		read   func([]byte) (rowChange, error)
	}{
		"Debezium sink connector":     {subscriber.Debezium{}, sinkConnector},
		"Debezium with schemas":       {subscriber.Debezium{Schema: true, KeyBefore: true}, withSchema},
		"Debezium by Flink's rules":   {subscriber.Debezium{KeyBefore: true}, flinkDebezium},
		"canal-json by Flink's rules": {subscriber.Canal{}, flinkCanal},
	} {
		t.Run(name, func(t *testing.T) {
			seed := rand.Uint64()
			t.Logf("seed %d", seed)
			b := testbed.New(t, emulator.Options{Seed: seed})
			b.PutAll(20, 1)
			b.CreateTunnel(tunnel.TunnelTypeBaseStream)
			cfg := testbed.Config(b.Emulator.Endpoint())
			cfg.Lookup, cfg.Unmarshaler = subscriber.LookupUpdates, c.format
			s, err := subscriber.New(cfg, nil)
			if err != nil {
				t.Fatal(err)
			}
			defer s.Close()
			table := &rebuilt{t: t, read: c.read, rows: make(map[string]string)}
			if _, err := s.Handle(t.Context(), testbed.Topic, table.handle); err != nil {
				t.Fatal(err)
			}
			writeAtRandom(b, seed)
			testbed.Eventually(t, 60*time.Second, "the table that was rebuilt equals the table", func() bool {
				want := tableRows(b)
				table.mu.Lock()
				defer table.mu.Unlock()
				return maps.Equal(table.rows, want)
			})
		})
	}
}

func TestPublishTombstones_follow_deletions_only(t *testing.T) {
	for typ, want := range map[ots.RecordType]int{ots.Put: 1, ots.Update: 1, ots.Delete: 2} {
		msg, err := subscriber.Debezium{}.Unmarshal(&ots.Record{Type: typ, PrimaryKey: []ots.Column{{Name: "k", Value: ots.StringValue("a")}}})
		if err != nil {
			t.Fatal(err)
		}
		msg.UUID = "u"
		got, err := subscriber.PublishTombstones(msg)
		if err != nil || len(got) != want || got[0] != msg {
			t.Fatalf("%v: %d messages, %v", typ, len(got), err)
		}
		if want == 2 && (got[1].Payload != nil || got[1].UUID != "u-tombstone" || got[1].Metadata.Get(subscriber.MetadataKey) != `["a"]`) {
			t.Errorf("the tombstone is %+v", got[1])
		}
	}
}

func TestFormats_that_show_rows_say_at_the_start_that_updates_need_a_lookup(t *testing.T) {
	for _, c := range []struct {
		format ots.Unmarshaler
		lookup subscriber.Lookup
		says   bool
	}{
		{subscriber.Debezium{}, subscriber.LookupNone, true},
		{subscriber.Canal{}, subscriber.LookupNone, true},
		{subscriber.Debezium{}, subscriber.LookupUpdates, false},
		{subscriber.JSON{}, subscriber.LookupNone, false},
	} {
		logger := watermill.NewCaptureLogger()
		cfg := testbed.Config("http://127.0.0.1:1")
		cfg.Unmarshaler, cfg.Lookup = c.format, c.lookup
		s, err := subscriber.New(cfg, logger)
		if err != nil {
			t.Fatal(err)
		}
		if err := s.Close(); err != nil {
			t.Error(err)
		}
		said := false
		for _, line := range logger.Captured()[watermill.InfoLogLevel] {
			said = said || strings.Contains(line.Msg, "expect whole rows")
		}
		if said != c.says {
			t.Errorf("%T with lookup %v: the log says it: %t", c.format, c.lookup, said)
		}
	}
}
