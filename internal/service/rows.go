package service

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"net/http"

	"github.com/aliyun/aliyun-tablestore-go-sdk/tablestore"
	pb "github.com/aliyun/aliyun-tablestore-go-sdk/tablestore/otsprotocol"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/protoadapt"
)

// Limits of BatchGetRow [docs/protocol.md, Limits and cost].
const (
	MaxBatchGetRows    = 100 // rows of a request
	MaxBatchGetColumns = 128 // columns to get
)

// RowRead is the answer about one row of a BatchGetRow.
type RowRead struct {
	Row   []byte // in PlainBuffer; empty: there is no such row
	Units int    // read capacity units
	Err   error  // of this row alone; *ots.ServiceError
}

// BatchGetRow reads rows of one table in one call, at most MaxBatchGetRows different ones. It
// returns the newest version of each column: of columns, or of all if that is empty. A
// row that has none of them counts as missing, unless a primary key column is among them
// [docs/protocol.md, Table API]. The answers are in the order of the keys; single rows may fail.
func (c *TableClient) BatchGetRow(ctx context.Context, table string, keys []*tablestore.PrimaryKey, columns []string) ([]RowRead, error) {
	const op = "BatchGetRow"
	answer := &keepBody{}
	// The SDK builds and signs the request. It would copy each value of the answer into an
	// interface, so it gets an empty one.
	through := *c
	answer.base, through.Transport = c.Transport, answer
	err := through.Call(ctx, op, func(sdk *tablestore.TableStoreClient) error {
		answer.body = nil
		_, err := sdk.BatchGetRow(&tablestore.BatchGetRowRequest{MultiRowQueryCriteria: []*tablestore.MultiRowQueryCriteria{{
			TableName: table, PrimaryKey: keys, ColumnsToGet: columns, MaxVersion: 1,
		}}})
		return err
	})
	if err != nil {
		return nil, err
	}
	rows, err := rowsRead(op, answer.body, len(keys))
	if err != nil {
		return nil, fmt.Errorf("%s: malformed answer: %w", op, err)
	}
	return rows, nil
}

func rowsRead(op string, body []byte, want int) ([]RowRead, error) {
	var resp pb.BatchGetRowResponse
	if err := proto.Unmarshal(body, protoadapt.MessageV2Of(&resp)); err != nil {
		return nil, err
	}
	if len(resp.Tables) != 1 || len(resp.Tables[0].Rows) != want {
		return nil, fmt.Errorf("it does not have one table with %d rows", want)
	}
	rows := make([]RowRead, want)
	for i, r := range resp.Tables[0].Rows {
		if !r.GetIsOk() {
			rows[i].Err = TableError(op, 0, r.GetError().GetCode(), r.GetError().GetMessage(), "")
			continue
		}
		rows[i].Row, rows[i].Units = r.GetRow(), int(r.GetConsumed().GetCapacityUnit().GetRead())
	}
	return rows, nil
}

// keepBody takes the body of a successful answer and gives the SDK an empty one.
type keepBody struct {
	base http.RoundTripper
	body []byte
}

// RoundTrip implements http.RoundTripper.
func (k *keepBody) RoundTrip(req *http.Request) (*http.Response, error) {
	resp, err := k.base.RoundTrip(req)
	if err != nil || resp.StatusCode < 200 || resp.StatusCode > 299 {
		return resp, err
	}
	defer resp.Body.Close()
	if k.body, err = io.ReadAll(http.MaxBytesReader(nil, resp.Body, MaxAnswer)); err != nil {
		return nil, fmt.Errorf("reading the answer: %w", err)
	}
	resp.Body = io.NopCloser(bytes.NewReader(nil))
	return resp, nil
}
