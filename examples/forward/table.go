package forward

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/aliyun/aliyun-tablestore-go-sdk/tablestore"

	"github.com/watermill-ots/watermill-ots/emulator"
	"github.com/watermill-ots/watermill-ots/ots"
	"github.com/watermill-ots/watermill-ots/subscriber"
)

const (
	instance  = "my-instance"
	keyID     = "example-id"
	keySecret = "example-secret"

	tableName = "orders"
	topic     = tableName + "/forward" // table and tunnel
)

// change is one change of an order. Step counts the changes of an order,
// starting at 1.
type change struct {
	Type   ots.RecordType
	Order  int64
	Step   int64
	Status string
}

// changeAt returns a step of an order's life: it is placed, updated, and every
// third order is deleted with its last step.
func changeAt(order, step, steps int) change {
	switch {
	case step == 1:
		return change{ots.Put, int64(order), 1, "placed"}
	case step == steps && order%3 == 0:
		return change{Type: ots.Delete, Order: int64(order)}
	}
	return change{ots.Update, int64(order), int64(step), fmt.Sprintf("status %d", step)}
}

// table is the table of orders in a Tablestore inside this process. It is for
// one goroutine.
type table struct {
	emulator *emulator.Emulator
	client   *tablestore.TableStoreClient
}

// startTable creates the table with a partition for each half of the orders, so
// that its tunnel has two channels.
func startTable(orders int) (*table, error) {
	em, err := emulator.Start(emulator.Options{Instance: instance, AccessKeyID: keyID, AccessKeySecret: keySecret})
	if err != nil {
		return nil, err
	}
	t := &table{emulator: em, client: tablestore.NewClient(em.Endpoint(), instance, keyID, keySecret)}
	meta := &tablestore.TableMeta{TableName: tableName}
	meta.AddPrimaryKeyColumn("order", tablestore.PrimaryKeyType_INTEGER)
	_, err = t.client.CreateTable(&tablestore.CreateTableRequest{
		TableMeta:          meta,
		TableOption:        &tablestore.TableOption{TimeToAlive: -1, MaxVersion: 1},
		ReservedThroughput: &tablestore.ReservedThroughput{},
		StreamSpec:         &tablestore.StreamSpecification{EnableStream: true, ExpirationTime: 24},
	})
	if err != nil {
		return nil, errors.Join(fmt.Errorf("creating table %s: %w", tableName, err), em.Close())
	}
	if err := em.SplitAt(tableName, int64(orders/2)); err != nil {
		return nil, errors.Join(err, em.Close())
	}
	return t, nil
}

func (t *table) config() subscriber.Config {
	return subscriber.Config{
		Endpoint: t.emulator.Endpoint(), Instance: instance, AccessKeyID: keyID, AccessKeySecret: keySecret,
		Tunnel:          subscriber.TunnelSpec{Type: subscriber.Stream},
		MaxPollInterval: 100 * time.Millisecond,
	}
}

// write takes all orders through their lives, side by side. It calls wrote for
// each change, and returns the cause if ctx ends. Half way it splits a
// partition: one of the channels ends, and two continue.
func (t *table) write(ctx context.Context, orders, steps int, wrote func(change)) error {
	for step := 1; step <= steps; step++ {
		if step == steps/2+1 {
			if err := t.emulator.Split(tableName); err != nil {
				return err
			}
		}
		for order := range orders {
			if ctx.Err() != nil {
				return context.Cause(ctx)
			}
			c := changeAt(order, step, steps)
			if err := t.apply(c); err != nil {
				return fmt.Errorf("writing order %d: %w", order, err)
			}
			wrote(c)
		}
	}
	return nil
}

func (t *table) apply(c change) error {
	key := new(tablestore.PrimaryKey)
	key.AddPrimaryKeyColumn("order", c.Order)
	var err error
	switch c.Type {
	case ots.Put:
		put := &tablestore.PutRowChange{TableName: tableName, PrimaryKey: key}
		put.AddColumn("step", c.Step)
		put.AddColumn("status", c.Status)
		put.SetCondition(tablestore.RowExistenceExpectation_IGNORE)
		_, err = t.client.PutRow(&tablestore.PutRowRequest{PutRowChange: put})
	case ots.Update:
		update := &tablestore.UpdateRowChange{TableName: tableName, PrimaryKey: key}
		update.PutColumn("step", c.Step)
		update.PutColumn("status", c.Status)
		update.SetCondition(tablestore.RowExistenceExpectation_IGNORE)
		_, err = t.client.UpdateRow(&tablestore.UpdateRowRequest{UpdateRowChange: update})
	case ots.Delete:
		del := &tablestore.DeleteRowChange{TableName: tableName, PrimaryKey: key}
		del.SetCondition(tablestore.RowExistenceExpectation_IGNORE)
		_, err = t.client.DeleteRow(&tablestore.DeleteRowRequest{DeleteRowChange: del})
	}
	return err
}

// Close stops the Tablestore.
func (t *table) Close() error { return t.emulator.Close() }
