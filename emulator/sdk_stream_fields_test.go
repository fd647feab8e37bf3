//go:build !sdk_1_7_17

package emulator_test

import (
	"testing"

	"github.com/aliyun/aliyun-tablestore-go-sdk/tablestore"

	"github.com/watermill-ots/watermill-ots/emulator"
)

func TestStreamRecordsHaveNoNewRows(t *testing.T) {
	s := newSDK(t, start(t, emulator.Options{}), withStream)
	policy := tablestore.WITH_NEW_ROW
	_, err := s.GetStreamRecord(&tablestore.GetStreamRecordRequest{ShardIterator: s.iterator(s.describeStream().Shards[0].SelfShard), NewRowReturnPolicy: &policy})
	expect(t, "new rows", sdkCode(err), "OTSUnsupportOperation")
}
