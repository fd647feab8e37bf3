package verify

import (
	"context"
	"fmt"
	"slices"
	"strings"

	"github.com/aliyun/aliyun-tablestore-go-sdk/tablestore"
	"github.com/aliyun/aliyun-tablestore-go-sdk/tunnel/protocol"

	"github.com/watermill-ots/watermill-ots/internal/plainbuffer"
	"github.com/watermill-ots/watermill-ots/internal/service"
)

// image describes a record as rowImages compares it: its type, and its cells by name.
func image(r *protocol.Record, row plainbuffer.Row) string {
	var cells []string
	for _, c := range row.Cells {
		switch {
		case c.Op == plainbuffer.DeleteAllVersion || c.Op == plainbuffer.DeleteOneVersion:
			cells = append(cells, c.Name+" deleted")
		case c.Value.Kind() == plainbuffer.Integer:
			cells = append(cells, fmt.Sprintf("%s=%d", c.Name, c.Value.Integer()))
		default:
			cells = append(cells, fmt.Sprintf("%s=%s", c.Name, c.Value.Str()))
		}
	}
	slices.Sort(cells)
	sequence := "with a sequence"
	if !row.HasSequence {
		sequence = "without a sequence"
	}
	return strings.TrimSpace(fmt.Sprintf("%s %s %s", r.GetActionType(), sequence, strings.Join(cells, " ")))
}

func rowImages(p *probe) error {
	table := p.kit.name("images")
	if err := p.kit.createTable(p.ctx, table); err != nil {
		return err
	}
	_, id, err := p.createTunnel(table, protocol.TunnelType_BaseAndStream) // before the table has a row
	if err != nil {
		return err
	}
	if err := p.kit.changeImages(p.ctx, table, p.key(0)); err != nil {
		return err
	}
	_, base, err := p.createTunnel(table, protocol.TunnelType_BaseData) // when it has one
	if err != nil {
		return err
	}
	scanner, err := p.connect(base, "ots-verify")
	if err != nil {
		return err
	}
	rows, err := scanner.firstImages(true, 1)
	if err != nil {
		return err
	}
	if err := p.kit.deleteRow(p.ctx, table, p.key(0)); err != nil {
		return err
	}
	c, err := p.connect(id, "ots-verify")
	if err != nil {
		return err
	}
	if err := c.finishBase(); err != nil {
		return err
	}
	changes, err := c.firstImages(false, 3)
	if err != nil {
		return err
	}
	got := append(rows, changes...)
	want := []string{
		"PUT_ROW without a sequence a=1 n=7",
		"PUT_ROW with a sequence a=1 b=2 n=5",
		"UPDATE_ROW with a sequence b deleted n=7",
		"DELETE_ROW with a sequence",
	}
	if !slices.Equal(got, want) {
		return refuted("the records are %q, and not %q.", got, want)
	}
	return nil
}

// firstImages waits for a channel and returns the first n records from its checkpoint.
func (c *client) firstImages(base bool, n int) (images []string, err error) {
	channel, err := c.awaitChannel(base)
	if err != nil {
		return nil, err
	}
	token, _, err := c.stored(channel)
	if err != nil {
		return nil, err
	}
	for waited := 0; len(images) < n; waited++ {
		pg, err := c.read(channel, token)
		if err != nil {
			return images, err
		}
		rows, err := decode(pg.records)
		if err != nil {
			return images, err
		}
		for i, row := range rows {
			images = append(images, image(pg.records[i], row))
		}
		token = pg.next
		if len(rows) == 0 && waited > 100 {
			return images, fmt.Errorf("%d of %d records were read", len(images), n)
		}
		if len(rows) == 0 {
			if err := pause(c.ctx, c.kit.pace()); err != nil {
				return images, err
			}
			if err := c.stay(); err != nil {
				return images, err
			}
		}
	}
	return images, nil
}

// unknownChannelIsTold asks for a channel that the tunnel does not have.
func unknownChannelIsTold(p *probe) error {
	c, _, _, _, err := p.streaming(p.kit.name(""))
	if err != nil {
		return err
	}
	_, _, err = c.stored("ots-verify-no-such-channel")
	switch e := answerOf(err); {
	case err == nil:
		return refuted("the unknown channel has a checkpoint.")
	case e == nil:
		return err
	case e.Code != service.CodeParameterInvalid:
		return refuted("%v", err)
	}
	return nil
}

func terminatedNeedsTheEnd(p *probe) error {
	c, channel, _, _, err := p.streaming(p.kit.name(""))
	if err != nil {
		return err
	}
	if err := c.heartbeat(entry(channel, protocol.ChannelStatus_TERMINATED, c.held[channel].GetVersion()+1)); err != nil {
		return err
	}
	again, err := c.until(func() bool {
		return c.held[channel] != nil && c.held[channel].GetStatus() == protocol.ChannelStatus_OPEN
	})
	if err == nil && !again {
		return refuted("the channel, of which nothing was read, is not handed out again within %v.", p.kit.cfg.Patience)
	}
	return err
}

// changeImages puts a row, and updates it: with an increment and the deletion of a column.
func (k *Kit) changeImages(ctx context.Context, table, key string) error {
	put := &tablestore.PutRowChange{TableName: table, PrimaryKey: primaryKey(key)}
	put.AddColumn("a", int64(1))
	put.AddColumn("b", int64(2))
	put.AddColumn("n", int64(5))
	put.SetCondition(tablestore.RowExistenceExpectation_IGNORE)
	update := &tablestore.UpdateRowChange{TableName: table, PrimaryKey: primaryKey(key)}
	update.DeleteColumn("b")
	update.IncrementColumn("n", 2)
	update.SetCondition(tablestore.RowExistenceExpectation_IGNORE)
	err := k.retry(ctx, func() error {
		return k.table.Call(ctx, "PutRow", func(c *tablestore.TableStoreClient) error {
			_, err := c.PutRow(&tablestore.PutRowRequest{PutRowChange: put})
			return err
		})
	})
	if err != nil {
		return fmt.Errorf("writing row %s of %s: %w", key, table, err)
	}
	err = k.table.Call(ctx, "UpdateRow", func(c *tablestore.TableStoreClient) error {
		_, err := c.UpdateRow(&tablestore.UpdateRowRequest{UpdateRowChange: update})
		return err
	})
	if err != nil { // not repeated: an increment that had its effect would count twice
		return fmt.Errorf("updating row %s of %s: %w", key, table, err)
	}
	return nil
}

// deleteRow deletes a row.
func (k *Kit) deleteRow(ctx context.Context, table, key string) error {
	change := &tablestore.DeleteRowChange{TableName: table, PrimaryKey: primaryKey(key)}
	change.SetCondition(tablestore.RowExistenceExpectation_IGNORE)
	err := k.table.Call(ctx, "DeleteRow", func(c *tablestore.TableStoreClient) error {
		_, err := c.DeleteRow(&tablestore.DeleteRowRequest{DeleteRowChange: change})
		return err
	})
	if err != nil {
		return fmt.Errorf("deleting row %s of %s: %w", key, table, err)
	}
	return nil
}

func primaryKey(key string) *tablestore.PrimaryKey {
	pk := new(tablestore.PrimaryKey)
	pk.AddPrimaryKeyColumn("k", key)
	return pk
}
