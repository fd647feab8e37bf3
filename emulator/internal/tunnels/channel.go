package tunnels

// Status is where a channel is in its life, in the words that DescribeTunnel
// uses. Java parses them strictly.
type Status string

// The statuses of a stored channel. CLOSE exists only as a client's report: it
// frees the channel, which then waits.
const (
	StatusWait       Status = "WAIT"
	StatusOpen       Status = "OPEN"
	StatusClosing    Status = "CLOSING"
	StatusTerminated Status = "TERMINATED"
)

// Types of a channel, as DescribeTunnel writes them.
const (
	channelTypeBase   = "BaseData"
	channelTypeStream = "Stream"
)

// baseChannelPrefix begins the id of every base channel: the official Go SDK
// looks at it when a token says nothing.
const baseChannelPrefix = "BaseData_"

// channelRecord is what is saved of a channel.
type channelRecord struct {
	TunnelID string
	ID       string // a stream channel's is its shard's
	Order    int    // position in the tunnel

	Base       bool
	Start, End []byte   // key range of a base channel, nil: unbounded
	Parents    []string // of a stream channel

	Status    Status
	Version   int64
	Owner     string // client id
	Suspended bool   // by schedule: not handed out until it is opened again

	// The checkpoint: the token and its number change together.
	Token    string
	Sequence int64

	// What the checkpoint stands for.
	Count int64 // records consumed
	RPO   int64 // point in time up to which the log is consumed, ns since 1970; zero for base channels

	// The owner has been handed the finish token, which itself says nothing of
	// what was read by then.
	FinishServed bool
	EndCount     int64
	EndRPO       int64
}

// channel is a channel of a tunnel, whose mutex guards it.
type channel struct {
	channelRecord

	avoid string // client that a forced rebalance wants to move the channel away from

	// Statistics, not saved: the position of the last read.
	accessTime int64 // ns since 1970
	readCount  int64
	readRPO    int64
	served     int64 // records answered, repetitions included
}

func (c *channel) kind() string {
	if c.Base {
		return channelTypeBase
	}
	return channelTypeStream
}

// shown is the status as descriptions tell it: a suspended channel stays
// CLOSING there even when nobody holds it, which is how programs find
// the channels to resume.
func (c *channel) shown() Status {
	if c.Suspended && c.Status == StatusWait {
		return StatusClosing
	}
	return c.Status
}

// finished reports whether the owner may know that it has reached the end.
func (c *channel) finished() bool { return c.FinishServed || c.Token == finishToken }
