package verify

// check is one thing that is true of the service, or not.
type check struct {
	name   string
	proves string // an assumption's or a law's id, or "doc": a documented limit
	says   string // empty for an assumption, which has a statement
	// run returns nil if it holds, refuted or skipped; any other error leaves it undecided.
	run func(*probe) error
}

// Check describes a check.
type Check struct{ Name, Proves, Says string }

// Checks returns all checks, in the order of the report.
func Checks() []Check {
	all := make([]Check, len(checks))
	for i, c := range checks {
		all[i] = Check{Name: c.name, Proves: c.proves, Says: c.says}
	}
	return all
}

// checks are all checks, in the order of the report. The slow ones come first, so that the
// others run beside them.
var checks = withStatements([]check{
	{name: "timeout-counts-from-heartbeat", proves: "A14", run: timeoutCountsFromHeartbeat},
	{name: "shutdown-frees-channels", proves: "A16", run: shutdownFreesChannels},
	{name: "pages-are-bounded", proves: "A13", run: pagesAreBounded},
	{name: "stored-token-ends", proves: "A1", run: storedTokenEnds},
	{name: "late-report-is-ignored", proves: "A2", run: lateReportIsIgnored},
	{name: "older-report-is-ignored", proves: "A3", run: olderReportIsIgnored},
	{name: "sequence-number-is-exact", proves: "A4", run: sequenceNumberIsExact},
	{name: "loser-cannot-store", proves: "A5", run: loserCannotStore},
	{name: "checkpoint-may-go-back", proves: "A6", run: checkpointMayGoBack},
	{name: "second-read-is-equal", proves: "A7", run: secondReadIsEqual},
	{name: "sequence-is-kept", proves: "A8", run: sequenceIsKept},
	{name: "times-are-microseconds", proves: "A9", run: timesAreMicroseconds},
	{name: "older-token-is-good", proves: "A10", run: olderTokenIsGood},
	{name: "finished-can-be-read", proves: "A11", run: finishedCanBeRead},
	{name: "read-needs-a-client", proves: "A12", run: readNeedsAClient},
	{name: "heartbeats-may-be-close", proves: "A15", run: heartbeatsMayBeClose},
	{name: "long-tag-is-taken", proves: "A17", run: longTagIsTaken},
	{name: "deleted-tunnel-is-told", proves: "A18", run: deletedTunnelIsTold},
	{name: "stream-waits-for-base", proves: "A19", run: streamWaitsForBase},
	{name: "children-wait-for-parent", proves: "A20", run: childrenWaitForParent},
	{name: "stream-begins-at-creation", proves: "A21", run: streamBeginsAtCreation},
	{name: "ended-channels-are-listed", proves: "A22", run: endedChannelsAreListed},
	{name: "access-time-is-last-read", proves: "A23", run: accessTimeIsLastRead},
	{name: "clock-may-be-off", proves: "A24", run: clockMayBeOff},
	{name: "wrong-keys-are-told", proves: "A25", run: wrongKeysAreTold},
	{name: "delete-minds-the-id", proves: "A29", run: deleteMindsTheID},
	{name: "create-time-grows", proves: "A30", run: createTimeGrows},
	{name: "row-images", proves: "A31", run: rowImages},
	{name: "cells-apply-in-order", proves: "A46", run: cellsApplyInOrder},
	{name: "unknown-channel-is-told", proves: "A32", run: unknownChannelIsTold},
	{name: "terminated-needs-the-end", proves: "A33", run: terminatedNeedsTheEnd},
	{name: "largest-value-is-whole", proves: "doc", says: "A column of 2 MiB comes through a tunnel whole, and a larger one is refused.", run: largestValueIsWhole},
	{name: "retention-is-as-asked", proves: "doc", says: "A stream keeps its log for the hours that were asked for.", run: retentionIsAsAsked},
	{name: "nothing-is-lost", proves: "L1", says: "Every change is handled, also if a consumer dies.", run: nothingIsLost},
	{name: "repeats-have-equal-ids", proves: "L2", says: "A record that is redelivered has the same UUID.", run: repeatsHaveEqualIDs},
	{name: "order-holds-per-key", proves: "L3", says: "Changes of a key are handled in order, one at a time.", run: orderHoldsPerKey},
	{name: "one-owner-at-a-time", proves: "L4", says: "When a second consumer joins or takes over, no record is with both.", run: oneOwnerAtATime},
	{name: "checkpoint-is-never-ahead", proves: "L5", says: "What was not acked is delivered to the next consumer.", run: checkpointIsNeverAhead},
	{name: "window-is-bounded", proves: "L6", says: "Without acks no more than MaxInFlight and a page are delivered.", run: windowIsBounded},
	{name: "close-stores-what-was-acked", proves: "L7", says: "After Close the next consumer gets nothing that was acked.", run: closeStoresWhatWasAcked},
	{name: "one-bad-row-is-one-letter", proves: "L8", says: "One bad row of twenty becomes one dead letter, and the others are handled.", run: oneBadRowIsOneLetter},
	{name: "an-outage-makes-no-letters", proves: "L9", says: "An outage of the sink makes no dead letters.", run: anOutageMakesNoLetters},
})

// withStatements gives checks of assumptions their statements.
func withStatements(all []check) []check {
	says := make(map[string]string, len(Assumptions))
	for _, a := range Assumptions {
		says[a.ID] = a.Statement
	}
	for i := range all {
		if all[i].says == "" {
			all[i].says = says[all[i].proves]
		}
	}
	return all
}
