//go:build !sdk_1_7_17

package subscriber

import (
	"context"
	"errors"
	"net/http"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/aliyun/aliyun-tablestore-go-sdk/tablestore"

	"github.com/watermill-ots/watermill-ots/emulator"
	"github.com/watermill-ots/watermill-ots/ots"
)

// signatures counts the requests by the version that signed them.
type signatures struct {
	base http.RoundTripper
	mu   sync.Mutex
	ops  map[string]map[string]int // version, operation, requests
}

func (s *signatures) RoundTrip(req *http.Request) (*http.Response, error) {
	version := "v2"
	if req.Header.Get("x-ots-signaturev4") != "" && req.Header.Get("x-ots-signature") == "" {
		version = "v4"
	}
	s.mu.Lock()
	if s.ops[version] == nil {
		s.ops[version] = make(map[string]int)
	}
	s.ops[version][req.URL.Path]++
	s.mu.Unlock()
	return s.base.RoundTrip(req)
}

// v4Emulator is an emulator of one region, with a table "changes", and the
// configuration of a subscriber that goes with it.
func v4Emulator(t *testing.T) (*emulator.Emulator, *signatures, Config) {
	t.Helper()
	em, err := emulator.Start(emulator.Options{InMemory: true, Instance: "i", AccessKeyID: "id", AccessKeySecret: "secret", SecurityToken: "sts", Region: "cn-hangzhou"})
	if err != nil {
		t.Fatal(err)
	}
	transport := em.Transport()
	t.Cleanup(func() {
		transport.CloseIdleConnections()
		if err := em.Close(); err != nil {
			t.Errorf("closing the emulator: %v", err)
		}
	})
	s := &signatures{base: transport, ops: make(map[string]map[string]int)}
	conf := tablestore.NewDefaultTableStoreConfig()
	conf.Transport = transport
	meta := &tablestore.TableMeta{TableName: "changes"}
	meta.AddPrimaryKeyColumn("k", tablestore.PrimaryKeyType_STRING)
	if _, err := tablestore.NewClientWithConfig(em.Endpoint(), "i", "id", "secret", "sts", conf).CreateTable(&tablestore.CreateTableRequest{
		TableMeta: meta, TableOption: &tablestore.TableOption{TimeToAlive: -1, MaxVersion: 1},
		ReservedThroughput: &tablestore.ReservedThroughput{}, StreamSpec: &tablestore.StreamSpecification{EnableStream: true, ExpirationTime: 168},
	}); err != nil {
		t.Fatal(err)
	}
	return em, s, Config{
		Endpoint: em.Endpoint(), AllowInsecure: true, Instance: "i", AccessKeyID: "id", AccessKeySecret: "secret", SecurityToken: "sts",
		SignatureVersion: ots.SignatureV4, Region: "cn-hangzhou", Transport: s, MaxPollInterval: time.Minute,
		Tunnel: TunnelSpec{Type: Stream},
	}
}

// The key of a day is refused a quarter of an hour after its end.
func TestSubscriber_signs_every_call_in_version_4_over_midnight(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		time.Sleep(23*time.Hour + 50*time.Minute) // the bubble begins at midnight
		em, requests, cfg := v4Emulator(t)
		s, err := New(cfg, nil)
		if err != nil {
			t.Fatal(err)
		}
		if err := s.SubscribeInitialize("changes/tunnel"); err != nil {
			t.Fatal(err)
		}
		messages, err := s.Subscribe(context.Background(), "changes/tunnel")
		if err != nil {
			t.Fatal(err)
		}
		conf := tablestore.NewDefaultTableStoreConfig()
		conf.Transport = requests.base
		client := tablestore.NewClientWithConfig(em.Endpoint(), "i", "id", "secret", "sts", conf)
		for _, k := range []string{"first", "second", "third"} {
			put := &tablestore.PutRowChange{TableName: "changes", PrimaryKey: new(tablestore.PrimaryKey)}
			put.PrimaryKey.AddPrimaryKeyColumn("k", k)
			put.SetCondition(tablestore.RowExistenceExpectation_IGNORE)
			if _, err := client.PutRow(&tablestore.PutRowRequest{PutRowChange: put}); err != nil {
				t.Fatal(err)
			}
			(<-messages).Ack()
			time.Sleep(10 * time.Minute)
		}
		if err := s.Close(); err != nil {
			t.Error(err)
		}
		for op := range em.Stats().Operations {
			if n := em.Stats().Operations[op].Errors; n != 0 && op != "tunnel/describe" { // SubscribeInitialize asks whether it is there
				t.Errorf("%d calls of %s were refused", n, op)
			}
		}
		requests.mu.Lock()
		defer requests.mu.Unlock()
		if len(requests.ops["v2"]) != 0 {
			t.Errorf("signed by version 2: %v", requests.ops["v2"])
		}
		for _, op := range []string{"create", "describe", "connect", "heartbeat", "getcheckpoint", "readrecords", "checkpoint", "shutdown"} {
			if requests.ops["v4"]["/tunnel/"+op] == 0 {
				t.Errorf("no call of %s", op)
			}
		}
		if requests.ops["v4"]["/DescribeTable"] == 0 {
			t.Error("the table was not asked for its retention")
		}
	})
}

func TestSubscriber_of_another_region_is_told_what_to_check(t *testing.T) {
	_, _, cfg := v4Emulator(t)
	cfg.Region = "cn-beijing"
	s, err := New(cfg, nil)
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	if _, err := s.Subscribe(t.Context(), "changes/tunnel"); !errors.Is(err, ots.ErrAuth) || !strings.Contains(err.Error(), `Config.Region "cn-beijing"`) {
		t.Errorf("got %v", err)
	}
}
