package subscriber

import (
	"context"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/ThreeDotsLabs/watermill"
	"github.com/aliyun/aliyun-tablestore-go-sdk/tablestore"

	"github.com/watermill-ots/watermill-ots/emulator"
	"github.com/watermill-ots/watermill-ots/internal/service"
	"github.com/watermill-ots/watermill-ots/internal/tunnelapi"
)

func TestStreamRetention_is_what_the_table_says(t *testing.T) {
	em, err := emulator.Start(emulator.Options{Instance: "i", AccessKeyID: "id", AccessKeySecret: "secret"})
	if err != nil {
		t.Fatal(err)
	}
	defer em.Close()
	client := tablestore.NewClient(em.Endpoint(), "i", "id", "secret")
	for name, spec := range map[string]*tablestore.StreamSpecification{
		"with": {EnableStream: true, ExpirationTime: 48}, "without": {EnableStream: false},
	} {
		meta := &tablestore.TableMeta{TableName: name}
		meta.AddPrimaryKeyColumn("k", tablestore.PrimaryKeyType_STRING)
		if _, err := client.CreateTable(&tablestore.CreateTableRequest{
			TableMeta: meta, TableOption: &tablestore.TableOption{TimeToAlive: -1, MaxVersion: 1},
			ReservedThroughput: &tablestore.ReservedThroughput{}, StreamSpec: spec,
		}); err != nil {
			t.Fatal(err)
		}
	}
	base := &http.Transport{}
	defer base.CloseIdleConnections()
	e := &tunnelapi.Client{
		URL: em.Endpoint(), Instance: "i", Base: base, Timeout: 5 * time.Second,
		Creds: service.NewCredentialsCache(service.StaticCredentials{AccessKeyID: "id", AccessKeySecret: "secret"}, watermill.NopLogger{}),
	}
	for table, want := range map[string]time.Duration{"with": 48 * time.Hour, "without": 0} {
		if got, err := streamRetention(t.Context(), e, table); err != nil || got != want {
			t.Errorf("table %s: %v, %v, want %v", table, got, err, want)
		}
	}
	if _, err := streamRetention(t.Context(), e, "missing"); err == nil || !strings.Contains(err.Error(), "missing") {
		t.Errorf("a missing table: %v", err)
	}
	empty := *e
	empty.Base = roundTripFunc(func(r *http.Request) (*http.Response, error) { return answer(r, http.StatusOK, nil), nil })
	if _, err := streamRetention(t.Context(), &empty, "with"); err == nil || !strings.Contains(err.Error(), "malformed") {
		t.Errorf("an empty answer: %v", err)
	}
	ended, cancel := context.WithCancel(context.Background())
	cancel()
	if _, err := streamRetention(ended, e, "with"); err == nil {
		t.Error("no error although the context has ended")
	}
}

// roundTripFunc is a transport of one function.
type roundTripFunc func(*http.Request) (*http.Response, error)

func (f roundTripFunc) RoundTrip(r *http.Request) (*http.Response, error) { return f(r) }
