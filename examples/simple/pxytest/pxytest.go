// Package pxytest is the source of the examples: a Tablestore inside the
// process with the table pxy_test, and a writer to that table.
package pxytest

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"time"

	"github.com/ThreeDotsLabs/watermill/message"
	"github.com/aliyun/aliyun-tablestore-go-sdk/tablestore"

	"github.com/watermill-ots/watermill-ots/emulator"
	"github.com/watermill-ots/watermill-ots/ots"
)

// TableName is the name of the table that Start creates.
const TableName = "pxy_test"

// ids are below idLimit. The table has a partition for each half of them, so
// its tunnel has two channels.
const idLimit = 1_000_000

// valueStep has no divisor in common with valueLimit.
const valueLimit, valueStep = 1000, 387

// Row is one change of the table: what was written to a row. The pair of ID and
// Change is unique.
type Row struct {
	ID     int64 // the primary key
	Value  int64 // decides which batcher a change goes to
	Change int64 // counts the changes of the row, starting at 1
}

// RowOf reads the row from a message of the tunnel.
func RowOf(msg *message.Message) (Row, error) {
	r, ok := ots.RecordFromMessage(msg)
	if !ok {
		return Row{}, errors.New("the message has no record")
	}
	id, hasID := r.Column("id")
	value, hasValue := r.Column("value")
	change, hasChange := r.Column("change")
	if !hasID || !hasValue || !hasChange {
		return Row{}, fmt.Errorf("record %s lacks one of the columns id, value and change", msg.UUID)
	}
	return Row{ID: id.Int64(), Value: value.Int64(), Change: change.Int64()}, nil
}

// Table is pxy_test in its own Tablestore. It is for one goroutine.
type Table struct {
	emulator *emulator.Emulator
	client   *tablestore.TableStoreClient
	written  []Row
	first    int64 // value
}

// Start starts the Tablestore, creates the table, and sets the environment
// variables OTS_ENDPOINT, OTS_ID and OTS_SECRET, which the configuration file
// uses.
func Start() (*Table, error) {
	const instance, id, secret = "my-instance", "example-id", "example-secret"
	em, err := emulator.Start(emulator.Options{Instance: instance, AccessKeyID: id, AccessKeySecret: secret})
	if err != nil {
		return nil, err
	}
	t := &Table{emulator: em, client: tablestore.NewClient(em.Endpoint(), instance, id, secret), first: rand.Int64N(valueLimit)}
	if err := errors.Join(
		t.create(),
		os.Setenv("OTS_ENDPOINT", em.Endpoint()), os.Setenv("OTS_ID", id), os.Setenv("OTS_SECRET", secret),
	); err != nil {
		return nil, errors.Join(err, em.Close())
	}
	return t, nil
}

func (t *Table) create() error {
	meta := &tablestore.TableMeta{TableName: TableName}
	meta.AddPrimaryKeyColumn("id", tablestore.PrimaryKeyType_INTEGER)
	_, err := t.client.CreateTable(&tablestore.CreateTableRequest{
		TableMeta:          meta,
		TableOption:        &tablestore.TableOption{TimeToAlive: -1, MaxVersion: 1},
		ReservedThroughput: &tablestore.ReservedThroughput{},
		StreamSpec:         &tablestore.StreamSpecification{EnableStream: true, ExpirationTime: 24},
	})
	if err != nil {
		return fmt.Errorf("creating table %s: %w", TableName, err)
	}
	return t.emulator.SplitAt(TableName, idLimit/2)
}

// Endpoint returns the URL of the Tablestore.
func (t *Table) Endpoint() string { return t.emulator.Endpoint() }

// Split divides a partition of the table, as the service does with a growing
// one: its channel ends, and two others continue.
func (t *Table) Split() error { return t.emulator.Split(TableName) }

// Written returns all changes so far, in order.
func (t *Table) Written() []Row { return t.written }

// Write writes for a while, or until ctx ends: new rows, and every fifth time
// an existing one. The values go through all numbers below 1000 equally often,
// so a few hundred changes include some of every kind.
func (t *Table) Write(ctx context.Context, duration time.Duration) error {
	every := time.NewTicker(4 * time.Millisecond)
	defer every.Stop()
	end := time.NewTimer(duration)
	defer end.Stop()
	changes := make(map[int64]int64)
	for _, row := range t.written {
		changes[row.ID] = row.Change
	}
	for {
		select {
		case <-every.C:
		case <-end.C:
			return nil
		case <-ctx.Done():
			return nil
		}
		n := len(t.written)
		row := Row{ID: rand.Int64N(idLimit), Value: (t.first + int64(n)*valueStep) % valueLimit}
		if n > 0 && n%5 == 0 {
			row.ID = t.written[rand.IntN(n)].ID
		}
		changes[row.ID]++
		row.Change = changes[row.ID]
		if err := t.put(row); err != nil {
			return fmt.Errorf("writing row %d: %w", row.ID, err)
		}
		t.written = append(t.written, row)
	}
}

func (t *Table) put(row Row) error {
	put := &tablestore.PutRowChange{TableName: TableName, PrimaryKey: new(tablestore.PrimaryKey)}
	put.PrimaryKey.AddPrimaryKeyColumn("id", row.ID)
	put.AddColumn("value", row.Value)
	put.AddColumn("change", row.Change)
	put.SetCondition(tablestore.RowExistenceExpectation_IGNORE)
	_, err := t.client.PutRow(&tablestore.PutRowRequest{PutRowChange: put})
	return err
}

// Close stops the Tablestore.
func (t *Table) Close() error { return t.emulator.Close() }
