package tables

import (
	"math"
	"slices"
	"time"

	pb "github.com/aliyun/aliyun-tablestore-go-sdk/tablestore/otsprotocol"
	"google.golang.org/protobuf/encoding/protowire"
	"google.golang.org/protobuf/protoadapt"

	"github.com/watermill-ots/watermill-ots/emulator/internal/store"
	"github.com/watermill-ots/watermill-ots/emulator/internal/wire"
	"github.com/watermill-ots/watermill-ots/internal/plainbuffer"
)

// Defaults for table options that a request leaves out.
const (
	defaultTTL         = -1
	defaultMaxVersions = 1
	defaultDeviation   = 24 * 60 * 60 // seconds
)

const (
	// minSplitUnit is the smallest unit (bytes) in which ComputeSplitPointsBySize counts.
	minSplitUnit = 1 << 20

	// location names the machine that holds a part of a table, here always the
	// same. The service's names have 32 characters.
	location = "00000000000000000000000000000001"
)

// Limits of the partitions in a CreateTable, as the Java SDK's SplitPointTest has
// them. SplitAt and seed files are not bound by them.
const (
	maxPartitions     = 10
	maxPartitionValue = 64 // bytes of a string or binary
)

var keyKinds = map[pb.PrimaryKeyType]plainbuffer.Kind{
	pb.PrimaryKeyType_INTEGER: plainbuffer.Integer,
	pb.PrimaryKeyType_STRING:  plainbuffer.String,
	pb.PrimaryKeyType_BINARY:  plainbuffer.Binary,
}

func (s *Service) createTable(req *pb.CreateTableRequest) (*pb.CreateTableResponse, error) {
	meta := req.GetTableMeta()
	units := req.GetReservedThroughput().GetCapacityUnit()
	schema := store.Schema{
		Name:       meta.GetTableName(),
		Defined:    definedColumns(meta.GetDefinedColumn()),
		Options:    applyOptions(store.Options{TTL: defaultTTL, MaxVersions: defaultMaxVersions, Deviation: defaultDeviation, AllowUpdate: true}, req.GetTableOptions()),
		ReadUnits:  units.GetRead(),
		WriteUnits: units.GetWrite(),

		LocalTransactions: s.rules.localTransactions(req),
	}
	for _, c := range meta.GetPrimaryKey() {
		kind, ok := keyKinds[c.GetType()]
		if !ok {
			return nil, wire.Invalid("Primary key column '%s' has an unknown type.", c.GetName())
		}
		schema.Key = append(schema.Key, store.KeyColumn{
			Name: c.GetName(), Kind: kind,
			AutoIncrement: c.Option != nil && c.GetOption() == pb.PrimaryKeyOption_AUTO_INCREMENT,
		})
	}
	splits, err := partitionStarts(req.GetPartitions(), schema.Key)
	if err != nil {
		return nil, err
	}
	var indexes []store.IndexMeta
	for _, msg := range append(req.GetIndexMetas(), meta.GetIndexMeta()...) {
		indexes = append(indexes, indexMeta(msg))
	}
	if err := s.store.CreateTable(schema, streamSpec(req.GetStreamSpec()), splits, indexes...); err != nil {
		return nil, err
	}
	return &pb.CreateTableResponse{}, nil
}

// partitionStarts returns the sorted bounds of the ranges, without infinities.
func partitionStarts(ranges []*pb.PartitionRange, key []store.KeyColumn) ([]plainbuffer.Value, error) {
	if len(ranges) > maxPartitions {
		return nil, wire.Invalid("The count of partitions cannot be greater than %d", maxPartitions)
	}
	var starts []plainbuffer.Value
	for _, r := range ranges {
		for _, b := range [][]byte{r.GetBegin(), r.GetEnd()} {
			v, err := plainbuffer.DecodeVariant(b)
			if err != nil {
				return nil, wire.Invalid("Invalid partition range: %v.", err)
			}
			if v.Kind() == plainbuffer.InfMin || v.Kind() == plainbuffer.InfMax {
				continue
			}
			if err := checkPartitionValue(v, key); err != nil {
				return nil, err
			}
			starts = append(starts, v)
		}
	}
	slices.SortFunc(starts, plainbuffer.Value.Compare)
	return slices.CompactFunc(starts, plainbuffer.Value.Equal), nil
}

