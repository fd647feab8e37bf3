//go:build !sdk_1_7_17

package tables

import pb "github.com/aliyun/aliyun-tablestore-go-sdk/tablestore/otsprotocol"

// asksForMore reports whether a request wants new rows or system columns, which
// the emulator's log does not have.
func asksForMore(req *pb.GetStreamRecordRequest) bool {
	return req.NewRowReturnPolicy != nil && req.GetNewRowReturnPolicy() != pb.NewRowReturnPolicy_NO_NEW_ROW || req.GetReturnSysColumns()
}
