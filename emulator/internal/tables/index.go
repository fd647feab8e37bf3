package tables

import (
	pb "github.com/aliyun/aliyun-tablestore-go-sdk/tablestore/otsprotocol"

	"github.com/watermill-ots/watermill-ots/emulator/internal/store"
)

func indexMeta(msg *pb.IndexMeta) store.IndexMeta {
	return store.IndexMeta{
		Name: msg.GetName(), Key: msg.GetPrimaryKey(), Defined: msg.GetDefinedColumn(),
		Local: msg.GetIndexType() == pb.IndexType_IT_LOCAL_INDEX, Sync: msg.GetIndexUpdateMode() == pb.IndexUpdateMode_IUM_SYNC_INDEX,
	}
}

// indexMessage describes an index, which is always up to date.
func indexMessage(m store.IndexMeta) *pb.IndexMeta {
	msg := &pb.IndexMeta{
		Name: &m.Name, PrimaryKey: m.Key, DefinedColumn: m.Defined,
		IndexUpdateMode: pointer(pb.IndexUpdateMode_IUM_ASYNC_INDEX), IndexType: pointer(pb.IndexType_IT_GLOBAL_INDEX),
		IndexSyncPhase: pointer(pb.IndexSyncPhase_ISP_INCR),
	}
	if m.Local {
		msg.IndexType = pointer(pb.IndexType_IT_LOCAL_INDEX)
	}
	if m.Sync {
		msg.IndexUpdateMode = pointer(pb.IndexUpdateMode_IUM_SYNC_INDEX)
	}
	return msg
}

func (s *Service) createIndex(req *pb.CreateIndexRequest) (*pb.CreateIndexResponse, error) {
	if err := store.CheckTableName(req.GetMainTableName()); err != nil {
		return nil, err
	}
	return &pb.CreateIndexResponse{}, s.store.CreateIndex(req.GetMainTableName(), indexMeta(req.GetIndexMeta()), req.GetIncludeBaseData())
}

func (s *Service) dropIndex(req *pb.DropIndexRequest) (*pb.DropIndexResponse, error) {
	for _, name := range []string{req.GetMainTableName(), req.GetIndexName()} {
		if err := store.CheckTableName(name); err != nil {
			return nil, err
		}
	}
	return &pb.DropIndexResponse{}, s.store.DropIndex(req.GetMainTableName(), req.GetIndexName())
}
