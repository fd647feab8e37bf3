package tables

import (
	"encoding/base64"
	"slices"
	"strconv"
	"strings"
	"time"

	pb "github.com/aliyun/aliyun-tablestore-go-sdk/tablestore/otsprotocol"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/protoadapt"

	"github.com/watermill-ots/watermill-ots/emulator/internal/store"
	"github.com/watermill-ots/watermill-ots/emulator/internal/tunnels"
	"github.com/watermill-ots/watermill-ots/emulator/internal/wire"
)

// Bounds of one GetStreamRecord. The service's are not documented.
const (
	maxStreamRecords = 1000
	maxStreamBytes   = 4 << 20
)

func (s *Service) listStream(req *pb.ListStreamRequest) (*pb.ListStreamResponse, error) {
	names := s.store.Tables()
	if req.TableName != nil {
		if _, err := s.named(req.GetTableName()); err != nil {
			return nil, err
		}
		names = []string{req.GetTableName()}
	}
	resp := &pb.ListStreamResponse{}
	for _, name := range names {
		t, err := s.store.Table(name)
		if err != nil {
			continue // deleted in the meantime
		}
		if info := t.Stream(); info.Enabled {
			resp.Streams = append(resp.Streams, &pb.Stream{StreamId: &info.StreamID, TableName: &name, CreationTime: pointer(info.EnabledAt.UnixMicro())})
		}
	}
	return resp, nil
}

// stream returns the table that has the stream, and the stream's shards.
func (s *Service) stream(id string) (*store.Table, []tunnels.Shard, error) {
	if t := s.store.TableOfStream(id); t != nil {
		shards, err := s.store.Shards(t.ID())
		return t, shards, err
	}
	return nil, nil, wire.Errorf(wire.CodeObjectNotExist, "Requested stream does not exist.")
}

// describeStream lists parent shards before their children: readers finish a
// parent before they start its children.
func (s *Service) describeStream(req *pb.DescribeStreamRequest) (*pb.DescribeStreamResponse, error) {
	t, shards, err := s.stream(req.GetStreamId())
	if err != nil {
		return nil, err
	}
	if req.ShardLimit != nil && req.GetShardLimit() < 1 {
		return nil, wire.Invalid("The shard limit must be greater than 0.")
	}
	if req.InclusiveStartShardId != nil {
		first := indexOfShard(shards, req.GetInclusiveStartShardId())
		if first < 0 {
			return nil, errNoShard()
		}
		shards = shards[first:]
	}
	info := t.Stream()
	resp := &pb.DescribeStreamResponse{
		StreamId:       &info.StreamID,
		ExpirationTime: pointer(int32(info.Expiration / time.Hour)),
		TableName:      pointer(t.Schema().Name),
		CreationTime:   pointer(info.EnabledAt.UnixMicro()),
		StreamStatus:   pointer(pb.StreamStatus_STREAM_ACTIVE),
	}
	if limit := int(req.GetShardLimit()); limit > 0 && limit < len(shards) {
		resp.NextShardId = &shards[limit].ID
		shards = shards[:limit]
	}
	for _, sh := range shards {
		msg := &pb.StreamShard{ShardId: &sh.ID}
		if len(sh.Parents) > 0 {
			msg.ParentId = &sh.Parents[0]
		}
		if len(sh.Parents) > 1 {
			msg.ParentSiblingId = &sh.Parents[1]
		}
		resp.Shards = append(resp.Shards, msg)
	}
	return resp, nil
}

func indexOfShard(shards []tunnels.Shard, id string) int {
	return slices.IndexFunc(shards, func(sh tunnels.Shard) bool { return sh.ID == id })
}

func errNoShard() error {
	return wire.Errorf(wire.CodeObjectNotExist, "Requested shard does not exist.")
}

