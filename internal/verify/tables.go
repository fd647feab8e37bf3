package verify

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/aliyun/aliyun-tablestore-go-sdk/tablestore"
	"github.com/aliyun/aliyun-tablestore-go-sdk/tunnel/protocol"

	"github.com/watermill-ots/watermill-ots/internal/service"
)

// baseRows is how many rows the common table has, for checks of base data.
const baseRows = 20

// retention is how long the streams of the tables keep their logs, in hours: the shortest
// that the service offers.
const retention = 24

// name returns the name of a table of this run: the common one, or that of a check which
// needs its own.
func (k *Kit) name(suffix string) string {
	if suffix != "" {
		suffix = "_" + suffix
	}
	return "otsverify_" + k.id + suffix
}

// createTable creates a table with a string key "k" and a stream, and waits until it can be
// used. It is listed before.
func (k *Kit) createTable(ctx context.Context, name string) error {
	if err := k.made.add(name); err != nil {
		return err
	}
	meta := &tablestore.TableMeta{TableName: name}
	meta.AddPrimaryKeyColumn("k", tablestore.PrimaryKeyType_STRING)
	req := &tablestore.CreateTableRequest{
		TableMeta:          meta,
		TableOption:        &tablestore.TableOption{TimeToAlive: -1, MaxVersion: 1},
		ReservedThroughput: &tablestore.ReservedThroughput{},
		StreamSpec:         &tablestore.StreamSpecification{EnableStream: true, ExpirationTime: retention},
	}
	err := k.retry(ctx, func() error {
		return k.table.Call(ctx, "CreateTable", func(c *tablestore.TableStoreClient) error {
			_, err := c.CreateTable(req)
			return err
		})
	})
	if err != nil && !service.HasCode(err, service.CodeObjectAlreadyExist) { // an answer was lost
		return fmt.Errorf("creating the table %s: %w", name, err)
	}
	return nil
}

// fill writes the rows of the common table.
func (k *Kit) fill(ctx context.Context) error {
	for i := range baseRows {
		if err := k.put(ctx, k.name(""), fmt.Sprintf("base-%02d", i), 0); err != nil {
			return err
		}
	}
	return nil
}

// put writes a row with the integer column "v".
func (k *Kit) put(ctx context.Context, table, key string, v int64) error {
	return k.putColumn(ctx, table, key, "v", v)
}

// putColumn writes a row with one column. A table that was just created is not ready for
// some seconds.
func (k *Kit) putColumn(ctx context.Context, table, key, column string, value any) error {
	change := &tablestore.PutRowChange{TableName: table, PrimaryKey: primaryKey(key)}
	change.AddColumn(column, value)
	change.SetCondition(tablestore.RowExistenceExpectation_IGNORE)
	err := k.retry(ctx, func() error {
		return k.table.Call(ctx, "PutRow", func(c *tablestore.TableStoreClient) error {
			resp, err := c.PutRow(&tablestore.PutRowRequest{PutRowChange: change})
			if err == nil && resp.ConsumedCapacityUnit != nil {
				k.meter.consumed(resp.ConsumedCapacityUnit.Read, resp.ConsumedCapacityUnit.Write)
			}
			return err
		})
	})
	if err != nil {
		return fmt.Errorf("writing row %s of %s: %w", key, table, err)
	}
	return nil
}

// retry repeats what may succeed later, for as long as the run is patient.
func (k *Kit) retry(ctx context.Context, f func() error) error {
	limit := time.Now().Add(k.cfg.Patience)
	for wait := 100 * time.Millisecond; ; wait = min(2*wait, 5*time.Second) {
		err := f()
		if err == nil || !service.IsTransient(err) || time.Now().After(limit) {
			return err
		}
		if stop := pause(ctx, wait); stop != nil {
			return errors.Join(err, stop)
		}
	}
}

// Clean removes what an earlier run has made: the tunnels of the tables that it lists, and
// the tables. cfg must be of the list's endpoint and instance.
func Clean(ctx context.Context, cfg Config, made *Made) error {
	if cfg.Endpoint != made.Endpoint() || cfg.Instance != made.Instance() {
		return fmt.Errorf("%s lists tables of the instance %q at %s, not of %q at %s", made.Path(), made.Instance(), made.Endpoint(), cfg.Instance, cfg.Endpoint)
	}
	k, err := New(cfg)
	if err != nil {
		return err
	}
	defer k.Close()
	return k.clean(ctx, made)
}

// clean removes the listed tables with their tunnels. What could not be removed stays on
// the list.
func (k *Kit) clean(ctx context.Context, made *Made) error {
	var errs []error
	for _, table := range made.Tables() {
		err := k.drop(ctx, table)
		if err == nil {
			err = made.removed(table)
		}
		if err != nil {
			errs = append(errs, fmt.Errorf("%w; run ots verify --clean later, which reads %s", err, made.Path()))
		}
	}
	return errors.Join(errs...)
}

// drop deletes a table and its tunnels. Without a table there is nothing to do.
func (k *Kit) drop(ctx context.Context, table string) error {
	var list protocol.ListTunnelResponse
	err := k.wire.call(ctx, "list", &protocol.ListTunnelRequest{TableName: &table}, &list, variation{})
	if err != nil && classOf(err) != service.Gone {
		return fmt.Errorf("listing the tunnels of %s: %w", table, err)
	}
	for _, t := range list.Tunnels {
		if err := k.deleteTunnel(ctx, table, t.GetTunnelName()); err != nil {
			return err
		}
	}
	err = k.retry(ctx, func() error {
		return k.table.Call(ctx, "DeleteTable", func(c *tablestore.TableStoreClient) error {
			_, err := c.DeleteTable(&tablestore.DeleteTableRequest{TableName: table})
			return err
		})
	})
	if err != nil && !service.HasCode(err, service.CodeObjectNotExist) {
		return fmt.Errorf("deleting the table %s: %w", table, err)
	}
	return nil
}

// deleteTunnel deletes a tunnel, unless it is gone already.
func (k *Kit) deleteTunnel(ctx context.Context, table, name string) error {
	err := k.wire.call(ctx, "delete", &protocol.DeleteTunnelRequest{TableName: &table, TunnelName: &name}, nil, variation{})
	if err != nil && classOf(err) != service.Gone {
		return fmt.Errorf("deleting the tunnel %s of %s: %w", name, table, err)
	}
	return nil
}
