package emulator_test

import (
	"bytes"
	"compress/zlib"
	"crypto/md5"
	"encoding/base64"
	"fmt"
	"io"
	"math"
	"net/http"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	pb "github.com/aliyun/aliyun-tablestore-go-sdk/tablestore/otsprotocol"
	"github.com/aliyun/aliyun-tablestore-go-sdk/tunnel/protocol"
	"google.golang.org/protobuf/encoding/protowire"

	"github.com/watermill-ots/watermill-ots/emulator"
	"github.com/watermill-ots/watermill-ots/internal/plainbuffer"
)

// The sources in brackets are listed in strict_test.go.

func TestStrictTables(t *testing.T) {
	t.Run("reserve 0 to 100000 capacity units", func(t *testing.T) {
		// [limits] "Number of reserved read CUs and reserved write CUs of a single table: 0~100000 CU"
		b := newStrictBed(t, emulator.Options{})
		for i, v := range []struct {
			read, write int32
			ok          bool
		}{{0, 100_000, true}, {100_000, 0, true}, {100_001, 0, false}, {0, 100_001, false}, {-1, 0, false}, {0, -1, false}} {
			units := &pb.CapacityUnit{Read: &v.read, Write: &v.write}
			created := b.outcome("/CreateTable", newTable(fmt.Sprint("r", i), func(r *pb.CreateTableRequest) { r.ReservedThroughput.CapacityUnit = units }))
			b.must("/CreateTable", newTable(fmt.Sprint("u", i)), &pb.CreateTableResponse{})
			updated := b.outcome("/UpdateTable", &pb.UpdateTableRequest{TableName: ptr(fmt.Sprint("u", i)), ReservedThroughput: &pb.ReservedThroughput{CapacityUnit: units}})
			for what, got := range map[string]string{"CreateTable": created, "UpdateTable": updated} {
				if (got == "ok") != v.ok || !v.ok && !strings.HasPrefix(got, invalid) {
					t.Errorf("%s with %d and %d: %s", what, v.read, v.write, got)
				}
			}
		}
	})
	t.Run("adjust their throughput once in two minutes", func(t *testing.T) {
		// [errors] OTSTooFrequentReservedThroughputAdjustment "Capacity unit adjustment is too frequent."
		synctest.Test(t, func(t *testing.T) {
			opts := emulator.Options{InMemory: true}
			e, err := emulator.Start(opts)
			if err != nil {
				t.Fatal(err)
			}
			defer e.Close()
			transport := e.Transport()
			defer transport.CloseIdleConnections()
			b := &strictBed{&raw{t: t, base: e.Endpoint(), client: &http.Client{Transport: transport}}}
			b.must("/CreateTable", newTable("t"), &pb.CreateTableResponse{})
			adjust := func() string {
				return b.outcome("/UpdateTable", &pb.UpdateTableRequest{TableName: ptr("t"), ReservedThroughput: &pb.ReservedThroughput{CapacityUnit: &pb.CapacityUnit{Read: ptr(int32(1))}}})
			}
			const tooSoon = "OTSTooFrequentReservedThroughputAdjustment: Capacity unit adjustment is too frequent."
			expect(t, "first", adjust(), "ok")
			expect(t, "at once", adjust(), tooSoon)
			time.Sleep(2*time.Minute - time.Millisecond)
			expect(t, "just before two minutes", adjust(), tooSoon)
			expect(t, "other options meanwhile", b.outcome("/UpdateTable", &pb.UpdateTableRequest{TableName: ptr("t"), TableOptions: &pb.TableOptions{MaxVersions: ptr(int32(2))}}), "ok")
			time.Sleep(time.Millisecond)
			expect(t, "after two minutes", adjust(), "ok")
		})
	})
	t.Run("are 64 at most", func(t *testing.T) {
		// General limits (general-limits-of-tablestore) "The number of tables in an instance: 64"; [item] testCase15
		b := newStrictBed(t, emulator.Options{})
		for i := range 63 {
			b.must("/CreateTable", newTable(fmt.Sprint("m", i)), &pb.CreateTableResponse{})
		}
		expect(t, "the 65th", b.outcome("/CreateTable", newTable("more")), "OTSQuotaExhausted: Number of tables exceeds the quota:64.")
		b.must("/DeleteTable", &pb.DeleteTableRequest{TableName: ptr("m0")}, &pb.DeleteTableResponse{})
		expect(t, "after one is deleted", b.outcome("/CreateTable", newTable("more")), "ok")
	})
	t.Run("are not created twice, nor with the same key twice", func(t *testing.T) {
		// Python, tests/table_operation_test.py
		b := newStrictBed(t, emulator.Options{})
		expect(t, "twice", b.outcome("/CreateTable", newTable("t")), "OTSObjectAlreadyExist: Requested table already exists.")
		expect(t, "a key twice", b.outcome("/CreateTable", newTable("u", func(r *pb.CreateTableRequest) { r.TableMeta.PrimaryKey[1].Name = ptr("p") })), invalid+"Duplicated primary key name: 'p'.")
	})
	t.Run("have 32 defined columns at most", func(t *testing.T) {
		// Java, functiontest/SecondaryIndexTest.java testCase4
		b := newStrictBed(t, emulator.Options{})
		create := func(n int) string {
			return b.outcome("/CreateTable", newTable(fmt.Sprint("d", n), func(r *pb.CreateTableRequest) {
				for i := range n {
					r.TableMeta.DefinedColumn = append(r.TableMeta.DefinedColumn, &pb.DefinedColumnSchema{Name: ptr(fmt.Sprint("c", i)), Type: ptr(pb.DefinedColumnType_DCT_STRING)})
				}
			}))
		}
		expect(t, "32", create(32), "ok")
		expect(t, "33", create(33), invalid+"The number of defined columns must be in range: [0, 32].")
	})
	t.Run("have a creation time", func(t *testing.T) {
		// Java, functiontest/TableCreationTimeTest.java: creation_time, field 9, in microseconds
		before := time.Now().UnixMicro()
		b := newStrictBed(t, emulator.Options{})
		answer, err := b.post("/DescribeTable", &pb.DescribeTableRequest{TableName: ptr("t")})
		if err != nil {
			t.Fatal(err)
		}
		var created uint64
		for len(answer) > 0 {
			number, kind, n := protowire.ConsumeTag(answer)
			answer = answer[n:]
			if number == 9 {
				created, _ = protowire.ConsumeVarint(answer)
			}
			answer = answer[protowire.ConsumeFieldValue(number, kind, answer):]
		}
		if at := int64(created); at < before || at > time.Now().UnixMicro() {
			t.Errorf("creation_time is %d", at)
		}
	})
	t.Run("keep update_full_row as it is", func(t *testing.T) {
		// Java's tests: UpdateTable is refused ("contain updateFullRow")
		b := newStrictBed(t, emulator.Options{})
		got := b.outcome("/UpdateTable", &pb.UpdateTableRequest{TableName: ptr("t"), TableOptions: &pb.TableOptions{UpdateFullRow: ptr(true)}})
		if !strings.HasPrefix(got, invalid) || !strings.Contains(got, "contain updateFullRow") {
			t.Errorf("got %s", got)
		}
	})
	t.Run("are divided into parts of 1 MiB or more", func(t *testing.T) {
		// Java, functiontest/TestComputeSplitsBySize.java
		b := newStrictBed(t, emulator.Options{})
		split := func(size, unit int64) string {
			return b.outcome("/ComputeSplitPointsBySize", &pb.ComputeSplitPointsBySizeRequest{TableName: ptr("t"), SplitSize: &size, SplitSizeUnitInByte: &unit})
		}
		expect(t, "none", split(0, 1<<20), invalid+"The split_size should be greater than 0.")
		expect(t, "1 MiB", split(1, 1<<20), "ok")
		expect(t, "less", split(1, 1<<20-1), invalid+"The split_size_unit_in_byte should be greater equal than: 1048576")
		expect(t, "nothing", split(1000, 0), invalid+"The split_size_unit_in_byte should be greater equal than: 1048576")
		expect(t, "more than there can be", split(math.MaxInt64, math.MaxInt64), "ok")
		// Java, functiontest/TestComputeSplitPointsBySize.java testEmptyTable
		var resp pb.ComputeSplitPointsBySizeResponse
		b.must("/ComputeSplitPointsBySize", &pb.ComputeSplitPointsBySizeRequest{TableName: ptr("t"), SplitSize: ptr(int64(1))}, &resp)
		if len(resp.Locations) != 1 || len(resp.Locations[0].GetLocation()) != 32 || resp.Locations[0].GetRepeat() != 1 {
			t.Errorf("the locations are %v", resp.Locations)
		}
	})
	t.Run("are made with ten partitions at most, whose bounds are checked", func(t *testing.T) {
		// Java, functiontest/SplitPointTest.java
		b := newStrictBed(t, emulator.Options{})
		n := 0
		divide := func(kind pb.PrimaryKeyType, bounds ...plainbuffer.Value) string {
			n++
			return b.outcome("/CreateTable", newTable(fmt.Sprint("d", n), func(r *pb.CreateTableRequest) {
				r.TableMeta.PrimaryKey[0].Type = &kind
				begin := plainbuffer.Special(plainbuffer.InfMin)
				for _, end := range append(bounds, plainbuffer.Special(plainbuffer.InfMax)) {
					r.Partitions = append(r.Partitions, &pb.PartitionRange{Begin: plainbuffer.AppendVariant(nil, begin), End: plainbuffer.AppendVariant(nil, end)})
					begin = end
				}
			}))
		}
		var numbers []plainbuffer.Value
		for i := range 10 {
			numbers = append(numbers, plainbuffer.IntegerValue(int64(i)))
		}
		text, long := plainbuffer.StringValue, strings.Repeat("Z", 65)
		expect(t, "ten", divide(pb.PrimaryKeyType_INTEGER, numbers[:9]...), "ok")
		expect(t, "eleven", divide(pb.PrimaryKeyType_INTEGER, numbers...), invalid+"The count of partitions cannot be greater than 10")
		for _, v := range []int64{math.MinInt64, math.MaxInt64} {
			expect(t, "an end of the numbers", divide(pb.PrimaryKeyType_INTEGER, plainbuffer.IntegerValue(v)), invalid+"The value of partition range can not be INT64_MIN or INT64_MAX.")
		}
		expect(t, "another type", divide(pb.PrimaryKeyType_STRING, numbers[1]), invalid+"The value type of partition does not match with primary key.")
		expect(t, "64 bytes", divide(pb.PrimaryKeyType_STRING, text(long[:64])), "ok")
		expect(t, "65 bytes", divide(pb.PrimaryKeyType_STRING, text(long)), invalid+"The value of partition range exceeds the MaxLength:64 with CurrentLength:65.")
		expect(t, "an empty string", divide(pb.PrimaryKeyType_STRING, text(""), text("b")), invalid+"The value of partition range can not be empty string.")
		expect(t, "an empty binary", divide(pb.PrimaryKeyType_BINARY, plainbuffer.BinaryValue(nil)), invalid+"The value of partition range can not be empty binary.")
	})
}

