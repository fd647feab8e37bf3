package emulator_test

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/aliyun/aliyun-tablestore-go-sdk/tablestore"
	pb "github.com/aliyun/aliyun-tablestore-go-sdk/tablestore/otsprotocol"

	"github.com/watermill-ots/watermill-ots/emulator"
	"github.com/watermill-ots/watermill-ots/internal/plainbuffer"
)

// Rules and texts of local transactions are those of
//
//	[page]   https://www.alibabacloud.com/help/en/tablestore/developer-reference/go-local-transactions
//	[errors] https://www.alibabacloud.com/help/en/tablestore/developer-reference/error-codes
//	[suite]  aliyun-tablestore-java-sdk, functiontest/LocalTxnTest.java
//	[python] aliyun-tablestore-python-sdk, tests/transaction_test.py

func withTransactions(r *tablestore.CreateTableRequest) { r.EnableLocalTxn = ptr(true) }

// begin starts a transaction for a partition key of the table "orders".
func (s *sdk) begin(pk string) (*string, error) {
	k := &tablestore.PrimaryKey{}
	k.AddPrimaryKeyColumn("pk", pk)
	resp, err := s.StartLocalTransaction(&tablestore.StartLocalTransactionRequest{TableName: "orders", PrimaryKey: k})
	if err != nil {
		return nil, err
	}
	return resp.TransactionId, nil
}

func (s *sdk) mustBegin(pk string) *string {
	s.t.Helper()
	id, err := s.begin(pk)
	if err != nil || *id == "" {
		s.t.Fatalf("starting a transaction: %v, %v", id, err)
	}
	return id
}

// atOnce makes the client give up at the first conflict instead of retrying.
func (s *sdk) atOnce(e *emulator.Emulator) *sdk {
	transport := e.Transport()
	s.t.Cleanup(transport.CloseIdleConnections)
	cfg := tablestore.NewDefaultTableStoreConfig()
	cfg.Transport, cfg.RetryTimes = transport, 0
	s.TableStoreClient = tablestore.NewClientWithConfig(e.Endpoint(), "inst", "ak", "sk", "", cfg)
	return s
}

func (s *sdk) commit(id *string) error {
	_, err := s.CommitTransaction(&tablestore.CommitTransactionRequest{TransactionId: id})
	return err
}

func (s *sdk) abort(id *string) error {
	_, err := s.AbortTransaction(&tablestore.AbortTransactionRequest{TransactionId: id})
	return err
}

// putIn puts a row into the table "orders", within the transaction tx unless it
// is nil.
func (s *sdk) putIn(tx *string, pk string, id int64, columns ...any) error {
	c := putChange(pk, id, columns...)
	c.TransactionId = tx
	_, err := s.PutRow(&tablestore.PutRowRequest{PutRowChange: c})
	return err
}

func in(tx *string) func(*tablestore.SingleRowQueryCriteria) {
	return func(q *tablestore.SingleRowQueryCriteria) { q.TransactionId = tx }
}

// scan reads a partition key's rows as text, within a transaction unless tx is
// nil.
func (s *sdk) scan(tx *string, pk string, direction tablestore.Direction) (string, error) {
	q := &tablestore.RangeRowQueryCriteria{TableName: "orders", Direction: direction, MaxVersion: 1, Limit: 2, TransactionId: tx}
	q.StartPrimaryKey, q.EndPrimaryKey = key(pk, "min"), key(pk, "max")
	if direction == tablestore.BACKWARD {
		q.StartPrimaryKey, q.EndPrimaryKey = q.EndPrimaryKey, q.StartPrimaryKey
	}
	var rows []string
	for q.StartPrimaryKey != nil {
		r, err := s.GetRange(&tablestore.GetRangeRequest{RangeRowQueryCriteria: q})
		if err != nil {
			return "", err
		}
		for _, row := range r.Rows {
			rows = append(rows, fmt.Sprintf("%v[%s]", row.PrimaryKey.PrimaryKeys[1].Value, columnsText(row.Columns)))
		}
		q.StartPrimaryKey = r.NextStartPrimaryKey
	}
	return strings.Join(rows, " "), nil
}

