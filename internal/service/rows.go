package service

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"

	"github.com/aliyun/aliyun-tablestore-go-sdk/tablestore"
	"google.golang.org/protobuf/encoding/protowire"

	"github.com/watermill-ots/watermill-ots/internal/signing"
)

// Limits of BatchGetRow [docs/protocol.md, Limits and cost].
const (
	MaxBatchGetRows    = 100 // rows of a request
	MaxBatchGetColumns = 128 // columns to get
)

// RowRead is the answer about one row of a BatchGetRow.
type RowRead struct {
	Row   []byte // in PlainBuffer, a view of the answer; empty: there is no such row
	Units int    // read capacity units
	Err   error  // of this row alone; *ots.ServiceError
}

// BatchGetRow reads rows of one table in one call, at least one and at most MaxBatchGetRows different ones.
// Keys are in PlainBuffer. It returns the newest version of each column: of columns, or of all
// if that is empty. A row that has none of them counts as missing, unless a primary key column is among them
// [docs/protocol.md, Table API]. The answers are in the order of the keys; single rows may fail.
func (c *TableClient) BatchGetRow(ctx context.Context, table string, keys [][]byte, columns []string) ([]RowRead, error) {
	const op = "BatchGetRow"
	// The SDK would build each key and copy each value of the answer into an interface, one by
	// one. So it makes a request for a row that is none, which is replaced, and gets an empty answer.
	raw := &rawExchange{client: c, body: batchGetRow(table, keys, columns)}
	through := *c
	through.Transport = raw
	err := through.Call(ctx, op, func(sdk *tablestore.TableStoreClient) error {
		_, err := sdk.BatchGetRow(&tablestore.BatchGetRowRequest{MultiRowQueryCriteria: []*tablestore.MultiRowQueryCriteria{{TableName: table, MaxVersion: 1}}})
		return err
	})
	if err != nil {
		return nil, err
	}
	rows, err := batchedRows(op, raw.answer, len(keys))
	if err != nil {
		return nil, fmt.Errorf("%s: malformed answer: %w", op, err)
	}
	return rows, nil
}

// batchGetRow is a BatchGetRowRequest for one table.
func batchGetRow(table string, keys [][]byte, columns []string) []byte {
	size := 64 + len(table)
	for _, key := range keys {
		size += len(key) + 4
	}
	t := make([]byte, 0, size)
	t = protowire.AppendTag(t, 1, protowire.BytesType) // table_name
	t = protowire.AppendString(t, table)
	for _, key := range keys {
		t = protowire.AppendTag(t, 2, protowire.BytesType) // primary_key
		t = protowire.AppendBytes(t, key)
	}
	for _, name := range columns {
		t = protowire.AppendTag(t, 4, protowire.BytesType) // columns_to_get
		t = protowire.AppendString(t, name)
	}
	t = protowire.AppendTag(t, 6, protowire.VarintType) // max_versions
	t = protowire.AppendVarint(t, 1)
	b := protowire.AppendTag(make([]byte, 0, len(t)+8), 1, protowire.BytesType) // tables
	return protowire.AppendBytes(b, t)
}

// batchedRows parses a BatchGetRowResponse about one table.
func batchedRows(op string, body []byte, want int) ([]RowRead, error) {
	rows := make([]RowRead, 0, want)
	err := fields(body, func(num protowire.Number, _ uint64, table []byte) error {
		if num != 1 { // tables
			return nil
		}
		return fields(table, func(num protowire.Number, _ uint64, row []byte) error {
			if num != 2 { // rows
				return nil
			}
			r, err := batchedRow(op, row)
			rows = append(rows, r)
			return err
		})
	})
	if err == nil && len(rows) != want {
		err = fmt.Errorf("it has %d rows instead of %d", len(rows), want)
	}
	return rows, err
}

// batchedRow parses a RowInBatchGetRowResponse.
func batchedRow(op string, b []byte) (r RowRead, err error) {
	ok := false
	var code, message string
	err = fields(b, func(num protowire.Number, n uint64, b []byte) error {
		switch num {
		case 1: // is_ok
			ok = n != 0
		case 2: // error
			return fields(b, func(num protowire.Number, _ uint64, b []byte) error {
				switch num {
				case 1:
					code = string(b)
				case 2:
					message = string(b)
				}
				return nil
			})
		case 3: // consumed
			return fields(b, func(num protowire.Number, _ uint64, b []byte) error {
				if num != 1 { // capacity_unit
					return nil
				}
				return fields(b, func(num protowire.Number, n uint64, _ []byte) error {
					if num == 1 { // read
						r.Units = int(n)
					}
					return nil
				})
			})
		case 4: // row
			r.Row = b
		}
		return nil
	})
	if err == nil && !ok {
		r = RowRead{Err: TableError(op, 0, code, message, "")}
	}
	return r, err
}

// fields calls f with each field of a message: the number of a varint, the bytes of others.
func fields(b []byte, f func(num protowire.Number, n uint64, b []byte) error) error {
	for len(b) > 0 {
		num, typ, size := protowire.ConsumeTag(b)
		if size < 0 {
			return protowire.ParseError(size)
		}
		b = b[size:]
		var n uint64
		var value []byte
		switch typ {
		case protowire.VarintType:
			n, size = protowire.ConsumeVarint(b)
		case protowire.BytesType:
			value, size = protowire.ConsumeBytes(b)
		default:
			size = protowire.ConsumeFieldValue(num, typ, b)
		}
		if size < 0 {
			return protowire.ParseError(size)
		}
		if err := f(num, n, value); err != nil {
			return err
		}
		b = b[size:]
	}
	return nil
}

// rawExchange is the RoundTripper of one call. It sends body in the place of the SDK's, takes
// the answer and gives the SDK an empty one.
type rawExchange struct {
	client *TableClient
	body   []byte
	answer []byte
}

// RoundTrip implements http.RoundTripper.
func (x *rawExchange) RoundTrip(req *http.Request) (*http.Response, error) {
	signing.Body(req, x.body)
	signing.Request(req, x.client.Credentials.SDK(x.client.Region).GetCredentials())
	resp, err := x.client.Transport.RoundTrip(req)
	if err != nil || resp.StatusCode < 200 || resp.StatusCode > 299 {
		return resp, err
	}
	defer resp.Body.Close()
	if x.answer, err = readAnswer(resp); err != nil {
		return nil, fmt.Errorf("reading the answer: %w", err)
	}
	resp.Body = io.NopCloser(bytes.NewReader(nil))
	return resp, nil
}

// readAnswer reads the body of an answer, of which MaxAnswer bytes are taken.
func readAnswer(resp *http.Response) ([]byte, error) {
	if n := resp.ContentLength; n >= 0 && n <= MaxAnswer {
		body := make([]byte, n)
		_, err := io.ReadFull(resp.Body, body)
		return body, err
	}
	body, err := io.ReadAll(io.LimitReader(resp.Body, MaxAnswer+1))
	if err == nil && len(body) > MaxAnswer {
		err = errors.New("it is larger than what is taken of one")
	}
	return body, err
}
