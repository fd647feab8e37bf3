// Package testbed is a fixture for the tests of several packages: an emulator with a
// table whose rows count their versions, and a tunnel over it.
package testbed

import (
	"fmt"
	"testing"
	"time"

	"github.com/aliyun/aliyun-tablestore-go-sdk/tablestore"
	"github.com/aliyun/aliyun-tablestore-go-sdk/tunnel"

	"github.com/watermill-ots/watermill-ots/emulator"
	"github.com/watermill-ots/watermill-ots/subscriber"
)

// Names of the instance, the table and the tunnel that the tests use.
const (
	Instance  = "testbed"
	KeyID     = "testbed-id"
	KeySecret = "testbed-secret"
	Table     = "changes"
	Tunnel    = "consumer"
	Topic     = Table + "/" + Tunnel
)

// Bed is an emulator with one table. The table's rows have a string key "k" and an
// integer column "v", the version, which counts the writes of a key from 1.
type Bed struct {
	testing.TB
	Emulator *emulator.Emulator
	Client   *tablestore.TableStoreClient
	Tunnels  tunnel.TunnelClient
}

// New starts an emulator with the table. It is closed at the end of the test.
func New(t testing.TB, opts emulator.Options) *Bed {
	t.Helper()
	opts.Instance, opts.AccessKeyID, opts.AccessKeySecret = Instance, KeyID, KeySecret
	em, err := emulator.Start(opts)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := em.Close(); err != nil {
			t.Errorf("closing the emulator: %v", err)
		}
	})
	b := &Bed{
		TB: t, Emulator: em,
		Client:  tablestore.NewClient(em.Endpoint(), Instance, KeyID, KeySecret),
		Tunnels: tunnel.NewTunnelClient(em.Endpoint(), Instance, KeyID, KeySecret),
	}
	if err := CreateTable(b.Client); err != nil {
		t.Fatal(err)
	}
	return b
}

// CreateTable creates the table.
func CreateTable(client *tablestore.TableStoreClient) error {
	meta := &tablestore.TableMeta{TableName: Table}
	meta.AddPrimaryKeyColumn("k", tablestore.PrimaryKeyType_STRING)
	_, err := client.CreateTable(&tablestore.CreateTableRequest{
		TableMeta:          meta,
		TableOption:        &tablestore.TableOption{TimeToAlive: -1, MaxVersion: 1},
		ReservedThroughput: &tablestore.ReservedThroughput{},
		StreamSpec:         &tablestore.StreamSpecification{EnableStream: true, ExpirationTime: 24},
	})
	return err
}

// CreateTunnel creates the tunnel and returns its id.
func (b *Bed) CreateTunnel(typ tunnel.TunnelType) string {
	b.Helper()
	resp, err := b.Tunnels.CreateTunnel(&tunnel.CreateTunnelRequest{TableName: Table, TunnelName: Tunnel, Type: typ})
	if err != nil {
		b.Fatal(err)
	}
	return resp.TunnelId
}

// PutChange returns the write of version v of key k.
func PutChange(k string, v int) *tablestore.PutRowChange {
	put := &tablestore.PutRowChange{TableName: Table, PrimaryKey: new(tablestore.PrimaryKey)}
	put.PrimaryKey.AddPrimaryKeyColumn("k", k)
	put.AddColumn("v", int64(v))
	put.SetCondition(tablestore.RowExistenceExpectation_IGNORE)
	return put
}

// Put writes version v of key k.
func (b *Bed) Put(k string, v int) error {
	if _, err := b.Client.PutRow(&tablestore.PutRowRequest{PutRowChange: PutChange(k, v)}); err != nil {
		return fmt.Errorf("put %s version %d: %w", k, v, err)
	}
	return nil
}

// PutAll writes versions 1 to n of each of the first keys keys, version by version, in
// batches.
func (b *Bed) PutAll(keys, n int) {
	b.Helper()
	for v := 1; v <= n; v++ {
		for first := 0; first < keys; first += 200 {
			req := new(tablestore.BatchWriteRowRequest)
			for i := first; i < min(first+200, keys); i++ {
				req.AddRowChange(PutChange(Key(i), v))
			}
			if err := BatchWrite(b.Client, req); err != nil {
				b.Fatal(err)
			}
		}
	}
}

// BatchWrite writes rows and returns the first row's error, if any.
func BatchWrite(client *tablestore.TableStoreClient, req *tablestore.BatchWriteRowRequest) error {
	resp, err := client.BatchWriteRow(req)
	if err != nil {
		return err
	}
	for _, rows := range resp.TableToRowsResult {
		for _, r := range rows {
			if !r.IsSucceed {
				return fmt.Errorf("row %d: %s: %s", r.Index, r.Error.Code, r.Error.Message)
			}
		}
	}
	return nil
}

// Key returns the name of the i-th key.
func Key(i int) string { return fmt.Sprintf("key-%04d", i) }

// Committed returns the time of each channel's checkpoint: the service's recovery point
// by offset.
func (b *Bed) Committed(tunnelID string) map[string]time.Time {
	b.Helper()
	resp, err := b.Tunnels.GetRpoByOffset(&tunnel.GetRpoRequest{TunnelId: tunnelID})
	if err != nil {
		b.Fatal(err)
	}
	points := make(map[string]time.Time)
	for _, channels := range resp.RpoInfos {
		for id, c := range channels {
			points[id] = time.Unix(0, c.RpoTime)
		}
	}
	return points
}

// CommittedRecords returns how many records are before the checkpoints of a tunnel's
// channels, by the service's count.
func (b *Bed) CommittedRecords(tunnelID string) (n int64) {
	b.Helper()
	resp, err := b.Tunnels.GetRpoByOffset(&tunnel.GetRpoRequest{TunnelId: tunnelID})
	if err != nil {
		b.Fatal(err)
	}
	for _, channels := range resp.RpoInfos {
		for _, c := range channels {
			n += c.TotalCount
		}
	}
	return n
}

// Config is a subscriber's configuration with times short enough for tests.
func Config(endpoint string) subscriber.Config {
	return subscriber.Config{
		Endpoint: endpoint, Instance: Instance, AccessKeyID: KeyID, AccessKeySecret: KeySecret,
		HeartbeatInterval:  300 * time.Millisecond,
		HeartbeatTimeout:   time.Second,
		CheckpointInterval: 50 * time.Millisecond,
		MaxPollInterval:    50 * time.Millisecond,
		CloseTimeout:       5 * time.Second,
	}
}

// Eventually waits until cond holds. It fails the test after a limit that only a hang reaches.
func Eventually(t testing.TB, limit time.Duration, what string, cond func() bool) {
	t.Helper()
	deadline := time.Now().Add(limit)
	for !cond() {
		if time.Now().After(deadline) {
			t.Fatalf("not within %v: %s", limit, what)
		}
		time.Sleep(10 * time.Millisecond)
	}
}
