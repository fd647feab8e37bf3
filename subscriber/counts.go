package subscriber

import "sync/atomic"

// counter names one thing that is counted. Effects stand before their causes,
// and are read in this order: so no snapshot has more acked than delivered, or
// more delivered for the first time than read.
type counter uint8

const (
	countAcked counter = iota
	countSkipped
	countNacked
	countRefused
	countCalledBack
	countAbandoned
	countRedelivered
	countFirstDelivered // not Redelivered
	countRecords
	countBytes
	countReadsFull
	countReadsPartial
	countReadsEmpty
	countReadsFailed
	countCheckpoints
	countCheckpointsFailed
	countFinished
	countClosed
	countLost
	countRebalances
	countDrains
	countOpened
	countHeartbeats
	countHeartbeatsFailed
	countReconnects
	countConnects
	countRecreations
	countRowsGone
	countRowsLookedUp
	countLookupUnits
	countLookups
	counters
)

// counts are the counters of one channel or one session. Any goroutine may add; Status
// sums them up.
type counts [counters]atomic.Uint64

func (c *counts) inc(n counter) { c[n].Add(1) }

func (c *counts) add(n counter, by int) {
	if by != 0 {
		c[n].Add(uint64(by))
	}
}

// tally is a sum of counts.
type tally [counters]uint64

func (t *tally) addCounts(c *counts) {
	for n := range c {
		t[n] += c[n].Load()
	}
}

func (t *tally) add(o *tally) {
	for n := range o {
		t[n] += o[n]
	}
}

// totals gives the sums their names.
func (t *tally) totals() Totals {
	return Totals{
		RecordsRead: t[countRecords], BytesRead: t[countBytes],
		ReadsFull: t[countReadsFull], ReadsPartial: t[countReadsPartial], ReadsEmpty: t[countReadsEmpty], ReadsFailed: t[countReadsFailed],
		Delivered: t[countFirstDelivered] + t[countRedelivered], Redelivered: t[countRedelivered],
		Acked: t[countAcked], Skipped: t[countSkipped], Nacked: t[countNacked], Refused: t[countRefused], CalledBack: t[countCalledBack], Abandoned: t[countAbandoned],
		Checkpoints: t[countCheckpoints], CheckpointsFailed: t[countCheckpointsFailed],
		ChannelsOpened: t[countOpened], ChannelsFinished: t[countFinished], ChannelsClosed: t[countClosed], ChannelsLost: t[countLost],
		Rebalances: t[countRebalances], Drains: t[countDrains],
		Connects: t[countConnects], Reconnects: t[countReconnects], Heartbeats: t[countHeartbeats], HeartbeatsFailed: t[countHeartbeatsFailed],
		Recreations: t[countRecreations],
		Lookups:     t[countLookups], RowsLookedUp: t[countRowsLookedUp], RowsGone: t[countRowsGone], LookupUnits: t[countLookupUnits],
	}
}
