// Package assume names the ways in which the real service may behave other than
// the emulator does by default. Which one is right is not known, so the
// emulator can play both (emulator.Options.Assume).
package assume

// Names of behaviours. Each is the opposite of an assumption in
// docs/assumptions.md.
const (
	FinishNeedsReport     = "finish-needs-report"
	LateReportRefused     = "late-report-refused"
	OlderReportTaken      = "older-report-taken"
	SequenceMayGrow       = "sequence-may-grow"
	CheckpointOfLoser     = "checkpoint-of-loser"
	CheckpointForwardOnly = "checkpoint-forward-only"
	RereadSkips           = "reread-skips"
	SequencesChange       = "sequences-change"
	Milliseconds          = "milliseconds"
	OldTokensRefused      = "old-tokens-refused"
	FinishedReadRefused   = "finished-read-refused"
	ReadsNeedNoClient     = "reads-need-no-client"
	LargePages            = "large-pages"
	EarlyTimeout          = "early-timeout"
	HeartbeatsThrottled   = "heartbeats-throttled"
	ShutdownHolds         = "shutdown-holds"
	ShortTags             = "short-tags"
	GoneIsUnavailable     = "gone-is-unavailable"
	StreamBeforeBase      = "stream-before-base"
	ChildrenBeforeParents = "children-before-parents"
	StreamAfterBase       = "stream-after-base"
	EndedChannelsHidden   = "ended-channels-hidden"
	NoAccessTime          = "no-access-time"
	StrictClock           = "strict-clock"
	WrongKeysAreInvalid   = "wrong-keys-are-invalid"
	DeleteIgnoresID       = "delete-ignores-id"
	NoCreateTime          = "no-create-time"
	UpdatesHoldMore       = "updates-hold-more"
	UnknownChannelIsGone  = "unknown-channel-is-gone"
	TerminatedIsBelieved  = "terminated-is-believed"
	CellsSorted           = "cells-sorted"
)

// Behaviour is a name and what the emulator does under it.
type Behaviour struct{ Name, Text string }

// All are the behaviours, in the order of docs/assumptions.md.
var All = []Behaviour{
	{FinishNeedsReport, "a channel whose finish token is stored ends only when its client reports TERMINATED"},
	{LateReportRefused, "a heartbeat that reports on a channel which the client does not hold is refused with OTSParameterInvalid"},
	{OlderReportTaken, "a client's report on a channel counts even if its version is not above the stored one"},
	{SequenceMayGrow, "a checkpoint is taken with any sequence number above the stored one"},
	{CheckpointOfLoser, "a checkpoint is taken from any client, whichever one holds the channel"},
	{CheckpointForwardOnly, "a checkpoint that is behind the stored one is refused with OTSParameterInvalid"},
	{RereadSkips, "a second read at a token of a stream leaves out the first record"},
	{SequencesChange, "the sequence of a record is another one at each read"},
	{Milliseconds, "the timestamps of sequences are milliseconds instead of microseconds"},
	{OldTokensRefused, "a read at a token that is neither the checkpoint nor from the last two reads is refused with OTSParameterInvalid"},
	{FinishedReadRefused, "a read at the token finished is refused with OTSParameterInvalid"},
	{ReadsNeedNoClient, "reads are answered whatever client they name"},
	{LargePages, "one read returns up to 8 MiB"},
	{EarlyTimeout, "a client is dropped after half of the timeout that it asked for"},
	{HeartbeatsThrottled, "a heartbeat within a second of the one before is refused with OTSFlowControl"},
	{ShutdownHolds, "the channels of a client that was shut down are free only after its timeout"},
	{ShortTags, "a client's tag of more than 32 bytes is refused with OTSParameterInvalid"},
	{GoneIsUnavailable, "calls for a tunnel that does not exist are answered with OTSTunnelServerUnavailable"},
	{StreamBeforeBase, "the stream's channels are handed out before base data has been read"},
	{ChildrenBeforeParents, "the children of a split are handed out before their parent has been read"},
	{StreamAfterBase, "the stream of a BaseAndStream tunnel begins when it is first read, not at the tunnel's creation"},
	{EndedChannelsHidden, "DescribeTunnel does not list channels that have ended"},
	{NoAccessTime, "GetRpo answers with an AccessTime of zero"},
	{StrictClock, "a request whose date is more than a minute off is refused"},
	{WrongKeysAreInvalid, "a wrong signature is answered with OTSParameterInvalid instead of OTSAuthFailed"},
	{DeleteIgnoresID, "DeleteTunnel looks at table and name only, and not at the tunnel's id"},
	{NoCreateTime, "descriptions of tunnels have a create_time of zero"},
	{UpdatesHoldMore, "the record of an update has a column that the update did not change"},
	{UnknownChannelIsGone, "a call that names an unknown channel is answered with OTSResourceGone"},
	{TerminatedIsBelieved, "a report of TERMINATED ends a channel, whatever has been read of it"},
	{CellsSorted, "the record of an update has the removals of columns before the columns that it wrote"},
}

// Names returns the names of all behaviours.
func Names() []string {
	names := make([]string, len(All))
	for i, b := range All {
		names[i] = b.Name
	}
	return names
}

// Set is a choice of behaviours. The nil Set has none. It is not changed while it
// is used.
type Set map[string]bool

// Of returns the set of these names.
func Of(names []string) Set {
	s := make(Set, len(names))
	for _, name := range names {
		s[name] = true
	}
	return s
}