// getShardIterator finds any time at once, so it never answers with a token for
// continuing, and accepts none.
func (s *Service) getShardIterator(req *pb.GetShardIteratorRequest) (*pb.GetShardIteratorResponse, error) {
	t, shards, err := s.stream(req.GetStreamId())
	if err != nil {
		return nil, err
	}
	if indexOfShard(shards, req.GetShardId()) < 0 {
		return nil, errNoShard()
	}
	if req.GetToken() != "" {
		return nil, wire.Invalid("Invalid token: '%.64s'.", req.GetToken())
	}
	var from time.Time // zero: the oldest record
	if req.Timestamp != nil {
		if req.GetTimestamp() < 0 {
			return nil, wire.Invalid("Invalid timestamp: %d.", req.GetTimestamp())
		}
		from = time.UnixMicro(req.GetTimestamp())
	}
	offset, _, err := s.store.SeekShard(t.ID(), req.GetShardId(), from)
	if err != nil {
		return nil, err
	}
	it := iterator{stream: req.GetStreamId(), shard: req.GetShardId(), offset: offset}
	return &pb.GetShardIteratorResponse{ShardIterator: pointer(it.String())}, nil
}

// iterator is a position in a shard's log. To clients it is opaque text.
type iterator struct {
	stream, shard string
	offset        int64
}

func (it iterator) String() string {
	return base64.RawURLEncoding.EncodeToString([]byte(it.stream + "\t" + it.shard + "\t" + strconv.FormatInt(it.offset, 10)))
}

func parseIterator(text string) (it iterator, err error) {
	b, err := base64.RawURLEncoding.DecodeString(text)
	parts := strings.Split(string(b), "\t")
	if err == nil && len(parts) == 3 {
		it.stream, it.shard = parts[0], parts[1]
		it.offset, err = strconv.ParseInt(parts[2], 10, 64)
	}
	if err != nil || len(parts) != 3 || it.offset < 0 {
		return it, wire.Invalid("Invalid shard iterator: '%.64s'.", text)
	}
	return it, nil
}

// getStreamRecord is an operation. It copies records from the log, which holds
// them in the form that both this response and the tunnel API's have.
//
// A full page says that more records may follow, whether there are any or not:
// the Java SDK's tests (APITest.testStreamWithMayMoreRecord) expect this for a
// last page. The iterator in the response equals that of the request if there
// was nothing to read, and is missing where the shard ends: the SDKs' tests and
// DataX's stream reader rely on both.
func (s *Service) getStreamRecord(body, dst []byte) ([]byte, error) {
	var req pb.GetStreamRecordRequest
	if err := proto.Unmarshal(body, protoadapt.MessageV2Of(&req)); err != nil {
		return dst, errProtobuf(err)
	}
	it, err := parseIterator(req.GetShardIterator())
	switch {
	case err != nil:
		return dst, err
	case req.Limit != nil && req.GetLimit() < 1:
		return dst, wire.Invalid("The limit must be greater than 0.")
	case asksForMore(&req):
		return dst, wire.Errorf(wire.CodeUnsupportOperation, "Unsupported operation: 'GetStreamRecord' with new rows or system columns.")
	}
	limit := maxStreamRecords
	if req.Limit != nil {
		limit = min(limit, int(req.GetLimit()))
	}
	t, shards, err := s.stream(it.stream)
	if t == nil || err == nil && indexOfShard(shards, it.shard) < 0 {
		return dst, errTrimmed()
	}
	if err != nil {
		return dst, err
	}
	if req.TableName != nil && req.GetTableName() != t.Schema().Name {
		return dst, wire.Invalid("The shard iterator is not of table '%s'.", req.GetTableName())
	}
	page, err := s.store.ReadShard(dst, t.ID(), it.shard, it.offset, time.Time{}, limit, maxStreamBytes)
	switch {
	case err != nil:
		return dst, err
	case page.Trimmed:
		return dst, errTrimmed()
	}
	rest := &pb.GetStreamRecordResponse{
		Consumed:      consumed(units(len(page.Data)-len(dst)), 0),
		MayMoreRecord: pointer(!page.End && (page.More || page.Records == limit)),
	}
	if !page.End {
		it.offset = page.Next
		rest.NextShardIterator = pointer(it.String())
	}
	out, err := proto.MarshalOptions{}.MarshalAppend(page.Data, protoadapt.MessageV2Of(rest))
	if err != nil {
		return dst, wire.Errorf(wire.CodeInternalServerError, "encoding the response: %v", err)
	}
	return out, nil
}

func errTrimmed() error {
	return wire.Errorf(wire.CodeTrimmedDataAccess, "Requested stream data is already trimmed or does not exist.")
}
