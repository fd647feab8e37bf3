package wire

import (
	"maps"
	"slices"
)

// others are codes of the service that statuses does not contain, since their
// status is 400.
var others = []string{
	CodeParameterInvalid, CodeUnsupportOperation, CodeTunnelExpired, CodeSequenceNumberNotMatch, CodeInvalidPK,
	CodeOutOfColumnCountLimit, CodeOutOfRowSizeLimit, CodeDataOutOfRange, CodeSessionNotExist, CodeSessionBusy, CodeOutOfTransactionSize, "OTSClientError", "OTSStorageServerBusy",
}

// Codes returns the codes that the service is known to use, sorted.
func Codes() []string {
	codes := slices.AppendSeq(slices.Clone(others), maps.Keys(statuses))
	slices.Sort(codes)
	return slices.Compact(codes)
}
