package letters

import (
	"context"
	"errors"
	"fmt"
	"strings"

	"github.com/ThreeDotsLabs/watermill"
	"github.com/aliyun/aliyun-tablestore-go-sdk/tablestore"

	"github.com/watermill-ots/watermill-ots/internal/service"
)

// ErrTable is wrapped by errors about an existing table that cannot hold letters.
var ErrTable = errors.New("the table cannot hold dead letters")

// Reasons to warn about a table.
var (
	errLettersExpire = errors.New("the table has a time to live: letters that are older vanish, replayed or not; set it to -1")
	errNoUpdates     = errors.New("the table does not allow updates: Replay cannot claim letters in it; allow them")
)

// letterKey is the primary key of a dead-letter table.
var letterKey = []string{columnPipeline, columnSequence, columnID}

// Prepare creates the table if it is missing. It returns an error that wraps ErrTable if
// the table exists with another primary key.
func (t *Table) Prepare(ctx context.Context) error {
	err := t.verify(ctx)
	if service.HasCode(err, service.CodeObjectNotExist) {
		err = t.client.call(ctx, "CreateTable", t.create)
		if service.HasCode(err, service.CodeObjectAlreadyExist) { // another process created it meanwhile, perhaps with another key
			err = t.verify(ctx)
		}
	}
	if err != nil {
		return fmt.Errorf("preparing the dead-letter table %s: %w", t.name, err)
	}
	return nil
}

func (t *Table) create(c *tablestore.TableStoreClient) error {
	meta := &tablestore.TableMeta{TableName: t.name}
	for _, name := range letterKey {
		meta.AddPrimaryKeyColumn(name, tablestore.PrimaryKeyType_STRING)
	}
	_, err := c.CreateTable(&tablestore.CreateTableRequest{
		TableMeta:          meta,
		TableOption:        &tablestore.TableOption{TimeToAlive: -1, MaxVersion: 1},
		ReservedThroughput: &tablestore.ReservedThroughput{},
	})
	return err
}

// verify checks the primary key of the existing table, and logs settings that do not suit
// letters.
func (t *Table) verify(ctx context.Context) error {
	var resp *tablestore.DescribeTableResponse
	err := t.client.call(ctx, "DescribeTable", func(c *tablestore.TableStoreClient) (err error) {
		resp, err = c.DescribeTable(&tablestore.DescribeTableRequest{TableName: t.name})
		return err
	})
	if err != nil {
		return err
	}
	wanted := make([]string, len(letterKey))
	for i, name := range letterKey {
		wanted[i] = name + " STRING"
	}
	if has, want := strings.Join(keySchema(resp.TableMeta), ", "), strings.Join(wanted, ", "); has != want {
		return fmt.Errorf("%w: its primary key is (%s), that of a dead-letter table is (%s); name another table in dead_letter.table, which is created if it is missing", ErrTable, has, want)
	}
	if o := resp.TableOption; o != nil {
		for warning, is := range map[error]bool{errLettersExpire: o.TimeToAlive > 0, errNoUpdates: o.AllowUpdate != nil && !*o.AllowUpdate} {
			if is {
				t.logger.Error("The dead-letter table has a setting that does not suit it", warning, watermill.LogFields{"table": t.name})
			}
		}
	}
	return nil
}

// keySchema returns the columns of a table's primary key with their types.
func keySchema(meta *tablestore.TableMeta) []string {
	var columns []string
	for _, c := range meta.SchemaEntry {
		kind := "of unknown type"
		if c.Type != nil {
			kind = map[tablestore.PrimaryKeyType]string{
				tablestore.PrimaryKeyType_INTEGER: "INTEGER", tablestore.PrimaryKeyType_STRING: "STRING", tablestore.PrimaryKeyType_BINARY: "BINARY",
			}[*c.Type]
		}
		if c.Option != nil && *c.Option == tablestore.AUTO_INCREMENT {
			kind += " AUTO_INCREMENT"
		}
		columns = append(columns, *c.Name+" "+kind)
	}
	return columns
}