func checkPartitionValue(v plainbuffer.Value, key []store.KeyColumn) error {
	if len(key) > 0 && v.Kind() != key[0].Kind {
		return wire.Invalid("The value type of partition does not match with primary key.")
	}
	switch v.Kind() {
	case plainbuffer.Integer:
		if v.Integer() == math.MinInt64 || v.Integer() == math.MaxInt64 {
			return wire.Invalid("The value of partition range can not be INT64_MIN or INT64_MAX.")
		}
	case plainbuffer.String, plainbuffer.Binary:
		switch n := len(v.Str()); {
		case n == 0 && v.Kind() == plainbuffer.String:
			return wire.Invalid("The value of partition range can not be empty string.")
		case n == 0:
			return wire.Invalid("The value of partition range can not be empty binary.")
		case n > maxPartitionValue:
			return wire.Invalid("The value of partition range exceeds the MaxLength:%d with CurrentLength:%d.", maxPartitionValue, n)
		}
	}
	return nil
}

func applyOptions(o store.Options, msg *pb.TableOptions) store.Options {
	if msg == nil {
		return o
	}
	if msg.TimeToLive != nil {
		o.TTL = msg.GetTimeToLive()
	}
	if msg.MaxVersions != nil {
		o.MaxVersions = msg.GetMaxVersions()
	}
	// The Go SDK sends zero for "not set".
	if msg.GetDeviationCellVersionInSec() != 0 {
		o.Deviation = msg.GetDeviationCellVersionInSec()
	}
	if msg.AllowUpdate != nil {
		o.AllowUpdate = msg.GetAllowUpdate()
	}
	if msg.UpdateFullRow != nil {
		o.UpdateFullRow = msg.GetUpdateFullRow()
	}
	return o
}

func streamSpec(msg *pb.StreamSpecification) store.StreamSpec {
	return store.StreamSpec{
		Enabled:    msg.GetEnableStream(),
		Expiration: time.Duration(msg.GetExpirationTime()) * time.Hour,
		Origin:     msg.GetColumnsToGet(),
	}
}

func (s *Service) listTable(*pb.ListTableRequest) (*pb.ListTableResponse, error) {
	return &pb.ListTableResponse{TableNames: s.store.Tables()}, nil
}

func (s *Service) deleteTable(req *pb.DeleteTableRequest) (*pb.DeleteTableResponse, error) {
	if err := store.CheckTableName(req.GetTableName()); err != nil {
		return nil, err
	}
	if err := s.store.DeleteTable(req.GetTableName()); err != nil {
		return nil, err
	}
	return &pb.DeleteTableResponse{}, nil
}

// named checks the name and returns the table with it.
func (s *Service) named(name string) (*store.Table, error) {
	if err := store.CheckTableName(name); err != nil {
		return nil, err
	}
	return s.store.Table(name)
}

func (s *Service) describeTable(req *pb.DescribeTableRequest) (*pb.DescribeTableResponse, error) {
	t, err := s.named(req.GetTableName())
	if err != nil {
		return nil, err
	}
	schema := t.Schema()
	meta := &pb.TableMeta{TableName: &schema.Name}
	for _, c := range schema.Key {
		meta.PrimaryKey = append(meta.PrimaryKey, keySchema(c))
	}
	for _, c := range schema.Defined {
		meta.DefinedColumn = append(meta.DefinedColumn, &pb.DefinedColumnSchema{Name: &c.Name, Type: pointer(pb.DefinedColumnType(c.Type))})
	}
	resp := &pb.DescribeTableResponse{
		TableMeta:                 meta,
		ReservedThroughputDetails: throughput(t),
		TableOptions:              options(schema.Options),
		TableStatus:               pointer(pb.TableStatus_ACTIVE),
		StreamDetails:             streamDetails(t),
		ShardSplits:               t.Bounds(),
	}
	for _, ix := range t.Indexes() {
		resp.IndexMetas = append(resp.IndexMetas, indexMessage(ix))
	}
	// creation_time, in microseconds; the Go SDK's message lacks it.
	created := protowire.AppendTag(nil, 9, protowire.VarintType)
	created = protowire.AppendVarint(created, uint64(t.Created().UnixMicro()))
	protoadapt.MessageV2Of(resp).ProtoReflect().SetUnknown(created)
	return resp, nil
}