func TestSDKTransactions(t *testing.T) {
	t.Run("see their own changes, and others see them once they are committed", func(t *testing.T) {
		e := start(t, keys)
		s := newSDK(t, e, withTransactions, withStream)
		s.put("a", 1, "v", "old")
		s.put("a", 2, "v", "old")
		tx := s.mustBegin("a")
		if err := s.putIn(tx, "a", 3, "v", "new"); err != nil {
			t.Fatal(err)
		}
		u := &tablestore.UpdateRowChange{PrimaryKey: key("a", int64(1)), TransactionId: tx}
		u.PutColumn("w", "new")
		if _, err := s.update(u); err != nil {
			t.Fatal(err)
		}
		d := &tablestore.DeleteRowChange{TableName: "orders", PrimaryKey: key("a", int64(2)), Condition: ignore(), TransactionId: tx}
		if _, err := s.DeleteRow(&tablestore.DeleteRowRequest{DeleteRowChange: d}); err != nil {
			t.Fatal(err)
		}
		expect(t, "row 1 in it", s.get("a", 1, in(tx)), "v=old w=new")
		expect(t, "row 2 in it", s.get("a", 2, in(tx)), "-")
		expect(t, "row 3 in it", s.get("a", 3, in(tx)), "v=new")
		scans := func(tx *string, up, down string) {
			t.Helper()
			for direction, want := range map[tablestore.Direction]string{tablestore.FORWARD: up, tablestore.BACKWARD: down} {
				got, err := s.scan(tx, "a", direction)
				if err != nil || got != want {
					t.Errorf("rows: %s, %v; want %s", got, err, want)
				}
			}
		}
		before, after := "1[v=old] 2[v=old]", "1[v=old w=new] 3[v=new]"
		scans(tx, after, "3[v=new] 1[v=old w=new]")
		scans(nil, before, "2[v=old] 1[v=old]")
		expect(t, "row 3 outside", s.get("a", 3), "-")
		if err := e.SplitAt("orders", "a"); err != nil { // the rows move to another partition
			t.Fatal(err)
		}
		if err := s.commit(tx); err != nil {
			t.Fatal(err)
		}
		scans(nil, after, "3[v=new] 1[v=old w=new]")
		var records []*tablestore.StreamRecord
		for _, sh := range s.describeStream().Shards[1:] {
			_, found := s.read(s.iterator(sh.SelfShard), 0)
			records = append(records, found...)
		}
		expect(t, "records", keysOf(records), "a3 a1 a2")
		for _, r := range records {
			expect(t, "time of "+r.String(), r.Info.Timestamp, records[0].Info.Timestamp)
		}
		expect(t, "a second commit", fmt.Sprint(sdkCode(s.commit(tx))), "OTSSessionNotExist")
	})
	t.Run("leave nothing behind when they are aborted", func(t *testing.T) {
		s := newSDK(t, start(t, keys), withTransactions, withStream)
		s.put("a", 1, "v", "old")
		tx := s.mustBegin("a")
		for id := range int64(3) {
			if err := s.putIn(tx, "a", id, "v", "new"); err != nil {
				t.Fatal(err)
			}
		}
		if err := s.abort(tx); err != nil {
			t.Fatal(err)
		}
		expect(t, "a second abort", sdkCode(s.abort(tx)), "OTSSessionNotExist")
		got, err := s.scan(nil, "a", tablestore.FORWARD)
		if err != nil || got != "1[v=old]" {
			t.Errorf("rows: %s, %v", got, err)
		}
		s.put("a", 2, "v", "free")
		_, records := s.read(s.iterator(s.describeStream().Shards[0].SelfShard), 0)
		expect(t, "records", keysOf(records), "a1 a2")
	})
	t.Run("check conditions and increments against what they wrote", func(t *testing.T) {
		s := newSDK(t, start(t, keys), withTransactions)
		s.put("a", 1, "n", int64(40))
		tx := s.mustBegin("a")
		increment := func() {
			t.Helper()
			u := &tablestore.UpdateRowChange{PrimaryKey: key("a", int64(1)), TransactionId: tx}
			u.IncrementColumn("n", 1)
			if _, err := s.update(u); err != nil {
				t.Fatal(err)
			}
		}
		increment()
		fresh := putChange("a", int64(2), "v", "x")
		fresh.TransactionId = tx
		fresh.SetCondition(tablestore.RowExistenceExpectation_EXPECT_NOT_EXIST)
		if _, err := s.PutRow(&tablestore.PutRowRequest{PutRowChange: fresh}); err != nil {
			t.Fatal(err)
		}
		_, err := s.PutRow(&tablestore.PutRowRequest{PutRowChange: fresh})
		expect(t, "the same again", sdkCode(err), "OTSConditionCheckFail")
		increment()
		if err := s.commit(tx); err != nil {
			t.Fatal(err)
		}
		expect(t, "row 1", s.get("a", 1), "n=42")
		expect(t, "row 2", s.get("a", 2), "v=x")
	})
	t.Run("write batches, and atomic ones as a whole", func(t *testing.T) {
		b := newRaw(t, start(t, emulator.Options{}))
		for _, name := range []string{"t", "u"} {
			b.must("/CreateTable", newTable(name, func(r *pb.CreateTableRequest) { r.EnableLocalTxn = ptr(true) }), &pb.CreateTableResponse{})
		}
		var begun pb.StartLocalTransactionResponse
		b.must("/StartLocalTransaction", &pb.StartLocalTransactionRequest{TableName: ptr("t"), Key: rowOf([]plainbuffer.Cell{text("p", "a")})}, &begun)
		write := func(atomic bool, rows ...*pb.RowInBatchWriteRowRequest) (outcomes string) {
			var resp pb.BatchWriteRowResponse
			b.must("/BatchWriteRow", &pb.BatchWriteRowRequest{TransactionId: begun.TransactionId, IsAtomic: &atomic, Tables: []*pb.TableInBatchWriteRowRequest{{TableName: ptr("t"), Rows: rows}}}, &resp)
			for _, r := range resp.Tables[0].Rows {
				outcomes += fmt.Sprintf("%t%s ", r.GetIsOk(), r.GetError().GetCode())
			}
			return outcomes
		}
		put := func(q int64, expects pb.RowExistenceExpectation) *pb.RowInBatchWriteRowRequest {
			return &pb.RowInBatchWriteRowRequest{
				Type: ptr(pb.OperationType_PUT), Condition: &pb.Condition{RowExistence: &expects},
				RowChange: rowOf([]plainbuffer.Cell{text("p", "a"), number("q", q)}, text("v", "x")),
			}
		}
		const ignored, exists = pb.RowExistenceExpectation_IGNORE, pb.RowExistenceExpectation_EXPECT_EXIST
		expect(t, "row by row", write(false, put(1, ignored), put(2, exists), put(3, ignored)), "true falseOTSConditionCheckFail true ")
		expect(t, "atomic", write(true, put(4, ignored), put(5, exists)), "falseOTSConditionCheckFail falseOTSConditionCheckFail ")
		var missing pb.GetRowResponse
		four := rowOf([]plainbuffer.Cell{text("p", "a"), number("q", 4)})
		b.must("/GetRow", &pb.GetRowRequest{TableName: ptr("t"), PrimaryKey: four, MaxVersions: ptr(int32(1)), TransactionId: begun.TransactionId}, &missing)
		expect(t, "bytes of the row of a refused batch", len(missing.Row), 0)
		_, err := b.post("/BatchWriteRow", &pb.BatchWriteRowRequest{TransactionId: begun.TransactionId, Tables: []*pb.TableInBatchWriteRowRequest{
			{TableName: ptr("t"), Rows: []*pb.RowInBatchWriteRowRequest{put(7, ignored)}}, {TableName: ptr("u"), Rows: []*pb.RowInBatchWriteRowRequest{put(8, ignored)}},
		}})
		expect(t, "two tables", fmt.Sprint(err), "status 400: OTSDataOutOfRange: Data out of scope of transaction. The request writes to several tables.")
		expect(t, "atomic, all of it", write(true, put(6, ignored), put(1, exists)), "true true ")
		b.must("/CommitTransaction", &pb.CommitTransactionRequest{TransactionId: begun.TransactionId}, &pb.CommitTransactionResponse{})
		var found pb.GetRangeResponse
		b.must("/GetRange", &pb.GetRangeRequest{
			TableName: ptr("t"), Direction: ptr(pb.Direction_FORWARD), MaxVersions: ptr(int32(1)),
			InclusiveStartPrimaryKey: rowOf([]plainbuffer.Cell{special("p", plainbuffer.InfMin), special("q", plainbuffer.InfMin)}),
			ExclusiveEndPrimaryKey:   rowOf([]plainbuffer.Cell{special("p", plainbuffer.InfMax), special("q", plainbuffer.InfMax)}),
		}, &found)
		rows, err := plainbuffer.DecodeAll(found.Rows)
		var ids []int64
		for _, r := range rows {
			ids = append(ids, r.PrimaryKey[1].Value.Integer())
		}
		expect(t, "rows", fmt.Sprint(ids, err), "[1 3 6] <nil>")
	})
}

