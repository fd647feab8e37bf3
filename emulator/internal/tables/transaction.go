package tables

import (
	"slices"

	pb "github.com/aliyun/aliyun-tablestore-go-sdk/tablestore/otsprotocol"

	"github.com/watermill-ots/watermill-ots/emulator/internal/store"
	"github.com/watermill-ots/watermill-ots/emulator/internal/wire"
)

// localTransactions reports whether a new table may use local transactions. The
// Java SDK's tests use them in tables that do not ask for them. Tables with an
// auto-increment column never have them.
func (r rules) localTransactions(req *pb.CreateTableRequest) bool {
	if req.EnableLocalTxn != nil {
		return req.GetEnableLocalTxn()
	}
	auto := slices.ContainsFunc(req.GetTableMeta().GetPrimaryKey(), func(c *pb.PrimaryKeySchema) bool { return c.Option != nil })
	return r.lenient && !auto
}

func (s *Service) startLocalTransaction(req *pb.StartLocalTransactionRequest) (*pb.StartLocalTransactionResponse, error) {
	if err := store.CheckTableName(req.GetTableName()); err != nil {
		return nil, err
	}
	key, err := decodeKey(req.GetKey())
	if err != nil {
		return nil, err
	}
	if len(key) != 1 {
		return nil, wire.Invalid("StartLocalTransaction support only one primary key.")
	}
	t, err := s.store.Table(req.GetTableName())
	if err != nil {
		return nil, err
	}
	id, err := s.store.StartTransaction(t, key)
	if err != nil {
		return nil, err
	}
	return &pb.StartLocalTransactionResponse{TransactionId: &id}, nil
}

func (s *Service) commitTransaction(req *pb.CommitTransactionRequest) (*pb.CommitTransactionResponse, error) {
	return &pb.CommitTransactionResponse{}, s.store.Transaction(req.GetTransactionId(), (*store.Transaction).Commit)
}

func (s *Service) abortTransaction(req *pb.AbortTransactionRequest) (*pb.AbortTransactionResponse, error) {
	return &pb.AbortTransactionResponse{}, s.store.Transaction(req.GetTransactionId(), func(tx *store.Transaction) error {
		tx.Abort()
		return nil
	})
}

// apply makes changes of a table, within the transaction txn unless it is nil.
// size is the amount of data that they write.
func (s *Service) apply(t *store.Table, changes []*store.Change, size int, atomic bool, txn *string) error {
	if txn == nil {
		return t.Apply(changes, atomic)
	}
	return s.store.Transaction(*txn, func(tx *store.Transaction) error { return tx.Apply(t, changes, size, atomic) })
}

// view calls f with a table's rows: what is committed or, if txn is set, what
// that transaction sees.
func (s *Service) view(t *store.Table, txn *string, f func(store.View) error) error {
	if txn == nil {
		return f(t)
	}
	return s.store.Transaction(*txn, func(tx *store.Transaction) error { return f(tx.View(t)) })
}
