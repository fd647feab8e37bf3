package main

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"strings"
	"time"

	"github.com/aliyun/aliyun-tablestore-go-sdk/tablestore"
	"github.com/aliyun/aliyun-tablestore-go-sdk/tunnel"

	"github.com/watermill-ots/watermill-ots/emulator"
	"github.com/watermill-ots/watermill-ots/subscriber"
)

// source is where the changes come from: an emulated Tablestore inside the
// process, to which orders are written, or a real one, which is only read.
type source struct {
	emulator *emulator.Emulator // nil for a real Tablestore

	endpoint, instance, keyID, keySecret string
	table, tunnel                        string
}

// openSource starts the emulator, or uses the OTS_ variables if OTS_ENDPOINT is
// set.
func openSource(dataDir string) (*source, error) {
	if os.Getenv("OTS_ENDPOINT") != "" {
		return sourceFromEnv()
	}
	if dataDir != "" {
		if err := os.MkdirAll(dataDir, 0o755); err != nil {
			return nil, err
		}
	}
	s := &source{instance: "quickstart", keyID: "quickstart-id", keySecret: "quickstart-secret", table: "orders", tunnel: "changes"}
	em, err := emulator.Start(emulator.Options{
		DataDir: dataDir, Instance: s.instance, AccessKeyID: s.keyID, AccessKeySecret: s.keySecret,
	})
	if err != nil {
		return nil, err
	}
	s.emulator, s.endpoint = em, em.Endpoint()
	if err := s.createTable(); err != nil {
		return nil, errors.Join(err, em.Close())
	}
	return s, nil
}

func sourceFromEnv() (*source, error) {
	s := &source{}
	var missing []string
	for _, v := range []struct {
		name string
		to   *string
	}{
		{"OTS_ENDPOINT", &s.endpoint}, {"OTS_INSTANCE", &s.instance},
		{"OTS_ACCESS_KEY_ID", &s.keyID}, {"OTS_ACCESS_KEY_SECRET", &s.keySecret},
		{"OTS_TABLE", &s.table}, {"OTS_TUNNEL", &s.tunnel},
	} {
		if *v.to = os.Getenv(v.name); *v.to == "" {
			missing = append(missing, v.name)
		}
	}
	if len(missing) > 0 {
		return nil, fmt.Errorf("OTS_ENDPOINT is set, but not %s: set them too, or unset OTS_ENDPOINT to use the emulator", strings.Join(missing, ", "))
	}
	return s, nil
}

func (s *source) embedded() bool { return s.emulator != nil }

func (s *source) topic() string { return s.table + "/" + s.tunnel }

// Heartbeats are short, so that a killed quickstart gets its channels back soon after a
// restart. The defaults are 30s and 300s.
const (
	heartbeatInterval = 2 * time.Second
	heartbeatTimeout  = 5 * time.Second
)

func (s *source) config() subscriber.Config {
	return subscriber.Config{
		Endpoint: s.endpoint, Instance: s.instance, AccessKeyID: s.keyID, AccessKeySecret: s.keySecret,
		HeartbeatInterval: heartbeatInterval, HeartbeatTimeout: heartbeatTimeout,
		CheckpointInterval: time.Second,
		Tunnel:             subscriber.TunnelSpec{Type: subscriber.Stream},
	}
}

// Close stops the emulator.
func (s *source) Close() error {
	if s.emulator == nil {
		return nil
	}
	return s.emulator.Close()
}

func (s *source) client() *tablestore.TableStoreClient {
	return tablestore.NewClient(s.endpoint, s.instance, s.keyID, s.keySecret)
}

// createTable creates the table, unless an earlier run with the same data
// directory did.
func (s *source) createTable() error {
	client := s.client()
	list, err := client.ListTable()
	if err != nil {
		return err
	}
	for _, name := range list.TableNames {
		if name == s.table {
			return nil
		}
	}
	meta := &tablestore.TableMeta{TableName: s.table}
	meta.AddPrimaryKeyColumn("customer", tablestore.PrimaryKeyType_STRING)
	meta.AddPrimaryKeyColumn("order", tablestore.PrimaryKeyType_INTEGER)
	_, err = client.CreateTable(&tablestore.CreateTableRequest{
		TableMeta:          meta,
		TableOption:        &tablestore.TableOption{TimeToAlive: -1, MaxVersion: 1},
		ReservedThroughput: &tablestore.ReservedThroughput{},
		StreamSpec:         &tablestore.StreamSpecification{EnableStream: true, ExpirationTime: 24},
	})
	return err
}

// splitAfter is the number of writes after which a partition is split.
const splitAfter = 500

