package subscriber

import (
	"bytes"
	"fmt"
	"io"
	"net/http"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/aliyun/aliyun-tablestore-go-sdk/tunnel/protocol"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/protoadapt"

	"github.com/watermill-ots/watermill-ots/internal/service"
	"github.com/watermill-ots/watermill-ots/internal/tunnelapi"
)

const (
	// Most ticks of the SDK's worker are answered locally, see workerTransport.
	tick = service.Tick

	// burstFirst and burstLength shape the real heartbeats after news: the
	// service often answers a report one heartbeat later (a child channel
	// opens, base data gives way to the stream), so the next ones follow soon,
	// each twice as late as the one before.
	burstFirst  = 250 * time.Millisecond
	burstLength = 4

	// heartbeatTimeout bounds one real heartbeat. It may also take no more than a
	// third of what HeartbeatTimeout leaves after HeartbeatInterval, so that there is
	// time for two more when one gets no answer.
	heartbeatTimeout = 10 * time.Second
	heartbeatTries   = service.HeartbeatTries
	// connectTimeout bounds the call that makes a client known.
	connectTimeout = 10 * time.Second
)

// timing is how often heartbeats are sent, and how long they may fail.
type timing struct {
	interval time.Duration // between two of them without news
	timeout  time.Duration // since the last answered one: then the client counts as lost
	longest  time.Duration // of one heartbeat
}

func newTiming(interval, timeout time.Duration) timing {
	timeout = timeout.Truncate(time.Second) // connect tells the service whole seconds
	timeout -= lossMargin(interval, timeout)
	return timing{interval: interval, timeout: timeout, longest: min(heartbeatTimeout, (timeout-interval)/heartbeatTries)}
}

// beat is what is known of the real heartbeats.
type beat struct {
	ok     time.Time // when the last answered one was sent
	next   time.Time // when the next one is due without news
	report string    // what it reported, in canonical form
	answer []byte    // what the service answered
	listed string    // the channels in that, in canonical form
	burst  int       // how many more follow soon

	failures int
	failing  time.Time // when the first of these was sent
	err      error     // of the last one, nil once one succeeds
	retryAt  time.Time // not before, after a failure
}

// lossMargin is how long before the service gives its channels away a client
// counts itself as lost. The loss is seen at a tick, and a tick may be late when the
// process is; so it is a twentieth of the timeout where that is more than a
// tick, but leaves room for a heartbeat.
func lossMargin(interval, timeout time.Duration) time.Duration {
	return max(tick, min(timeout/20, (timeout-interval)/2))
}

// note updates b with the outcome of a heartbeat that was sent at the given time.
// After a failure the next one follows after a pause that grows, but is no longer than longest:
// what is left of the lease is divided by that.
func (b *beat) note(sent time.Time, report string, resp *http.Response, err error, interval, longest time.Duration) {
	if err != nil || !tunnelapi.Success(resp) {
		if b.failures == 0 {
			b.failing = sent
		}
		b.failures++
		b.err = err
		b.retryAt = sent.Add(min(interval, longest, burstFirst<<min(b.failures, 6)))
		return
	}
	body, readErr := io.ReadAll(resp.Body)
	resp.Body = io.NopCloser(bytes.NewReader(body))
	if readErr != nil { // the body is a byte slice: it cannot fail
		b.err = readErr
		return
	}
	listed := channelsOf(body)
	if b.answer == nil || report != b.report || listed != b.listed || b.err != nil {
		b.burst = burstLength
	}
	b.ok, b.report, b.answer, b.listed, b.err, b.failures = sent, report, body, listed, nil, 0
	pause := interval
	if b.burst > 0 {
		pause = min(interval, burstFirst<<(burstLength-b.burst))
		b.burst--
	}
	b.next = sent.Add(pause)
}

// reportOf returns the channels of a heartbeat request in a canonical form.
func reportOf(req *http.Request) (string, error) {
	body, err := io.ReadAll(req.Body)
	if err != nil {
		return "", fmt.Errorf("heartbeat request: %w", err)
	}
	req.Body = io.NopCloser(bytes.NewReader(body))
	var hb protocol.HeartbeatRequest
	if err := proto.Unmarshal(body, protoadapt.MessageV2Of(&hb)); err != nil {
		return "", fmt.Errorf("heartbeat request: %w", err)
	}
	return canonical(hb.Channels), nil
}

// channelsOf returns the channels of a heartbeat's answer in a canonical form: the
// service may list the same ones in another order each time, which is not news. A body
// that does not decode stands for itself: the SDK reports what is wrong with it.
func channelsOf(body []byte) string {
	var hb protocol.HeartbeatResponse
	if err := proto.Unmarshal(body, protoadapt.MessageV2Of(&hb)); err != nil {
		return string(body)
	}
	return canonical(hb.Channels)
}

// canonical is the same text for the same channels in any order: the SDK sends them in
// the order of a map.
func canonical(channels []*protocol.Channel) string {
	lines := make([]string, len(channels))
	for i, c := range channels {
		lines[i] = c.GetChannelId() + " " + strconv.FormatInt(c.GetVersion(), 10) + " " + c.GetStatus().String()
	}
	slices.Sort(lines)
	return strings.Join(lines, "\n")
}
