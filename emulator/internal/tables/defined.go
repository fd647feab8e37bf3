package tables

import (
	pb "github.com/aliyun/aliyun-tablestore-go-sdk/tablestore/otsprotocol"

	"github.com/watermill-ots/watermill-ots/emulator/internal/store"
	"github.com/watermill-ots/watermill-ots/emulator/internal/wire"
)

// definedColumns converts predefined columns to the store's form.
func definedColumns(msgs []*pb.DefinedColumnSchema) []store.DefinedColumn {
	var columns []store.DefinedColumn
	for _, c := range msgs {
		columns = append(columns, store.DefinedColumn{Name: c.GetName(), Type: int32(c.GetType())})
	}
	return columns
}

func (s *Service) addDefinedColumn(req *pb.AddDefinedColumnRequest) (*pb.AddDefinedColumnResponse, error) {
	t, err := s.named(req.GetTableName())
	if err != nil {
		return nil, err
	}
	if len(req.GetColumns()) == 0 {
		return nil, wire.Invalid("No defined column is specified.")
	}
	return &pb.AddDefinedColumnResponse{}, t.AddDefined(definedColumns(req.GetColumns()))
}

func (s *Service) deleteDefinedColumn(req *pb.DeleteDefinedColumnRequest) (*pb.DeleteDefinedColumnResponse, error) {
	t, err := s.named(req.GetTableName())
	if err != nil {
		return nil, err
	}
	if len(req.GetColumns()) == 0 {
		return nil, wire.Invalid("No defined column is specified.")
	}
	return &pb.DeleteDefinedColumnResponse{}, t.DropDefined(req.GetColumns())
}

// listSearchIndex answers with an empty list, for clean-up code of programs.
func (s *Service) listSearchIndex(req *pb.ListSearchIndexRequest) (*pb.ListSearchIndexResponse, error) {
	if req.TableName != nil {
		if _, err := s.named(req.GetTableName()); err != nil {
			return nil, err
		}
	}
	return &pb.ListSearchIndexResponse{}, nil
}

// listTimeseriesTable answers with an empty list.
func (s *Service) listTimeseriesTable(*pb.ListTimeseriesTableRequest) (*pb.ListTimeseriesTableResponse, error) {
	return &pb.ListTimeseriesTableResponse{}, nil
}
