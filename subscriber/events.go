package subscriber

import (
	"fmt"
	"strconv"
	"time"
)

// PhaseKind is what a Phase tells of.
type PhaseKind uint8

// The kinds of phases.
const (
	// ChannelOpened: this subscription reads the channel now.
	ChannelOpened PhaseKind = iota + 1
	// StreamStarted: the base data of a BaseAndStream tunnel is done: every row
	// was delivered and acked, by this or another consumer of the tunnel. It
	// comes once for a subscription and tunnel, before the first change is delivered: the
	// moment for a sink to switch from bulk load to upserts, and with OnGapRecreate to delete the rows
	// of older snapshots.
	StreamStarted
	// ChannelFinished: the channel was read to its end, everything of it is
	// acked, and that is stored. A base data channel ends with its rows, a stream
	// channel when its partition was split or merged: others follow.
	ChannelFinished
)

// String returns "channel opened", "stream started" or "channel finished".
func (k PhaseKind) String() string {
	switch k {
	case ChannelOpened:
		return "channel opened"
	case StreamStarted:
		return "stream started"
	case ChannelFinished:
		return "channel finished"
	}
	return "PhaseKind(" + strconv.Itoa(int(k)) + ")"
}

// Phase is a turn in the life of a subscription, told to Config.OnPhase.
type Phase struct {
	Kind    PhaseKind
	Topic   string
	Channel string
	Base    bool // the channel is one of base data

	// Snapshot is the MetadataSnapshot of the tunnel's messages; empty with OnGapFail.
	Snapshot string
}

// AlarmKind is what an Alarm tells of.
type AlarmKind uint8

// The kinds of alarms.
const (
	// HandlerStuck: a message was neither acked nor nacked for StuckAfter. Its
	// key, and the checkpoint, stand still.
	HandlerStuck AlarmKind = iota + 1
	// OutputStuck: the next message was not taken from the output for StuckAfter.
	OutputStuck
	// RetentionNear: the oldest record that is not acked will soon be older than
	// what the table's stream keeps. A consumer that falls behind further loses
	// records without another word from the service: the checkpoint then points
	// to a part of the log that is gone.
	RetentionNear
	// Gap: changes are lost, because the stream's log was trimmed before they were
	// read. The subscription ends with a *GapError, or with OnGapRecreate a Recreate alarm follows.
	Gap
	// Recreate: the tunnel cannot continue, for the reason in Err. OnGapRecreate recreates
	// it, and all rows are delivered again.
	Recreate
)

// String returns "handler stuck", "output stuck", "retention near", "gap" or "recreate".
func (k AlarmKind) String() string {
	switch k {
	case HandlerStuck:
		return "handler stuck"
	case OutputStuck:
		return "output stuck"
	case RetentionNear:
		return "retention near"
	case Gap:
		return "gap"
	case Recreate:
		return "recreate"
	}
	return "AlarmKind(" + strconv.Itoa(int(k)) + ")"
}

// Alarm is something that a person should look at, told to Config.OnAlarm and
// to the log as an error.
type Alarm struct {
	Kind    AlarmKind
	Topic   string
	Channel string
	Key     string // primary key of the record, as a JSON array; of the oldest one if there are more
	Attempt int    // of the delivery that is stuck
	// Count is how many messages of the channel are stuck, for HandlerStuck; else 1.
	Count int
	// Keys are those of the oldest of them, at most five, with Key the first.
	Keys []string
	// Age is how long the message is with its handler or waits to be taken; for
	// RetentionNear, how long ago the record was written.
	Age time.Duration
	// Retention is how long the stream keeps records, for RetentionNear.
	Retention time.Duration
	// Err is why the tunnel cannot continue, for Recreate.
	Err error
	// Stacks are the stacks of the goroutines that run handlers, for HandlerStuck: of
	// the Router's, of those of Subscriber.Handle, and of batch handlers; without any, those of the
	// program. Each stack is there once, with the number of goroutines that have it; at most 64 KiB.
	Stacks string
}

// Error makes an Alarm usable as an error.
func (a *Alarm) Error() string {
	switch a.Kind {
	case Recreate:
		return fmt.Sprintf("%s: %s: the tunnel is recreated, and all rows are delivered again: %v", a.Topic, a.Kind, a.Err)
	case Gap:
		return fmt.Sprintf("%s channel %s: %s: changes are lost, the stream does not keep them any more", a.Topic, a.Channel, a.Kind)
	}
	s := fmt.Sprintf("%s channel %s: %s: record %s", a.Topic, a.Channel, a.Kind, a.Key)
	switch a.Kind {
	case HandlerStuck:
		if a.Count > 1 {
			return fmt.Sprintf("%s channel %s: %s: %d records are with their handlers for too long, the oldest, %s, for %v (attempt %d)",
				a.Topic, a.Channel, a.Kind, a.Count, a.Key, a.Age.Round(time.Millisecond), a.Attempt)
		}
		return s + fmt.Sprintf(" is with its handler for %v (attempt %d)", a.Age.Round(time.Millisecond), a.Attempt)
	case OutputStuck:
		return s + fmt.Sprintf(" waits to be taken from the output for %v", a.Age.Round(time.Millisecond))
	case RetentionNear:
		return s + fmt.Sprintf(" was written %v ago and is not acked; the stream keeps records for %v", a.Age.Round(time.Second), a.Retention)
	}
	return s
}

// Acked is the ack of one message, told to Config.OnAck.
type Acked struct {
	Instance string
	Topic    string
	Attempt  int           // of the delivery that was acked, from 1
	Changed  time.Time     // when the record was written, by the service's clock; zero for base data
	Delay    time.Duration // from then to the ack, not negative; 0 for base data
	Handling time.Duration // from the offer of the message to the output until its ack was seen, which may be 2 ms late
}