func TestSDKTransactionLocks(t *testing.T) {
	t.Run("keep other writes and transactions off their partition key", func(t *testing.T) {
		e := start(t, keys)
		s := newSDK(t, e, withTransactions).atOnce(e)
		tx := s.mustBegin("a")
		_, err := s.begin("a")
		expect(t, "a second transaction", sdkCode(err), "OTSRowOperationConflict")
		expect(t, "its text", strings.Contains(fmt.Sprint(err), "Data is being modified by the other request."), true)
		expect(t, "a put", sdkCode(s.putIn(nil, "a", 1)), "OTSRowOperationConflict")
		u := &tablestore.UpdateRowChange{PrimaryKey: key("a", int64(1))}
		u.PutColumn("v", "x")
		_, err = s.update(u)
		expect(t, "an update", sdkCode(err), "OTSRowOperationConflict")
		for _, atomic := range []bool{false, true} {
			batch := &tablestore.BatchWriteRowRequest{IsAtomic: atomic}
			batch.AddRowChange(putChange("a", int64(1), "v", "x"))
			resp, err := s.BatchWriteRow(batch)
			if err != nil || resp.TableToRowsResult["orders"][0].Error.Code != "OTSRowOperationConflict" {
				t.Errorf("a batch: %+v, %v", resp, err)
			}
		}
		s.put("b", 1, "v", "free")
		other := s.mustBegin("c")
		if err := s.putIn(other, "c", 1, "v", "x"); err != nil {
			t.Errorf("a transaction of another partition key: %v", err)
		}
		if err := s.commit(tx); err != nil {
			t.Fatal(err)
		}
		s.put("a", 1, "v", "free")
	})
	t.Run("end a minute after the start, whether the transaction is used or not", func(t *testing.T) {
		e := start(t, emulator.Options{})
		s := newSDK(t, e, withTransactions).atOnce(e)
		tx := s.mustBegin("a")
		e.SkewClock(45 * time.Second)
		if err := s.putIn(tx, "a", 1, "v", "lost"); err != nil {
			t.Fatal(err)
		}
		expect(t, "a write after 45 s", sdkCode(s.putIn(nil, "a", 1)), "OTSRowOperationConflict")
		e.SkewClock(61 * time.Second)
		s.put("a", 2, "v", "x")
		expect(t, "a write in it", sdkCode(s.putIn(tx, "a", 1)), "OTSSessionNotExist")
		err := s.commit(tx)
		expect(t, "a commit", sdkCode(err), "OTSSessionNotExist")
		expect(t, "its text", strings.Contains(fmt.Sprint(err), "Session not exist or may be timeout."), true)
		expect(t, "row 1", s.get("a", 1), "-")
		again := s.mustBegin("a")
		e.SkewClock(130 * time.Second)
		if _, err := s.begin("a"); err != nil {
			t.Errorf("after a transaction that expired: %v", err)
		}
		expect(t, "a commit of that one", sdkCode(s.commit(again)), "OTSSessionNotExist")
	})
	t.Run("end with a restart, and with their table", func(t *testing.T) {
		opts := keys
		opts.DataDir = t.TempDir()
		e, err := emulator.Start(opts)
		if err != nil {
			t.Fatal(err)
		}
		s := newSDK(t, e, withTransactions)
		kept, lost := s.mustBegin("a"), s.mustBegin("b")
		for tx, pk := range map[*string]string{kept: "a", lost: "b"} {
			if err := s.putIn(tx, pk, 1, "v", "x"); err != nil {
				t.Fatal(err)
			}
		}
		if err := s.commit(kept); err != nil {
			t.Fatal(err)
		}
		if err := e.Close(); err != nil {
			t.Fatal(err)
		}
		e = start(t, opts)
		s = &sdk{tablestore.NewClient(e.Endpoint(), "inst", "ak", "sk"), t}
		expect(t, "the committed row", s.get("a", 1), "v=x")
		expect(t, "the other row", s.get("b", 1), "-")
		expect(t, "the open transaction", sdkCode(s.commit(lost)), "OTSSessionNotExist")
		tx := s.mustBegin("b") // the table still has transactions, the key is free
		if _, err := s.DeleteTable(&tablestore.DeleteTableRequest{TableName: "orders"}); err != nil {
			t.Fatal(err)
		}
		expect(t, "a commit without the table", sdkCode(s.commit(tx)), "OTSObjectNotExist")
	})
}