func (s *Service) updateTable(req *pb.UpdateTableRequest) (*pb.UpdateTableResponse, error) {
	t, err := s.named(req.GetTableName())
	if err != nil {
		return nil, err
	}
	var opts *store.Options
	if req.GetTableOptions() != nil && req.TableOptions.UpdateFullRow != nil {
		return nil, wire.Invalid("Table options contain updateFullRow, which can't be changed.")
	}
	if req.TableOptions != nil {
		opts = pointer(applyOptions(t.Schema().Options, req.GetTableOptions()))
	}
	var units *[2]int32
	if u := req.GetReservedThroughput().GetCapacityUnit(); u != nil && (u.Read != nil || u.Write != nil) {
		old := t.Schema()
		units = &[2]int32{old.ReadUnits, old.WriteUnits}
		if u.Read != nil {
			units[0] = u.GetRead()
		}
		if u.Write != nil {
			units[1] = u.GetWrite()
		}
	}
	var stream *store.StreamSpec
	if req.StreamSpec != nil {
		stream = pointer(streamSpec(req.GetStreamSpec()))
	}
	if opts == nil && units == nil && stream == nil {
		return nil, wire.Invalid("No attribute to update is set.")
	}
	if err := t.Update(opts, units, stream); err != nil {
		return nil, err
	}
	return &pb.UpdateTableResponse{
		ReservedThroughputDetails: throughput(t),
		TableOptions:              options(t.Schema().Options),
		// The Go SDK reads the details without a nil check.
		StreamDetails: streamDetails(t),
	}, nil
}

func keySchema(c store.KeyColumn) *pb.PrimaryKeySchema {
	msg := &pb.PrimaryKeySchema{Name: &c.Name}
	for wireType, kind := range keyKinds {
		if kind == c.Kind {
			msg.Type = pointer(wireType)
		}
	}
	if c.AutoIncrement {
		msg.Option = pointer(pb.PrimaryKeyOption_AUTO_INCREMENT)
	}
	return msg
}

func options(o store.Options) *pb.TableOptions {
	return &pb.TableOptions{
		TimeToLive: &o.TTL, MaxVersions: &o.MaxVersions, DeviationCellVersionInSec: &o.Deviation, AllowUpdate: &o.AllowUpdate, UpdateFullRow: &o.UpdateFullRow,
	}
}

func throughput(t *store.Table) *pb.ReservedThroughputDetails {
	schema := t.Schema()
	return &pb.ReservedThroughputDetails{
		CapacityUnit:     &pb.CapacityUnit{Read: &schema.ReadUnits, Write: &schema.WriteUnits},
		LastIncreaseTime: pointer(t.Created().Unix()),
	}
}

func streamDetails(t *store.Table) *pb.StreamDetails {
	info := t.Stream()
	if !info.Enabled {
		return &pb.StreamDetails{EnableStream: pointer(false)}
	}
	return &pb.StreamDetails{
		EnableStream:   pointer(true),
		StreamId:       &info.StreamID,
		ExpirationTime: pointer(int32(info.Expiration / time.Hour)),
		LastEnableTime: pointer(info.EnabledAt.UnixMicro()),
		ColumnsToGet:   info.Origin,
	}
}

func (s *Service) computeSplitPointsBySize(req *pb.ComputeSplitPointsBySizeRequest) (*pb.ComputeSplitPointsBySizeResponse, error) {
	t, err := s.named(req.GetTableName())
	if err != nil {
		return nil, err
	}
	// The unit of sizes is 100 MB unless the request says otherwise.
	unit := int64(100 << 20)
	if req.SplitSizeUnitInByte != nil {
		unit = req.GetSplitSizeUnitInByte()
	}
	switch {
	case req.GetSplitSize() < 1:
		return nil, wire.Invalid("The split_size should be greater than 0.")
	case unit < minSplitUnit:
		return nil, wire.Invalid("The split_size_unit_in_byte should be greater equal than: %d", minSplitUnit)
	}
	size := min(req.GetSplitSize(), math.MaxInt64/unit) * unit
	points, err := t.SplitPoints(size, int(req.GetSplitPointLimit()))
	if err != nil {
		return nil, err
	}
	resp := &pb.ComputeSplitPointsBySizeResponse{
		Consumed:    consumed(1, 0),
		SplitPoints: points,
		Locations: []*pb.ComputeSplitPointsBySizeResponse_SplitLocation{
			{Location: pointer(location), Repeat: pointer(int64(len(points) + 1))},
		},
	}
	for _, c := range t.Schema().Key {
		resp.Schema = append(resp.Schema, keySchema(c))
	}
	return resp, nil
}
