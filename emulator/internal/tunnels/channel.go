package tunnels

// Status is the status of a channel, in DescribeTunnel's words. The Java SDK
// parses them strictly.
type Status string

// The statuses of a stored channel. CLOSE exists only in a client's report: it
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

// baseChannelPrefix begins the id of every base channel. The official Go SDK
// checks it when a token does not say what the channel is.
const baseChannelPrefix = "BaseData_"

// channelRecord is the saved form of a channel.
type channelRecord struct {
	TunnelID string
	ID       string // of a stream channel: its shard's id
	Order    int    // position in the tunnel

	Base       bool
	Start, End []byte   // key range of a base channel, nil: unbounded
	Parents    []string // of a stream channel

	Status    Status
	Version   int64
	Owner     string // client id
	Suspended bool   // by schedule: not assigned until it is opened again

	// The checkpoint: the token and its sequence number change together.
	Token    string
	Sequence int64

	// The position of the checkpoint.
	Count int64 // records consumed
	RPO   int64 // point in time up to which the log is consumed, ns since 1970; zero for base channels

	// Whether the owner was given the finish token, which itself does not say
	// what had been read by then.
	FinishServed bool
	EndCount     int64
	EndRPO       int64
}

// channel is a channel of a tunnel, whose mutex guards it.
type channel struct {
	channelRecord

	avoid string // client from which a forced rebalance moves the channel away

	// Statistics, not saved: the position of the last read.
	accessTime int64 // ns since 1970
	readCount  int64
	readRPO    int64
	served     int64 // records served, repeated reads included

	reads otherReads // for behaviours that are not the default
}

func (c *channel) kind() string {
	if c.Base {
		return channelTypeBase
	}
	return channelTypeStream
}

// shown is the status in descriptions: a suspended channel stays CLOSING there
// even if it has no owner, which is how programs find the channels to resume.
func (c *channel) shown() Status {
	if c.Suspended && c.Status == StatusWait {
		return StatusClosing
	}
	return c.Status
}

// finished reports whether the owner can know that it has reached the end.
func (c *channel) finished() bool { return c.FinishServed || c.Token == finishToken }
