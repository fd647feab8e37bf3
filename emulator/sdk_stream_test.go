package emulator_test

import (
	"encoding/base64"
	"fmt"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/aliyun/aliyun-tablestore-go-sdk/tablestore"

	"github.com/watermill-ots/watermill-ots/emulator"
)

func withStream(r *tablestore.CreateTableRequest) {
	r.StreamSpec = &tablestore.StreamSpecification{EnableStream: true, ExpirationTime: 24}
}

// streamID returns the id of the only stream of the table "orders".
func (s *sdk) streamID() *tablestore.StreamId {
	s.t.Helper()
	list, err := s.ListStream(&tablestore.ListStreamRequest{TableName: ptr("orders")})
	if err != nil || len(list.Streams) != 1 {
		s.t.Fatalf("streams: %+v, %v", list, err)
	}
	return list.Streams[0].Id
}

func (s *sdk) describeStream(change ...func(*tablestore.DescribeStreamRequest)) *tablestore.DescribeStreamResponse {
	s.t.Helper()
	req := &tablestore.DescribeStreamRequest{StreamId: s.streamID()}
	for _, f := range change {
		f(req)
	}
	d, err := s.DescribeStream(req)
	if err != nil {
		s.t.Fatal(err)
	}
	return d
}

func (s *sdk) iterator(shard *tablestore.ShardId, change ...func(*tablestore.GetShardIteratorRequest)) *tablestore.ShardIterator {
	s.t.Helper()
	req := &tablestore.GetShardIteratorRequest{StreamId: s.streamID(), ShardId: shard}
	for _, f := range change {
		f(req)
	}
	resp, err := s.GetShardIterator(req)
	if err != nil {
		s.t.Fatal(err)
	}
	if resp.Token != nil {
		s.t.Errorf("a token for continuing: %q", *resp.Token)
	}
	return resp.ShardIterator
}

// read reads until the shard ends, which a nil iterator says, or until the
// iterator does not change any more, as the SDK's own tests do.
func (s *sdk) read(it *tablestore.ShardIterator, limit int32) (*tablestore.ShardIterator, []*tablestore.StreamRecord) {
	s.t.Helper()
	var records []*tablestore.StreamRecord
	for {
		req := &tablestore.GetStreamRecordRequest{ShardIterator: it}
		if limit > 0 {
			req.Limit = &limit
		}
		resp, err := s.GetStreamRecord(req)
		if err != nil {
			s.t.Fatal(err)
		}
		if limit > 0 && len(resp.Records) > int(limit) {
			s.t.Errorf("%d records, more than %d", len(resp.Records), limit)
		}
		records = append(records, resp.Records...)
		if resp.NextShardIterator == nil || *resp.NextShardIterator == *it {
			if resp.MayMoreRecord == nil || *resp.MayMoreRecord {
				s.t.Errorf("the response says that there may be more records, and there are none")
			}
			return resp.NextShardIterator, records
		}
		it = resp.NextShardIterator
	}
}

// keysOf returns the records' primary keys as text.
func keysOf(records []*tablestore.StreamRecord) string {
	var list []string
	for _, r := range records {
		list = append(list, fmt.Sprint(r.PrimaryKey.PrimaryKeys[0].Value, r.PrimaryKey.PrimaryKeys[1].Value))
	}
	return strings.Join(list, " ")
}

