package main

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"strings"
	"time"

	"github.com/ThreeDotsLabs/watermill/message"
	"github.com/aliyun/aliyun-tablestore-go-sdk/tablestore"

	"github.com/watermill-ots/watermill-ots/emulator"
	"github.com/watermill-ots/watermill-ots/ots"
)

// Names of the bank's table and tunnel.
const (
	instance, keyID, keySecret = "bank", "bank-id", "bank-secret"
	tableName, tunnelName      = "accounts", "ledger"
)

// accountCount is the number of rows in the table. They change repeatedly, so
// the order of a row's changes matters.
const accountCount = 100

func accountName(n int) string { return fmt.Sprintf("account-%02d", n) }

func accountNames() []string {
	names := make([]string, accountCount)
	for n := range names {
		names[n] = accountName(n)
	}
	return names
}

// change is one change of an account.
type change struct {
	account string
	amount  int64
	number  int64 // counts the account's changes, starting at 1
}

// changeOf reads the change from a message of the tunnel.
func changeOf(msg *message.Message) (change, error) {
	r, ok := ots.RecordFromMessage(msg)
	if !ok {
		return change{}, errors.New("the message has no record")
	}
	account, hasAccount := r.Column("account")
	amount, hasAmount := r.Column("amount")
	number, hasNumber := r.Column("changes")
	if !hasAccount || !hasAmount || !hasNumber {
		return change{}, fmt.Errorf("record %s lacks one of the columns account, amount and changes", msg.UUID)
	}
	return change{account.String(), amount.Int64(), number.Int64()}, nil
}

// balance is the result of an account's changes.
type balance struct{ total, changes int64 }

// bank is the source: a Tablestore inside the process, with a data directory,
// and the writer of its table. It is for one goroutine.
type bank struct {
	dir      string
	emulator *emulator.Emulator
	client   *tablestore.TableStoreClient
	accounts map[string]balance
}

func openBank() (*bank, error) {
	dir, err := os.MkdirTemp("", "exactly-once-")
	if err != nil {
		return nil, err
	}
	b := &bank{dir: dir, accounts: make(map[string]balance)}
	if err := b.start(""); err != nil {
		return nil, errors.Join(err, os.RemoveAll(dir))
	}
	b.client = tablestore.NewClient(b.emulator.Endpoint(), instance, keyID, keySecret)
	if err := b.createTable(); err != nil {
		return nil, errors.Join(err, b.close())
	}
	return b, nil
}

func (b *bank) start(addr string) (err error) {
	b.emulator, err = emulator.Start(emulator.Options{
		Addr: addr, DataDir: b.dir, Instance: instance, AccessKeyID: keyID, AccessKeySecret: keySecret,
	})
	return err
}

func (b *bank) close() error { return errors.Join(b.emulator.Close(), os.RemoveAll(b.dir)) }

func (b *bank) createTable() error {
	meta := &tablestore.TableMeta{TableName: tableName}
	meta.AddPrimaryKeyColumn("account", tablestore.PrimaryKeyType_STRING)
	_, err := b.client.CreateTable(&tablestore.CreateTableRequest{
		TableMeta:          meta,
		TableOption:        &tablestore.TableOption{TimeToAlive: -1, MaxVersion: 1},
		ReservedThroughput: &tablestore.ReservedThroughput{},
		StreamSpec:         &tablestore.StreamSpecification{EnableStream: true, ExpirationTime: 24},
	})
	if err != nil {
		return fmt.Errorf("creating table %s: %w", tableName, err)
	}
	return b.emulator.SplitAt(tableName, accountName(accountCount/2))
}

// restart stops Tablestore and restarts it at the same address with the same
// data directory.
func (b *bank) restart() error {
	addr := strings.TrimPrefix(b.emulator.Endpoint(), "http://")
	if err := b.emulator.Close(); err != nil {
		return err
	}
	return b.start(addr)
}

// The number of changes written before something happens to the table.
const (
	splitAfter   = 200
	restartAfter = 500
)

// write changes accounts until ctx ends. It calls event for other events.
func (b *bank) write(ctx context.Context, event func(format string, args ...any)) error {
	every := time.NewTicker(2 * time.Millisecond)
	defer every.Stop()
	for n := 1; ; n++ {
		select {
		case <-every.C:
		case <-ctx.Done():
			return nil
		}
		if err := b.deposit(accountName(rand.IntN(accountCount)), rand.Int64N(10_000)-3_000); err != nil {
			return err
		}
		switch n {
		case splitAfter:
			if err := b.emulator.Split(tableName); err != nil {
				return err
			}
			event("a partition of the table is split: its channel ends, two others continue")
		case restartAfter:
			if err := b.restart(); err != nil {
				return err
			}
			event("Tablestore was stopped, and restarted with its data directory")
		}
	}
}

func (b *bank) deposit(account string, amount int64) error {
	now := b.accounts[account]
	now.total, now.changes = now.total+amount, now.changes+1
	put := &tablestore.PutRowChange{TableName: tableName, PrimaryKey: new(tablestore.PrimaryKey)}
	put.PrimaryKey.AddPrimaryKeyColumn("account", account)
	put.AddColumn("amount", amount)
	put.AddColumn("total", now.total)
	put.AddColumn("changes", now.changes)
	put.SetCondition(tablestore.RowExistenceExpectation_IGNORE)
	if _, err := b.client.PutRow(&tablestore.PutRowRequest{PutRowChange: put}); err != nil {
		return fmt.Errorf("changing %s: %w", account, err)
	}
	b.accounts[account] = now
	return nil
}

// read reads the contents of the table.
func (b *bank) read() (map[string]balance, error) {
	found := make(map[string]balance)
	start, end := new(tablestore.PrimaryKey), new(tablestore.PrimaryKey)
	start.AddPrimaryKeyColumnWithMinValue("account")
	end.AddPrimaryKeyColumnWithMaxValue("account")
	for start != nil {
		rows, err := b.client.GetRange(&tablestore.GetRangeRequest{RangeRowQueryCriteria: &tablestore.RangeRowQueryCriteria{
			TableName: tableName, StartPrimaryKey: start, EndPrimaryKey: end,
			Direction: tablestore.FORWARD, MaxVersion: 1, Limit: 1000, ColumnsToGet: []string{"total", "changes"},
		}})
		if err != nil {
			return nil, fmt.Errorf("reading table %s: %w", tableName, err)
		}
		for _, row := range rows.Rows {
			account, _ := row.PrimaryKey.PrimaryKeys[0].Value.(string)
			var now balance
			for _, c := range row.Columns {
				n, _ := c.Value.(int64)
				if c.ColumnName == "total" {
					now.total = n
				} else {
					now.changes = n
				}
			}
			found[account] = now
		}
		start = rows.NextStartPrimaryKey
	}
	return found, nil
}