// writeOrders writes orders and their later changes for a while, as a shop
// would. Meanwhile it splits a partition of the table and calls split: one
// channel of the tunnel ends, and two others continue where it ended.
func (s *source) writeOrders(ctx context.Context, duration time.Duration, split func()) error {
	client := s.client()
	first := time.Now().UnixMilli() // order numbers of two runs do not collide
	random := rand.New(rand.NewPCG(uint64(first), 0))
	every := time.NewTicker(4 * time.Millisecond)
	defer every.Stop()
	end := time.After(duration)
	for n := int64(0); ; n++ {
		select {
		case <-every.C:
		case <-end:
			return nil
		case <-ctx.Done():
			return nil
		}
		if n == splitAfter { // as the service does with a growing partition
			if err := s.emulator.Split(s.table); err != nil {
				return err
			}
			split()
		}
		customer, order := customerOf(n), first+n
		if n >= 50 && n%5 == 0 { // an order placed a while ago is paid
			customer, order = customerOf(n-48), order-48
			if err := pay(client, s.table, customer, order); err != nil {
				return fmt.Errorf("paying order %d: %w", order, err)
			}
			continue
		}
		if err := place(client, s.table, customer, order, random.Int64N(100_000)); err != nil {
			return fmt.Errorf("placing order %d: %w", order, err)
		}
	}
}

func customerOf(n int64) string {
	return []string{"ada", "ben", "chen", "dora", "eli", "fang", "gus", "hua", "ivo", "jun"}[n%10]
}

func place(client *tablestore.TableStoreClient, table, customer string, order, cents int64) error {
	put := &tablestore.PutRowChange{TableName: table, PrimaryKey: key(customer, order)}
	put.AddColumn("amount_cents", cents)
	put.AddColumn("status", "placed")
	put.AddColumn("changes", int64(1)) // number of times that this row was written
	put.SetCondition(tablestore.RowExistenceExpectation_IGNORE)
	_, err := client.PutRow(&tablestore.PutRowRequest{PutRowChange: put})
	return err
}

func pay(client *tablestore.TableStoreClient, table, customer string, order int64) error {
	update := &tablestore.UpdateRowChange{TableName: table, PrimaryKey: key(customer, order)}
	update.PutColumn("status", "paid")
	update.PutColumn("changes", int64(2))
	update.SetCondition(tablestore.RowExistenceExpectation_IGNORE)
	_, err := client.UpdateRow(&tablestore.UpdateRowRequest{UpdateRowChange: update})
	return err
}

func key(customer string, order int64) *tablestore.PrimaryKey {
	pk := new(tablestore.PrimaryKey)
	pk.AddPrimaryKeyColumn("customer", customer)
	pk.AddPrimaryKeyColumn("order", order)
	return pk
}

// countChanges reads from the table how often its rows were written: the
// changes that the tunnel has to deliver, those of earlier runs included.
func (s *source) countChanges() (int, error) {
	client := s.client()
	start, end := new(tablestore.PrimaryKey), new(tablestore.PrimaryKey)
	for _, name := range []string{"customer", "order"} {
		start.AddPrimaryKeyColumnWithMinValue(name)
		end.AddPrimaryKeyColumnWithMaxValue(name)
	}
	changes := 0
	for start != nil {
		rows, err := client.GetRange(&tablestore.GetRangeRequest{RangeRowQueryCriteria: &tablestore.RangeRowQueryCriteria{
			TableName: s.table, StartPrimaryKey: start, EndPrimaryKey: end,
			Direction: tablestore.FORWARD, MaxVersion: 1, Limit: 1000, ColumnsToGet: []string{"changes"},
		}})
		if err != nil {
			return 0, err
		}
		for _, row := range rows.Rows {
			for _, c := range row.Columns {
				changes += int(c.Value.(int64))
			}
		}
		start = rows.NextStartPrimaryKey
	}
	return changes, nil
}

// position is the position of the tunnel's checkpoint.
type position struct {
	channels  int
	committed time.Time // every earlier change is handled and committed; zero if there is none
}

func (s *source) position() (position, error) {
	client := tunnel.NewTunnelClient(s.endpoint, s.instance, s.keyID, s.keySecret)
	d, err := client.DescribeTunnel(&tunnel.DescribeTunnelRequest{TableName: s.table, TunnelName: s.tunnel})
	if err != nil {
		return position{}, err
	}
	p := position{channels: len(d.Channels)}
	if d.TunnelRPO > 0 {
		p.committed = time.Unix(0, d.TunnelRPO)
	}
	return p, nil
}

// lag returns how far the committed position is behind the newest change.
func (s *source) lag(p position) string {
	return time.Since(p.committed).Round(time.Millisecond).String() + " behind the clock"
}