func TestSDKStream(t *testing.T) {
	t.Run("is listed once it is enabled", func(t *testing.T) {
		s := newSDK(t, start(t, keys))
		list, err := s.ListStream(&tablestore.ListStreamRequest{TableName: ptr("orders")})
		if err != nil || len(list.Streams) != 0 {
			t.Fatalf("streams of a table without one: %+v, %v", list, err)
		}
		if _, err := s.UpdateTable(&tablestore.UpdateTableRequest{TableName: "orders", StreamSpec: &tablestore.StreamSpecification{EnableStream: true, ExpirationTime: 24}}); err != nil {
			t.Fatal(err)
		}
		d := s.describeStream()
		expect(t, "id", *d.StreamId, *s.streamID())
		expect(t, "table", *d.TableName, "orders")
		expect(t, "expiration", d.ExpirationTime, 24)
		expect(t, "status", d.Status, tablestore.SS_Active)
		expect(t, "shards", len(d.Shards), 1)
		if age := time.Since(time.UnixMicro(d.CreationTime)); age < -time.Second || age > time.Minute {
			t.Errorf("it was created %v ago", age)
		}
		all, err := s.ListStream(&tablestore.ListStreamRequest{})
		if err != nil || len(all.Streams) != 1 || *all.Streams[0].TableName != "orders" {
			t.Errorf("streams of the instance: %+v, %v", all, err)
		}
	})
	t.Run("holds puts, updates and deletions as they were made", func(t *testing.T) {
		s := newSDK(t, start(t, keys), withStream, func(r *tablestore.CreateTableRequest) { r.StreamSpec.OriginColumnsToGet = []string{"a"} })
		it, records := s.read(s.iterator(s.describeStream().Shards[0].SelfShard), 0)
		expect(t, "records of a new table", len(records), 0)
		s.put("k", 1, "a", "old", "b", true, "c", int64(1))
		it, records = s.read(it, 0)
		if len(records) != 1 || records[0].Type != tablestore.AT_Put || records[0].Info == nil || len(records[0].Columns) != 3 {
			t.Fatalf("records of a put: %v", records)
		}
		written := *records[0].Columns[0].Timestamp
		u := &tablestore.UpdateRowChange{PrimaryKey: key("k", int64(1))}
		u.DeleteColumnWithTimestamp("a", written)
		u.DeleteColumn("b")
		u.PutColumn("c", 3.5)
		if _, err := s.update(u); err != nil {
			t.Fatal(err)
		}
		it, records = s.read(it, 0)
		if len(records) != 1 || records[0].Type != tablestore.AT_Update || len(records[0].Columns) != 3 {
			t.Fatalf("records of an update: %v", records)
		}
		a, b, c := records[0].Columns[0], records[0].Columns[1], records[0].Columns[2]
		expect(t, "a", fmt.Sprint(*a.Name, a.Type, *a.Timestamp == written), fmt.Sprint("a", tablestore.RCT_DeleteOneVersion, true))
		expect(t, "b", fmt.Sprint(*b.Name, b.Type, b.Timestamp == nil), fmt.Sprint("b", tablestore.RCT_DeleteAllVersions, true))
		expect(t, "c", fmt.Sprint(*c.Name, c.Type, c.Value), fmt.Sprint("c", tablestore.RCT_Put, 3.5))
		if len(records[0].OriginColumns) != 1 || records[0].OriginColumns[0].Value != "old" {
			t.Errorf("origin columns: %v", records[0].OriginColumns)
		}
		if _, err := s.DeleteRow(&tablestore.DeleteRowRequest{DeleteRowChange: &tablestore.DeleteRowChange{TableName: "orders", PrimaryKey: key("k", int64(1)), Condition: ignore()}}); err != nil {
			t.Fatal(err)
		}
		_, records = s.read(it, 0)
		if len(records) != 1 || records[0].Type != tablestore.AT_Delete || len(records[0].Columns) != 0 {
			t.Errorf("records of a deletion: %v", records)
		}
	})
	t.Run("is read in pages of the wanted size", func(t *testing.T) {
		s := newSDK(t, start(t, keys), withStream)
		for i := range 7 {
			s.put("k", int64(i), "v", "x")
		}
		shard := s.describeStream().Shards[0].SelfShard
		_, records := s.read(s.iterator(shard), 3)
		expect(t, "records", keysOf(records), "k0 k1 k2 k3 k4 k5 k6")
		resp, err := s.GetStreamRecord(&tablestore.GetStreamRecordRequest{ShardIterator: s.iterator(shard), Limit: ptr(int32(3)), TableName: ptr("orders")})
		if err != nil || !*resp.MayMoreRecord || resp.CapacityUnit.Read != 1 {
			t.Errorf("first page: %+v, %v", resp, err)
		}
		for limit, more := range map[int32]bool{6: true, 7: true, 8: false} {
			resp, err := s.GetStreamRecord(&tablestore.GetStreamRecordRequest{ShardIterator: s.iterator(shard), Limit: &limit})
			if err != nil || *resp.MayMoreRecord != more {
				t.Errorf("a page of %d: %+v, %v", limit, resp, err)
			}
		}
	})
	t.Run("can be read from a given time", func(t *testing.T) {
		s := newSDK(t, start(t, keys), withStream)
		for i := range 5 {
			s.put("k", int64(i), "v", "x")
		}
		shard := s.describeStream().Shards[0].SelfShard
		_, records := s.read(s.iterator(shard), 0)
		at := func(micros int64) string {
			_, found := s.read(s.iterator(shard, func(r *tablestore.GetShardIteratorRequest) { r.Timestamp = &micros }), 0)
			return keysOf(found)
		}
		third := records[2].Info.Timestamp
		expect(t, "from the third record", at(third), "k2 k3 k4")
		expect(t, "after the third record", at(third+1), "k3 k4")
		expect(t, "from the beginning of time", at(0), keysOf(records))
		expect(t, "from tomorrow", at(time.Now().Add(24*time.Hour).UnixMicro()), "")
	})
}

