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

// cellsApplyInOrder writes two columns and removes one of them in the same update, before
// and after: the record has the cells in the request's order, and the row is what they leave.
func cellsApplyInOrder(p *probe) error {
	table := p.kit.name("cells")
	if err := p.kit.createTable(p.ctx, table); err != nil {
		return err
	}
	_, id, err := p.createTunnel(table, protocol.TunnelType_Stream)
	if err != nil {
		return err
	}
	change := &tablestore.UpdateRowChange{TableName: table, PrimaryKey: primaryKey(p.key(0))}
	change.PutColumn("first", int64(1))
	change.DeleteColumn("first")
	change.DeleteColumn("last")
	change.PutColumn("last", int64(2))
	change.SetCondition(tablestore.RowExistenceExpectation_IGNORE)
	if err := p.kit.updateRow(p.ctx, change); err != nil {
		return err
	}
	left, err := p.kit.getRow(p.ctx, table, p.key(0))
	if err != nil {
		return err
	}
	if want := []string{"last=2"}; !slices.Equal(left, want) {
		return refuted("the row holds %q, and not %q.", left, want)
	}
	c, err := p.connect(id, "ots-verify")
	if err != nil {
		return err
	}
	channel, err := c.awaitChannel(false)
	if err != nil {
		return err
	}
	_, rows, err := c.firstRows(channel, 1)
	if err != nil {
		return err
	}
	var got []string
	for _, cell := range rows[0].Cells {
		got = append(got, fmt.Sprintf("%s %d", cell.Name, cell.Op))
	}
	var want []string
	for _, cell := range []plainbuffer.Cell{{Name: "first", Op: plainbuffer.Put}, {Name: "first", Op: plainbuffer.DeleteAllVersion}, {Name: "last", Op: plainbuffer.DeleteAllVersion}, {Name: "last", Op: plainbuffer.Put}} {
		want = append(want, fmt.Sprintf("%s %d", cell.Name, cell.Op))
	}
	if !slices.Equal(got, want) {
		return refuted("the record has the cells %q, and not %q (a name, and what was done).", got, want)
	}
	return nil
}

// firstImages waits for a channel and returns the first n records from its checkpoint.
func (c *client) firstImages(base bool, n int) (images []string, err error) {
	channel, err := c.awaitChannel(base)
	if err != nil {
		return nil, err
	}
	records, rows, err := c.firstRows(channel, n)
	for i, row := range rows {
		images = append(images, image(records[i], row))
	}
	return images, err
}

// firstRows reads the channel from its checkpoint until it has n records, or more.
func (c *client) firstRows(channel string, n int) (records []*protocol.Record, rows []plainbuffer.Row, err error) {
	token, _, err := c.stored(channel)
	if err != nil {
		return nil, nil, err
	}
	for waited := 0; len(rows) < n; waited++ {
		pg, err := c.read(channel, token)
		if err != nil {
			return records, rows, err
		}
		decoded, err := decode(pg.records)
		if err != nil {
			return records, rows, err
		}
		records, rows = append(records, pg.records...), append(rows, decoded...)
		token = pg.next
		if len(decoded) == 0 && waited > 100 {
			return records, rows, fmt.Errorf("%d of %d records were read", len(rows), n)
		}
		if len(decoded) == 0 {
			if err := pause(c.ctx, c.kit.pace()); err != nil {
				return records, rows, err
			}
			if err := c.stay(); err != nil {
				return records, rows, err
			}
		}
	}
	return records, rows, nil
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
	return k.updateRow(ctx, update) // not repeated: an increment that had its effect would count twice
}

// updateRow updates a row, once.
func (k *Kit) updateRow(ctx context.Context, change *tablestore.UpdateRowChange) error {
	err := k.table.Call(ctx, "UpdateRow", func(c *tablestore.TableStoreClient) error {
		_, err := c.UpdateRow(&tablestore.UpdateRowRequest{UpdateRowChange: change})
		return err
	})
	if err != nil {
		return fmt.Errorf("updating row %v of %s: %w", change.PrimaryKey.PrimaryKeys[0].Value, change.TableName, err)
	}
	return nil
}

// getRow returns the columns of a row, such as "a=1", in the order of their names.
func (k *Kit) getRow(ctx context.Context, table, key string) (columns []string, err error) {
	criteria := &tablestore.SingleRowQueryCriteria{TableName: table, PrimaryKey: primaryKey(key), MaxVersion: 1}
	err = k.table.Call(ctx, "GetRow", func(c *tablestore.TableStoreClient) error {
		resp, err := c.GetRow(&tablestore.GetRowRequest{SingleRowQueryCriteria: criteria})
		if err != nil {
			return err
		}
		for _, column := range resp.Columns {
			columns = append(columns, fmt.Sprintf("%s=%v", column.ColumnName, column.Value))
		}
		return nil
	})
	if err != nil {
		return nil, fmt.Errorf("reading row %s of %s: %w", key, table, err)
	}
	slices.Sort(columns)
	return columns, nil
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
