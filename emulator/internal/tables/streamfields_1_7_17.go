//go:build sdk_1_7_17

package tables

import pb "github.com/aliyun/aliyun-tablestore-go-sdk/tablestore/otsprotocol"

// asksForMore is false: version 1.7.17 of the SDK has no fields for that.
func asksForMore(*pb.GetStreamRecordRequest) bool { return false }