func TestSDKStreamShards(t *testing.T) {
	t.Run("end where they are split or merged, and their children name them", func(t *testing.T) {
		e := start(t, keys)
		s := newSDK(t, e, withStream)
		first := s.describeStream().Shards[0].SelfShard
		s.put("a", 1, "v", "x")
		s.put("z", 1, "v", "x")
		if err := e.SplitAt("orders", "m"); err != nil {
			t.Fatal(err)
		}
		s.put("a", 2, "v", "x")
		if err := e.Merge("orders"); err != nil {
			t.Fatal(err)
		}
		s.put("z", 2, "v", "x")
		shards := s.describeStream().Shards
		if len(shards) != 4 || *shards[0].SelfShard != *first {
			t.Fatalf("shards: %v", shards)
		}
		left, right, last := shards[1], shards[2], shards[3]
		for _, child := range []*tablestore.StreamShard{left, right} {
			if child.FatherShard == nil || *child.FatherShard != *first || child.MotherShard != nil {
				t.Errorf("a child of a split: %v", child)
			}
		}
		if last.FatherShard == nil || last.MotherShard == nil || *last.FatherShard != *left.SelfShard || *last.MotherShard != *right.SelfShard {
			t.Errorf("the child of a merge: %v", last)
		}
		for i, want := range []string{"a1 z1", "a2", "", "z2"} {
			it, records := s.read(s.iterator(shards[i].SelfShard), 1)
			expect(t, fmt.Sprintf("records of shard %d", i), keysOf(records), want)
			expect(t, fmt.Sprintf("shard %d ends", i), it == nil, i < 3)
		}
	})
	t.Run("are listed page by page", func(t *testing.T) {
		e := start(t, keys)
		s := newSDK(t, e, withStream)
		if err := e.SplitAt("orders", "b", "c", "d"); err != nil {
			t.Fatal(err)
		}
		var all, paged []string
		for _, sh := range s.describeStream().Shards {
			all = append(all, string(*sh.SelfShard))
		}
		var next *tablestore.ShardId
		for pages := 0; pages == 0 || next != nil; pages++ {
			d := s.describeStream(func(r *tablestore.DescribeStreamRequest) { r.InclusiveStartShardId, r.ShardLimit = next, ptr(int32(3)) })
			for _, sh := range d.Shards {
				paged = append(paged, string(*sh.SelfShard))
			}
			next = d.NextShardId
		}
		if len(all) != 7 || !slices.Equal(all, paged) {
			t.Errorf("%v in pages are %v", all, paged)
		}
	})
	t.Run("lose what is older than the stream keeps", func(t *testing.T) {
		e := start(t, emulator.Options{})
		s := newSDK(t, e, withStream)
		s.put("k", 1, "v", "x")
		shard := s.describeStream().Shards[0].SelfShard
		old := s.iterator(shard)
		e.SkewClock(25 * time.Hour)
		s.put("k", 2, "v", "x")
		_, err := s.GetStreamRecord(&tablestore.GetStreamRecordRequest{ShardIterator: old})
		expect(t, "an iterator of an expired record", fmt.Sprint(err != nil && strings.Contains(err.Error(), "OTSTrimmedDataAccess Requested stream data is already trimmed or does not exist.")), "true")
		_, records := s.read(s.iterator(shard), 0)
		expect(t, "records", keysOf(records), "k2")
	})
	t.Run("disappear when the stream is disabled or its table is recreated", func(t *testing.T) {
		e := start(t, keys)
		s := newSDK(t, e, withStream)
		id, shard := s.streamID(), s.describeStream().Shards[0].SelfShard
		old := s.iterator(shard)
		if _, err := s.DeleteTable(&tablestore.DeleteTableRequest{TableName: "orders"}); err != nil {
			t.Fatal(err)
		}
		s = newSDK(t, e, withStream)
		s.put("k", 1, "v", "x")
		_, err := s.GetStreamRecord(&tablestore.GetStreamRecordRequest{ShardIterator: old})
		expect(t, "an old iterator", sdkCode(err), "OTSTrimmedDataAccess")
		_, err = s.DescribeStream(&tablestore.DescribeStreamRequest{StreamId: id})
		expect(t, "an old stream", sdkCode(err), "OTSObjectNotExist")
		_, err = s.GetShardIterator(&tablestore.GetShardIteratorRequest{StreamId: s.streamID(), ShardId: shard})
		expect(t, "an old shard", sdkCode(err), "OTSObjectNotExist")
	})
	t.Run("are different ones when the stream is enabled again, even if the clock stands still", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			opts := keys
			opts.InMemory = true
			e, err := emulator.Start(opts)
			if err != nil {
				t.Fatal(err)
			}
			s := newSDK(t, e, withStream)
			s.put("k", 1, "v", "x")
			id, shard := s.streamID(), s.describeStream().Shards[0].SelfShard
			old := s.iterator(shard)
			for _, enable := range []bool{false, true} {
				if _, err := s.UpdateTable(&tablestore.UpdateTableRequest{TableName: "orders", StreamSpec: &tablestore.StreamSpecification{EnableStream: enable, ExpirationTime: 24}}); err != nil {
					t.Fatal(err)
				}
			}
			expect(t, "id", *s.streamID(), *id)
			_, err = s.GetStreamRecord(&tablestore.GetStreamRecordRequest{ShardIterator: old})
			expect(t, "an old iterator", sdkCode(err), "OTSTrimmedDataAccess")
			_, err = s.GetShardIterator(&tablestore.GetShardIteratorRequest{StreamId: id, ShardId: shard})
			expect(t, "an old shard", sdkCode(err), "OTSObjectNotExist")
			e.Transport().CloseIdleConnections()
			if err := e.Close(); err != nil {
				t.Error(err)
			}
		})
	})
	t.Run("refuse what no response contained", func(t *testing.T) {
		s := newSDK(t, start(t, keys), withStream)
		shard := s.describeStream().Shards[0].SelfShard
		for what, call := range map[string]func() error{
			"a limit of 0": func() error {
				_, err := s.GetStreamRecord(&tablestore.GetStreamRecordRequest{ShardIterator: s.iterator(shard), Limit: ptr(int32(0))})
				return err
			},
			"another table": func() error {
				_, err := s.GetStreamRecord(&tablestore.GetStreamRecordRequest{ShardIterator: s.iterator(shard), TableName: ptr("other")})
				return err
			},
			"an iterator of the client's own": func() error {
				_, err := s.GetStreamRecord(&tablestore.GetStreamRecordRequest{ShardIterator: ptr(tablestore.ShardIterator("TRIM_HORIZON"))})
				return err
			},
			"an iterator before the first record": func() error {
				own := tablestore.ShardIterator(base64.RawURLEncoding.EncodeToString(fmt.Appendf(nil, "%s\t%s\t-1", *s.streamID(), *shard)))
				_, err := s.GetStreamRecord(&tablestore.GetStreamRecordRequest{ShardIterator: &own})
				return err
			},
			"a token of the client's own": func() error {
				_, err := s.GetShardIterator(&tablestore.GetShardIteratorRequest{StreamId: s.streamID(), ShardId: shard, Timestamp: ptr(int64(1)), Token: ptr("t")})
				return err
			},
			"a negative time": func() error {
				_, err := s.GetShardIterator(&tablestore.GetShardIteratorRequest{StreamId: s.streamID(), ShardId: shard, Timestamp: ptr(int64(-1))})
				return err
			},
			"a shard limit of 0": func() error {
				_, err := s.DescribeStream(&tablestore.DescribeStreamRequest{StreamId: s.streamID(), ShardLimit: ptr(int32(0))})
				return err
			},
		} {
			expect(t, what, sdkCode(call()), "OTSParameterInvalid")
		}
		_, err := s.ListStream(&tablestore.ListStreamRequest{TableName: ptr("missing")})
		expect(t, "a missing table", sdkCode(err), "OTSObjectNotExist")
	})
}