func TestSDKTransactionScope(t *testing.T) {
	t.Run("is one table and one partition key; requests outside it are refused and change nothing", func(t *testing.T) {
		s := newSDK(t, start(t, keys), withTransactions)
		meta := &tablestore.TableMeta{TableName: "other"}
		meta.AddPrimaryKeyColumn("pk", tablestore.PrimaryKeyType_STRING)
		meta.AddPrimaryKeyColumn("id", tablestore.PrimaryKeyType_INTEGER)
		if _, err := s.CreateTable(&tablestore.CreateTableRequest{
			TableMeta: meta, EnableLocalTxn: ptr(true),
			TableOption: &tablestore.TableOption{TimeToAlive: -1, MaxVersion: 1}, ReservedThroughput: &tablestore.ReservedThroughput{},
		}); err != nil {
			t.Fatal(err)
		}
		tx := s.mustBegin("a")
		expect(t, "a put", sdkCode(s.putIn(tx, "b", 1, "v", "x")), "OTSDataOutOfRange")
		_, err := s.GetRow(&tablestore.GetRowRequest{SingleRowQueryCriteria: &tablestore.SingleRowQueryCriteria{TableName: "orders", PrimaryKey: key("b", int64(1)), MaxVersion: 1, TransactionId: tx}})
		expect(t, "a read", sdkCode(err), "OTSDataOutOfRange")
		_, err = s.scan(tx, "b", tablestore.FORWARD)
		expect(t, "a range", sdkCode(err), "OTSDataOutOfRange")
		q := &tablestore.RangeRowQueryCriteria{TableName: "orders", Direction: tablestore.FORWARD, MaxVersion: 1, TransactionId: tx, StartPrimaryKey: key("a", "min"), EndPrimaryKey: key("b", "min")}
		_, err = s.GetRange(&tablestore.GetRangeRequest{RangeRowQueryCriteria: q})
		expect(t, "a range that ends elsewhere", sdkCode(err), "OTSDataOutOfRange")
		q.StartPrimaryKey, q.EndPrimaryKey = key("0", "min"), key("a", "max")
		_, err = s.GetRange(&tablestore.GetRangeRequest{RangeRowQueryCriteria: q})
		expect(t, "a range that begins elsewhere", sdkCode(err), "OTSDataOutOfRange")
		elsewhere := putChange("a", int64(1), "v", "x")
		elsewhere.TableName, elsewhere.TransactionId = "other", tx
		_, err = s.PutRow(&tablestore.PutRowRequest{PutRowChange: elsewhere})
		expect(t, "another table", sdkCode(err), "OTSDataOutOfRange")
		if err := s.putIn(tx, "a", 1, "v", "x"); err != nil {
			t.Errorf("the transaction is not valid any more: %v", err)
		}
		if err := s.commit(tx); err != nil {
			t.Fatal(err)
		}
		expect(t, "row a", s.get("a", 1), "v=x")
		expect(t, "row b", s.get("b", 1), "-")
	})
	t.Run("is 4 MiB of data", func(t *testing.T) {
		s := newSDK(t, start(t, keys), withTransactions)
		tx := s.mustBegin("a")
		big := strings.Repeat("x", 3<<19)
		for id := range int64(2) {
			if err := s.putIn(tx, "a", id, "v", big); err != nil {
				t.Fatal(err)
			}
		}
		expect(t, "4.5 MiB", sdkCode(s.putIn(tx, "a", 2, "v", big)), "OTSOutOfTransactionDataSizeLimit")
		if err := s.putIn(tx, "a", 3, "v", "small"); err != nil {
			t.Error(err)
		}
		if err := s.commit(tx); err != nil {
			t.Fatal(err)
		}
		expect(t, "the row that was too much", s.get("a", 2), "-")
		expect(t, "the row after it", s.get("a", 3), "v=small")
	})
	t.Run("is defined by one key column, in a table that has transactions", func(t *testing.T) {
		// [suite] TestStartCommitTxnWithTwoPK, TestCommitFailed, TestCreateTableLocalTxnDisabled.
		b := newStrictBed(t, emulator.Options{})
		b.must("/CreateTable", newTable("tx", func(r *pb.CreateTableRequest) { r.EnableLocalTxn = ptr(true) }), &pb.CreateTableResponse{})
		begin := func(table string, key ...plainbuffer.Cell) string {
			return b.outcome("/StartLocalTransaction", &pb.StartLocalTransactionRequest{TableName: &table, Key: rowOf(key)})
		}
		expect(t, "a table without", begin("t", text("p", "a")), "OTSParameterInvalid: Try to call method using explicit transaction on explicit-transaction-disabled table.")
		expect(t, "two columns", begin("tx", text("p", "a"), number("q", 1)), "OTSParameterInvalid: StartLocalTransaction support only one primary key.")
		expect(t, "another type", begin("tx", number("p", 1)), "OTSInvalidPK: Validate PK type fail. Input: VT_INTEGER, Meta: VT_STRING.")
		expect(t, "another column", begin("tx", text("q", "a")), "OTSInvalidPK: Validate PK name fail. Input: q, Meta: p.")
		expect(t, "no name", begin("", text("p", "a")), "OTSParameterInvalid: Invalid table name: ''.")
		expect(t, "a missing table", begin("missing", text("p", "a")), "OTSObjectNotExist: Requested table does not exist.")
		expect(t, "an empty id", b.outcome("/CommitTransaction", &pb.CommitTransactionRequest{TransactionId: ptr("")}), "OTSParameterInvalid: TransactionID is invalid.")
		expect(t, "an empty id", b.outcome("/AbortTransaction", &pb.AbortTransactionRequest{TransactionId: ptr("")}), "OTSParameterInvalid: TransactionID is invalid.")
		// [python] test_invalid_transaction_id.
		expect(t, "an id that no answer gave", b.getRow(row("a"), func(r *pb.GetRowRequest) { r.TransactionId = ptr("not existed transaction id") }), "OTSParameterInvalid: TransactionID is invalid.")
		auto := newTable("auto", func(r *pb.CreateTableRequest) {
			r.EnableLocalTxn = ptr(true)
			r.TableMeta.PrimaryKey[1].Option = ptr(pb.PrimaryKeyOption_AUTO_INCREMENT)
		})
		expect(t, "with an auto-increment column", b.outcome("/CreateTable", auto), "OTSParameterInvalid: Local transactions can't be used with an AUTO_INCREMENT primary key.")
	})
	t.Run("is every table that does not say otherwise, when the emulator is lenient", func(t *testing.T) {
		// [suite] setUp creates its table without asking for transactions; TestCreateTableLocalTxnDisabled refuses them.
		b := newStrictBed(t, emulator.Options{Lenient: true})
		b.must("/CreateTable", newTable("never", func(r *pb.CreateTableRequest) { r.EnableLocalTxn = ptr(false) }), &pb.CreateTableResponse{})
		begin := func(table string) string {
			return b.outcome("/StartLocalTransaction", &pb.StartLocalTransactionRequest{TableName: &table, Key: rowOf([]plainbuffer.Cell{text("p", "a")})})
		}
		expect(t, "a table that does not say", begin("t"), "ok")
		auto := newTable("auto", func(r *pb.CreateTableRequest) {
			r.TableMeta.PrimaryKey[1].Option = ptr(pb.PrimaryKeyOption_AUTO_INCREMENT)
		})
		expect(t, "a table with an auto-increment column", b.outcome("/CreateTable", auto), "ok")
		expect(t, "a table that says no", begin("never"), "OTSParameterInvalid: Try to call method using explicit transaction on explicit-transaction-disabled table.")
	})
}
