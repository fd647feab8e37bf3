package subscriber

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"net/http"
	"path"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/ThreeDotsLabs/watermill"
	"github.com/aliyun/aliyun-tablestore-go-sdk/tunnel"
	"github.com/aliyun/aliyun-tablestore-go-sdk/tunnel/protocol"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/protoadapt"

	"github.com/watermill-ots/watermill-ots/internal/service"
)

const (
	// tick is how often the SDK's worker reports the state of its channels.
	// Most ticks are answered locally, see workerTransport.
	tick = 200 * time.Millisecond

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
	heartbeatTries   = 3
	// connectTimeout bounds the call that makes a client known.
	connectTimeout = 10 * time.Second
)

// workerTransport is the RoundTripper under the SDK's tunnel worker. It makes
// the worker's calls cancellable, and lets its ticker run fast without sending
// more heartbeats: a tick whose channels are all as in the last real
// heartbeat is answered with the service's last answer, until HeartbeatInterval
// is over. So a changed status travels within one tick.
//
// It also answers the worker's GetCheckpoint calls with a stand-in: the worker
// makes them one after the other inside its state machine and would miss
// heartbeats while the service is slow. Each channel makes its own instead.
//
// Invariants:
//   - beat.ok is when the last heartbeat that the service answered was sent; the
//     service counts from a later moment, and timeout is lossMargin less than
//     the service's. The lease ends at beat.ok+timeout: so a client considers itself
//     lost before the service gives its channels away.
//   - Nothing but the service's answer holds a heartbeat up: credentials are renewed
//     by a goroutine of their own.
//   - A failed heartbeat is never answered locally: the next ticks report the
//     failure, or try again when the pause after it is over.
type workerTransport struct {
	base     http.RoundTripper
	creds    *service.CredentialsCache
	region   string          // as the endpoint has it
	ctx      context.Context // of the session; cancelled when it has to end at once
	logger   watermill.LoggerAdapter
	tag      string // Config.ClientTag
	interval time.Duration
	timeout  time.Duration
	longest  time.Duration // of one heartbeat
	lease    *lease        // of the client

	// connected is closed by the first heartbeat: from then on the worker has a
	// state machine, and Shutdown may be called without a race.
	connected     chan struct{}
	connectedOnce sync.Once

	poked atomic.Bool // the next tick is to be a real heartbeat

	mu       sync.Mutex
	clientID string
	released bool // the service was told that the client ends
	beat     beat // written by the worker's goroutine only

	counts    counts
	noteError func(op string, err error) // told of heartbeats that failed; nil: nobody

	noteConnected func() // called when the service has admitted the client; nil: not called

	renewing   atomic.Bool    // credentials are being renewed
	background sync.WaitGroup // that goroutine, which ends with ctx; the session waits for it
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

func newWorkerTransport(ctx context.Context, e *endpoint, interval, timeout time.Duration, logger watermill.LoggerAdapter) *workerTransport {
	timeout = timeout.Truncate(time.Second) // connect tells the service whole seconds
	timeout -= lossMargin(interval, timeout)
	return &workerTransport{
		base: e.base, creds: e.creds, region: e.region, ctx: ctx, logger: logger, interval: interval,
		timeout:   timeout,
		longest:   min(heartbeatTimeout, (timeout-interval)/heartbeatTries),
		lease:     newLease(),
		connected: make(chan struct{}),
	}
}

// RoundTrip implements http.RoundTripper. The worker makes one call at a time.
func (t *workerTransport) RoundTrip(req *http.Request) (*http.Response, error) {
	switch op := path.Base(req.URL.Path); op {
	case "heartbeat":
		t.connectedOnce.Do(func() { close(t.connected) })
		return t.heartbeat(req)
	case "getcheckpoint":
		// checkpoint (field 1) = "", sequence_number (field 2) = 0
		return answer(req, http.StatusOK, []byte{0x0a, 0x00, 0x10, 0x00}), nil
	case "shutdown":
		return t.shutdown(req)
	case "connect":
		if t.tag != "" {
			if err := retag(req, t.tag, t.creds.SDK(t.region).GetCredentials()); err != nil {
				return nil, &callError{err: err}
			}
		}
		fallthrough
	default:
		return t.pass(req, connectTimeout)
	}
}

// stage names the call that ended the worker: there are no others.
func (t *workerTransport) stage() string {
	select {
	case <-t.connected:
		return "heartbeat"
	default:
		return "connect"
	}
}

// pass carries a call to the service. Answers that the SDK would retry on its
// own become errors; all others reach the SDK as they are, because it looks at
// their code.
func (t *workerTransport) pass(req *http.Request, timeout time.Duration) (*http.Response, error) {
	op := path.Base(req.URL.Path)
	sent := time.Now()
	resp, body, err := exchange(t.ctx, t.base, req, timeout)
	if err != nil {
		return nil, &callError{err: err}
	}
	ok := success(resp)
	switch {
	case ok && len(body) == 0 && needsBody[op]:
		return nil, &callError{err: fmt.Errorf("the answer (%s) is empty", resp.Status)}
	case ok && op == "connect":
		t.noteClient(body, sent)
	case !ok:
		se := answerError(op, resp, body)
		if classify(se) == auth {
			t.creds.Forget()
		}
		if se.Code == tunnel.ErrCodeServerUnavailable || heartbeatMayPass(op, se) {
			return nil, &callError{err: se}
		}
	}
	forSDK := answer(req, resp.StatusCode, body)
	forSDK.Header.Set(headerRequestID, resp.Header.Get(headerRequestID))
	return forSDK, nil
}

// heartbeatMayPass tells errors of a heartbeat that pass by themselves. For the
// SDK any code but OTSTunnelServerUnavailable ends the session.
func heartbeatMayPass(op string, err error) bool {
	if op != "heartbeat" {
		return false
	}
	c := classify(err)
	return c == retry || c == throttled || c == auth
}

func (t *workerTransport) noteClient(body []byte, sent time.Time) {
	var r protocol.ConnectResponse
	if err := proto.Unmarshal(body, protoadapt.MessageV2Of(&r)); err != nil {
		return // the SDK reports what is wrong with it
	}
	t.mu.Lock()
	t.counts.inc(countConnects)
	t.clientID = r.GetClientId()
	t.beat.ok = sent
	t.mu.Unlock()
	t.lease.renew(sent, t.timeout)
	if t.noteConnected != nil {
		t.noteConnected()
	}
}

func (t *workerTransport) heartbeat(req *http.Request) (*http.Response, error) {
	report, err := reportOf(req)
	if err != nil {
		return nil, &callError{err: err}
	}
	t.mu.Lock()
	b := t.beat
	t.mu.Unlock()

	now := time.Now()
	poked := t.poked.Swap(false)
	switch {
	case t.ctx.Err() != nil: // or the worker would go on ticking until the deadline
		return resourceGone(req, context.Cause(t.ctx).Error()), nil
	case t.lease.over(now):
		return resourceGone(req, t.lapsed().Error()), nil
	case b.err != nil && now.Before(b.retryAt):
		return nil, &callError{err: b.err}
	case b.err == nil && b.answer != nil && report == b.report && now.Before(b.next) && !poked:
		return answer(req, http.StatusOK, b.answer), nil
	}
	before := b
	resp, err := t.pass(req, min(t.longest, t.lease.left(now)))
	b.note(now, report, resp, err, t.interval, t.longest)
	t.count(err == nil && success(resp), err)
	if t.ctx.Err() == nil {
		t.sayHeartbeat(before, b, err)
	}
	t.mu.Lock()
	t.beat = b
	t.mu.Unlock()
	if b.ok.Equal(now) {
		t.lease.renew(now, t.timeout)
	}
	t.renewCredentials()
	return resp, err
}

// sayHeartbeat logs when heartbeats begin to fail and when they succeed again. In
// between, each failure is in the log at Debug.
func (t *workerTransport) sayHeartbeat(before, after beat, err error) {
	switch {
	case err != nil:
		fields := watermill.LogFields{"err": fromSDK("heartbeat", err).Error(), "failures": after.failures, "lost_at": before.ok.Add(t.timeout)}
		if before.failures == 0 {
			t.logger.Info("Heartbeat failed", fields)
		} else {
			t.logger.Debug("Heartbeat failed again", fields)
		}
	case before.failures > 0 && after.failures == 0:
		t.logger.Info("Heartbeats succeed again", watermill.LogFields{"failures": before.failures, "lasted": after.ok.Sub(before.failing).Round(time.Millisecond).String()})
	}
}

// lapsed is why the lease is over.
func (t *workerTransport) lapsed() error {
	return fmt.Errorf("no heartbeat was answered for %v", t.timeout)
}

// count counts a heartbeat. One that the service refuses ends the session, whose
// end tells of it.
func (t *workerTransport) count(ok bool, err error) {
	if ok {
		t.counts.inc(countHeartbeats)
		return
	}
	t.counts.inc(countHeartbeatsFailed)
	if err != nil && t.noteError != nil && t.ctx.Err() == nil {
		t.noteError("heartbeat", fromSDK("heartbeat", err))
	}
}

// renewCredentials is for the next heartbeat, as the SDK signs before it calls
// the transport. A provider that takes its time holds up no heartbeat.
func (t *workerTransport) renewCredentials() {
	if t.creds.Fresh() || !t.renewing.CompareAndSwap(false, true) {
		return
	}
	t.background.Go(func() { // ends with the provider's answer or with t.ctx
		defer t.renewing.Store(false)
		if _, err := t.creds.Get(t.ctx); err != nil && t.ctx.Err() == nil {
			t.logger.Error("Heartbeats cannot be signed", err, nil)
		}
	})
}

// note updates b with the outcome of a heartbeat that was sent at the given time.
// After a failure the next one follows after a pause that grows, but is no longer than longest:
// what is left of the lease is divided by that.
func (b *beat) note(sent time.Time, report string, resp *http.Response, err error, interval, longest time.Duration) {
	if err != nil || !success(resp) {
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

// poke makes the next tick a real heartbeat: something suggests that the
// service sees this client differently.
func (t *workerTransport) poke() { t.poked.Store(true) }

func (t *workerTransport) shutdown(req *http.Request) (*http.Response, error) {
	if t.ctx.Err() != nil { // session.release makes the call
		return nil, &callError{err: context.Cause(t.ctx)}
	}
	resp, err := t.pass(req, releaseTimeout)
	if err == nil && success(resp) {
		t.mu.Lock()
		t.released = true
		t.mu.Unlock()
	}
	return resp, err
}

// client returns the client id of the session, empty before the service gave one.
func (t *workerTransport) client() string {
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.clientID
}

// isReleased reports whether the service was told that the client ended.
func (t *workerTransport) isReleased() bool {
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.released
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
// service may list the same ones in another order each time, which is no news. A body
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

// resourceGone is the service's answer to a client that it does not know any more.
func resourceGone(req *http.Request, message string) *http.Response {
	code := tunnel.ErrCodeResourceGone
	body, err := proto.Marshal(protoadapt.MessageV2Of(&protocol.Error{Code: &code, Message: &message}))
	if err != nil {
		panic(fmt.Sprintf("subscriber: two strings do not marshal: %v", err))
	}
	return answer(req, http.StatusGone, body)
}

func answer(req *http.Request, status int, body []byte) *http.Response {
	return &http.Response{
		Status: strconv.Itoa(status) + " " + http.StatusText(status), StatusCode: status,
		Proto: "HTTP/1.1", ProtoMajor: 1, ProtoMinor: 1,
		Header: make(http.Header), Request: req,
		ContentLength: int64(len(body)), Body: io.NopCloser(bytes.NewReader(body)),
	}
}

// releaseTransport is the RoundTripper under a worker that only exists to send
// the shutdown call of a client: the SDK has no other way to make it. Connect
// is answered with the client's id, heartbeats with no channels.
type releaseTransport struct {
	*workerTransport
	connect []byte
}

func (t *releaseTransport) RoundTrip(req *http.Request) (*http.Response, error) {
	switch path.Base(req.URL.Path) {
	case "connect":
		return answer(req, http.StatusOK, t.connect), nil
	case "heartbeat":
		t.connectedOnce.Do(func() { close(t.connected) })
		return answer(req, http.StatusOK, nil), nil
	}
	return t.workerTransport.RoundTrip(req)
}