// TestStreamIsExportedAsDataXDoes reads a stream as DataX's otsstreamreader
// does (RecordProcessor.java): a window of time, shard after shard, up to the
// first record after the window. A page with fewer records gives the iterator
// from which the next run continues.
func TestStreamIsExportedAsDataXDoes(t *testing.T) {
	e := start(t, emulator.Options{})
	s := newSDK(t, e, withStream)
	put := func(ids ...int64) {
		for _, id := range ids {
			s.put("a", id, "v", "x")
			s.put("z", id, "v", "x")
		}
	}
	put(1, 2)
	if err := e.SplitAt("orders", "m"); err != nil {
		t.Fatal(err)
	}
	put(3)
	e.SkewClock(time.Hour)
	end := time.Now().Add(30 * time.Minute).UnixMicro()
	put(4, 5)

	checkpoints := make(map[tablestore.ShardId]*tablestore.ShardIterator)
	export := func(end int64) string {
		var exported []*tablestore.StreamRecord
		for _, shard := range s.describeStream().Shards {
			it, known := checkpoints[*shard.SelfShard]
			if !known {
				it = s.iterator(shard.SelfShard, func(r *tablestore.GetShardIteratorRequest) { r.Timestamp = ptr(int64(1)) })
			}
			for it != nil {
				resp, err := s.GetStreamRecord(&tablestore.GetStreamRecordRequest{ShardIterator: it})
				if err != nil {
					t.Fatal(err)
				}
				behind := slices.IndexFunc(resp.Records, func(r *tablestore.StreamRecord) bool { return r.Info.Timestamp >= end })
				if behind >= 0 {
					exported = append(exported, resp.Records[:behind]...)
					if behind > 0 {
						again, err := s.GetStreamRecord(&tablestore.GetStreamRecordRequest{ShardIterator: it, Limit: ptr(int32(behind))})
						if err != nil {
							t.Fatal(err)
						}
						it = again.NextShardIterator
					}
					break
				}
				exported = append(exported, resp.Records...)
				it = resp.NextShardIterator
				if len(resp.Records) == 0 {
					break
				}
			}
			checkpoints[*shard.SelfShard] = it
		}
		return keysOf(exported)
	}
	expect(t, "first window", export(end), "a1 z1 a2 z2 a3 z3")
	expect(t, "second window", export(end+int64(time.Hour/time.Microsecond)), "a4 a5 z4 z5")
	expect(t, "third window", export(end+2*int64(time.Hour/time.Microsecond)), "")
}
