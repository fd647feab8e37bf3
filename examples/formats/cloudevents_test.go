package formats

import (
	"context"
	"encoding/json"
	"net/url"
	"testing"
	"time"

	"github.com/aliyun/aliyun-tablestore-go-sdk/tunnel"
	cloudevents "github.com/cloudevents/sdk-go/v2"

	"github.com/watermill-ots/watermill-ots/emulator"
	"github.com/watermill-ots/watermill-ots/internal/testbed"
	"github.com/watermill-ots/watermill-ots/ots"
	"github.com/watermill-ots/watermill-ots/subscriber"
)

func TestCloudEvents_of_a_tunnel_are_valid_for_the_official_SDK(t *testing.T) {
	for name, binary := range map[string]bool{"structured": false, "binary": true} {
		t.Run(name, func(t *testing.T) { eventsOfATunnel(t, binary) })
	}
}

// eventsOfATunnel reads the events as HTTP requests.
func eventsOfATunnel(t *testing.T, binary bool) {
	b := testbed.New(t, emulator.Options{})
	b.CreateTunnel(tunnel.TunnelTypeStream)
	cfg := testbed.Config(b.Emulator.Endpoint())
	cfg.Unmarshaler = subscriber.CloudEvents{Binary: binary}
	s, err := subscriber.New(cfg, nil)
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	messages, err := s.Subscribe(context.Background(), testbed.Topic)
	if err != nil {
		t.Fatal(err)
	}
	for v, key := range []string{"plain", "größer", `"quoted"\`, "a\nb\x00", "\u2028\x7f\u0085", "\ufffe\U0001ffff", "<&>"} {
		if err := b.Put(key, v); err != nil {
			t.Fatal(err)
		}
		select {
		case msg := <-messages:
			req, err := subscriber.CloudEventRequest("http://sink.test", msg)
			if err != nil {
				t.Fatal(err)
			}
			e, err := cloudevents.NewEventFromHTTPRequest(req)
			if err != nil {
				t.Fatalf("key %q: %v: %v %s", key, err, req.Header, msg.Payload)
			}
			if binary { // this SDK does not decode what the HTTP binding has encoded (v2.16)
				subject, err := url.PathUnescape(e.Subject())
				if err != nil {
					t.Errorf("key %q: %v", key, err)
				}
				e.SetSubject(subject)
				e.SetExtension("partitionkey", subject)
			}
			check(t, *e, key, msg.UUID)
			msg.Ack()
		case <-time.After(20 * time.Second):
			t.Fatal("no message within 20s")
		}
	}
}

// check validates an event about the row with that key.
func check(t *testing.T, e cloudevents.Event, key, uuid string) {
	t.Helper()
	if err := e.Validate(); err != nil {
		t.Errorf("key %q: %v", key, err)
	}
	if e.ID() != uuid || e.Source() != "tablestore://testbed/changes" || e.Type() != subscriber.DefaultTypePrefix+".put" || e.DataContentType() != cloudevents.ApplicationJSON {
		t.Errorf("key %q: the event is %v", key, e)
	}
	if sequence, ok := e.Extensions()["sequence"].(string); !ok || sequence == "" || e.Extensions()["partitionkey"] != e.Subject() {
		t.Errorf("key %q: the extensions are %v", key, e.Extensions())
	}
	if age := time.Since(e.Time()); age < 0 || age > time.Minute {
		t.Errorf("key %q: the event's time is %v", key, e.Time())
	}
	var subject []string
	if err := json.Unmarshal([]byte(e.Subject()), &subject); err != nil || len(subject) != 1 || subject[0] != key {
		t.Errorf("key %q: the subject is %q (%v)", key, e.Subject(), err)
	}
	var data struct {
		Type string
		Key  struct{ K string }
	}
	if err := e.DataAs(&data); err != nil || data.Type != "put" || data.Key.K != key {
		t.Errorf("key %q: the data is %s (%v)", key, e.Data(), err)
	}
}

func TestCloudEvents_of_each_change_are_valid_for_the_official_SDK(t *testing.T) {
	for _, r := range []ots.Record{
		{Type: ots.Put}, // base data
		{Type: ots.Update, Sequence: ots.Sequence{Timestamp: 1}},
		{Type: ots.Delete, Sequence: ots.Sequence{Epoch: -1, Timestamp: 1700000000123456, RowIndex: 3}},
	} {
		r.Instance, r.Table, r.Tunnel, r.Channel = "my-instance", "my_table", "t", "c"
		r.PrimaryKey = []ots.Column{{Name: "k", Value: ots.BinaryValue([]byte{0, 255})}}
		for _, u := range []subscriber.CloudEvents{{}, {TypePrefix: "org.example", Source: "/orders"}} {
			msg, err := u.Unmarshal(&r)
			if err != nil {
				t.Fatal(err)
			}
			var e cloudevents.Event
			if err := json.Unmarshal(msg.Payload, &e); err != nil {
				t.Fatalf("%v: %s", err, msg.Payload)
			}
			if err := e.Validate(); err != nil {
				t.Errorf("%v: %s", err, msg.Payload)
			}
		}
	}
}
