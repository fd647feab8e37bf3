//go:build sdk_1_7_17

package tables

import pb "github.com/aliyun/aliyun-tablestore-go-sdk/tablestore/otsprotocol"

// asksForMore is always false: version 1.7.17 of the SDK lacks the fields.
func asksForMore(*pb.GetStreamRecordRequest) bool { return false }
