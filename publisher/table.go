package publisher

import (
	"context"
	"fmt"
	"strings"
	"time"

	"github.com/ThreeDotsLabs/watermill"
	"github.com/aliyun/aliyun-tablestore-go-sdk/tablestore"
	"github.com/cenkalti/backoff/v4"

	"github.com/watermill-ots/watermill-ots/internal/service"
)

// CreateTable creates the topic's table, with a stream, unless it exists. An existing
// table must have the key columns that a Publisher writes (ErrTable).
//
// The service needs some seconds until a table is ready; Publish retries in that time.
func (p *Publisher) CreateTable(ctx context.Context, topic string) error {
	table, err := p.table(topic)
	if err != nil {
		return err
	}
	if !p.calls.Begin() {
		return fmt.Errorf("creating table %s: %w", table, ErrClosed)
	}
	defer p.calls.End()
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	defer context.AfterFunc(p.ctx, func() { cancel(context.Cause(p.ctx)) })()
	return p.ensure(ctx, table)
}

// table returns the name of a topic's table.
func (p *Publisher) table(topic string) (string, error) {
	table := p.cfg.Table(topic)
	if !service.IsTableName(table) {
		return "", fmt.Errorf("%w: the table of topic %q would be %q, but a table's name has %s; map topics with Config.Table", ErrNoTable, topic, table, service.TableNameRule)
	}
	return table, nil
}

// prepare ensures that the table exists, if Config.CreateTables is set.
func (p *Publisher) prepare(ctx context.Context, table string) error {
	if !p.cfg.CreateTables {
		return nil
	}
	p.mu.Lock()
	known := p.known[table]
	p.mu.Unlock()
	if known {
		return nil
	}
	return p.ensure(ctx, table)
}

// ensure creates the table unless it exists.
func (p *Publisher) ensure(ctx context.Context, table string) error {
	meta, err := p.describe(ctx, table)
	if service.HasCode(err, service.CodeObjectNotExist) {
		err = p.retried(ctx, func() error {
			return p.client.call(ctx, "CreateTable", func(sdk *tablestore.TableStoreClient) error {
				_, err := sdk.CreateTable(p.newTable(table))
				return err
			})
		})
		if err == nil {
			p.logger.Info("Table created", watermill.LogFields{"table": table})
		} else if service.HasCode(err, service.CodeObjectAlreadyExist) { // another client was faster, or the answer to our own call was lost
			meta, err = p.describe(ctx, table)
		}
	}
	if err == nil && meta != nil {
		err = p.check(meta)
	}
	if err != nil {
		return fmt.Errorf("preparing table %s: %w", table, err)
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	p.known[table] = true
	return nil
}

func (p *Publisher) newTable(table string) *tablestore.CreateTableRequest {
	meta := &tablestore.TableMeta{TableName: table}
	meta.AddPrimaryKeyColumn(p.cfg.Columns.Key, tablestore.PrimaryKeyType_STRING)
	meta.AddPrimaryKeyColumnOption(p.cfg.Columns.Sequence, tablestore.PrimaryKeyType_INTEGER, tablestore.AUTO_INCREMENT)
	ttl := -1 // no limit
	if d := p.cfg.NewTable.TimeToLive; d > 0 {
		ttl = int(d / time.Second)
	}
	return &tablestore.CreateTableRequest{
		TableMeta:          meta,
		TableOption:        &tablestore.TableOption{TimeToAlive: ttl, MaxVersion: 1},
		ReservedThroughput: &tablestore.ReservedThroughput{},
		StreamSpec:         &tablestore.StreamSpecification{EnableStream: true, ExpirationTime: int32(p.cfg.NewTable.StreamRetention / time.Hour)},
	}
}

func (p *Publisher) describe(ctx context.Context, table string) (meta *tablestore.TableMeta, err error) {
	err = p.retried(ctx, func() error {
		return p.client.call(ctx, "DescribeTable", func(sdk *tablestore.TableStoreClient) error {
			resp, err := sdk.DescribeTable(&tablestore.DescribeTableRequest{TableName: table})
			if err == nil {
				meta = resp.TableMeta
			}
			return err
		})
	})
	return meta, err
}

// retried calls f until it succeeds or its error is not transient.
func (p *Publisher) retried(ctx context.Context, f func() error) error {
	pauses := p.cfg.RetryBackoff()
	for {
		err := f()
		if err == nil || !service.IsTransient(err) || ctx.Err() != nil {
			return err
		}
		if pause := pauses.NextBackOff(); pause == backoff.Stop || !sleep(ctx, pause) {
			return err
		}
	}
}

// forget makes the next Publish check again whether the table exists.
func (p *Publisher) forget(table string) {
	p.mu.Lock()
	defer p.mu.Unlock()
	delete(p.known, table)
}

// check compares a table's primary key with the one that a Publisher writes.
func (p *Publisher) check(meta *tablestore.TableMeta) error {
	want := p.newTable(meta.TableName).TableMeta
	if got, want := keyText(meta), keyText(want); got != want {
		return fmt.Errorf("%w: its primary key is (%s), messages need (%s)", ErrTable, got, want)
	}
	return nil
}

// keyText returns a table's primary key as text, for errors and for comparison.
func keyText(meta *tablestore.TableMeta) string {
	var columns []string
	for _, c := range meta.SchemaEntry {
		text := *c.Name + " " + map[tablestore.PrimaryKeyType]string{
			tablestore.PrimaryKeyType_INTEGER: "INTEGER", tablestore.PrimaryKeyType_STRING: "STRING", tablestore.PrimaryKeyType_BINARY: "BINARY",
		}[*c.Type]
		if c.Option != nil && *c.Option == tablestore.AUTO_INCREMENT {
			text += " auto-increment"
		}
		columns = append(columns, text)
	}
	return strings.Join(columns, ", ")
}