func TestStrictHTTP(t *testing.T) {
	t.Run("an operation that the service does not have is a bad parameter", func(t *testing.T) {
		// [errors] OTSParameterInvalid "Unsupported operation: '{Operation}'."
		b := newStrictBed(t, emulator.Options{})
		expect(t, "answer", b.outcome("/MakeCoffee", &pb.ListTableRequest{}), invalid+"Unsupported operation: 'MakeCoffee'.")
	})
	read := func(t *testing.T, agent string, deflated bool) (header http.Header, body []byte) {
		b := newStrictBed(t, emulator.Options{})
		b.must("/UpdateTable", &pb.UpdateTableRequest{TableName: ptr("t"), StreamSpec: &pb.StreamSpecification{EnableStream: ptr(true), ExpirationTime: ptr(int32(24))}}, &pb.UpdateTableResponse{})
		tunnel, client, channels := b.openTunnel("t", protocol.TunnelType_Stream)
		b.putRow(row("k", number("n", 1)))
		var cp protocol.GetCheckpointResponse
		b.must("/tunnel/getcheckpoint", &protocol.GetCheckpointRequest{TunnelId: &tunnel, ClientId: &client, ChannelId: &channels[0]}, &cp)
		req, err := http.NewRequestWithContext(t.Context(), "POST", b.base+"/tunnel/readrecords", bytes.NewReader(message(t, &protocol.ReadRecordsRequest{
			TunnelId: &tunnel, ClientId: &client, ChannelId: &channels[0], Token: cp.Checkpoint,
		})))
		if err != nil {
			t.Fatal(err)
		}
		req.Header.Set("User-Agent", agent)
		if deflated {
			req.Header.Set("x-ots-response-compress-type", "deflate")
		}
		resp, err := b.client.Do(req)
		if err != nil {
			t.Fatal(err)
		}
		defer resp.Body.Close()
		from := io.Reader(resp.Body)
		if deflated {
			if from, err = zlib.NewReader(resp.Body); err != nil {
				t.Fatal(err)
			}
		}
		if body, err = io.ReadAll(from); err != nil {
			t.Fatal(err)
		}
		return resp.Header, body
	}
	digest := func(body []byte) string {
		sum := md5.Sum(body)
		return base64.StdEncoding.EncodeToString(sum[:])
	}
	for _, deflated := range []bool{false, true} {
		t.Run(fmt.Sprintf("the digest of records is of the body before compression, compressed %v", deflated), func(t *testing.T) {
			// Java client code (core/http): the answer is inflated before its digest is checked
			header, body := read(t, "ots-java-sdk 5.17.7", deflated)
			if len(body) < 20 {
				t.Fatalf("the page has %d bytes", len(body))
			}
			expect(t, "digest", header.Get("x-ots-contentmd5"), digest(body))
		})
	}
	t.Run("the Go SDK's tunnel client, which checks none, gets records without a digest", func(t *testing.T) {
		header, _ := read(t, "tablestore-tunnel-sdk-go/1.0.0", false)
		expect(t, "digest", header.Get("x-ots-contentmd5"), "")
		e := start(t, emulator.Options{})
		req, err := http.NewRequestWithContext(t.Context(), "POST", e.Endpoint()+"/tunnel/list", nil)
		if err != nil {
			t.Fatal(err)
		}
		req.Header.Set("User-Agent", "tablestore-tunnel-sdk-go/1.0.0")
		resp, err := http.DefaultClient.Do(req)
		if err != nil {
			t.Fatal(err)
		}
		resp.Body.Close()
		expect(t, "digest of another answer", resp.Header.Get("x-ots-contentmd5"), digest(nil))
	})
}
