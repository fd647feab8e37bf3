package subscriber

import (
	"fmt"
	"time"

	"github.com/aliyun/aliyun-tablestore-go-sdk/tunnel"
)

// Trouble is one kind of call of a subscription that fails without success: of
// all tunnel clients, of all channels, or of a channel that will not heal by
// waiting. A single failure that a retry mends is over before it is of interest,
// so look at Since.
type Trouble struct {
	Op    string    `json:"op"`    // "connect", "heartbeat", "readrecords", "checkpoint" or "BatchGetRow" (Config.Lookup); of a start "describe" or "create"; "recreate" while OnGapRecreate replaces the tunnel
	Since time.Time `json:"since"` // when the first call without a success since was made

	Failing int `json:"failing"` // clients, or channels
	Of      int `json:"of"`

	Cause string `json:"cause"` // in words, such as "the service refuses the credentials"
	Code  string `json:"code"`  // as in ErrorCount
	Error string `json:"error"` // of the last call
}

// String says what fails and why, in one sentence.
func (t Trouble) String() string {
	who := "channels"
	what := map[string]string{"describe": "the start fails", "create": "the start fails", "connect": "connecting fails", "heartbeat": "heartbeats fail", "readrecords": "reads fail", "checkpoint": "checkpoints fail", opLookup: "lookups of rows fail", opRecreate: "the tunnel cannot continue"}[t.Op]
	if t.Op == "connect" || t.Op == "heartbeat" {
		who = "clients"
	}
	if t.Op == "describe" || t.Op == "create" {
		who = "starts"
	}
	if t.Op == opRecreate {
		who = "tunnels"
	}
	text := fmt.Sprintf("%s (%d of %d %s): %s", what, t.Failing, t.Of, who, t.Cause)
	if t.Error != "" {
		text += ": " + t.Error
	}
	return text
}

// causes says in words what codes of failed calls mean.
var causes = map[string]string{
	codeNetwork:                    "the service cannot be reached",
	codeTimeout:                    "the service does not answer in time",
	codeCredentials:                "the credentials provider gives no credentials",
	codeMalformed:                  "the service's answers do not decode",
	tunnel.ErrCodeTunnelExpired:    "the tunnel has expired: what it has yet to read is older than what the stream keeps, and lost",
	tunnel.ErrCodeParamInvalid:     "the service does not know the channel or its position any more",
	tunnel.ErrCodeResourceGone:     "the service does not know the client any more",
	tunnel.ErrCodeSequenceNotMatch: "another client has stored a checkpoint",
}

// causeOf says in words why a call failed.
func causeOf(code string) string {
	if c, ok := causes[code]; ok {
		return c
	}
	switch classifyCode(code) {
	case auth:
		return "the service refuses the credentials"
	case throttled:
		return "the service throttles the calls"
	case fatal:
		return "the table or the tunnel is gone"
	}
	return "the service fails"
}

// callSum adds up the callers, channels or clients, whose calls of one kind fail.
type callSum struct {
	failing, of int
	alone       int // of the failing ones: those that count although others succeed
	since       time.Time
	last        *Failure
}

// add adds a caller that fails since then, or one that does not.
func (c *callSum) add(since time.Time, last *Failure, alone bool) {
	c.of++
	if since.IsZero() {
		return
	}
	c.failing++
	if alone {
		c.alone++
	}
	if c.since.IsZero() || since.Before(c.since) {
		c.since = since
	}
	if last != nil && (c.last == nil || last.Time.After(c.last.Time)) {
		c.last = last
	}
}

// trouble returns what the sum says, nil if that is nothing to speak of: some succeed,
// and those that fail may heal by themselves.
func (c *callSum) trouble(op, fallback string) *Trouble {
	if c.failing == 0 || c.failing < c.of && c.alone == 0 {
		return nil
	}
	t := &Trouble{Op: op, Since: c.since, Failing: c.failing, Of: c.of, Code: fallback}
	if c.last != nil {
		t.Code, t.Error = c.last.Code, c.last.Error
	}
	t.Cause = causeOf(t.Code)
	return t
}

// disconnectedSince is when a client of the subscription was last known to the service.
func (st *SubscriptionStatus) disconnectedSince() time.Time {
	since := st.Started
	for _, c := range st.Clients {
		if c.LastHeartbeat.After(since) {
			since = c.LastHeartbeat
		}
	}
	return since
}
