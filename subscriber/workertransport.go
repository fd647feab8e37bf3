package subscriber

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"net/http"
	"path"
	"strconv"
	"sync"
	"sync/atomic"
	"time"

	"github.com/ThreeDotsLabs/watermill"
	"github.com/aliyun/aliyun-tablestore-go-sdk/tunnel"
	"github.com/aliyun/aliyun-tablestore-go-sdk/tunnel/protocol"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/protoadapt"

	"github.com/watermill-ots/watermill-ots/internal/service"
	"github.com/watermill-ots/watermill-ots/internal/tunnelapi"
)

// workerTransport is the RoundTripper under the SDK's tunnel worker. It makes
// the worker's calls cancellable, and lets its ticker run fast without sending
// more heartbeats: a tick whose channels are all as in the last real
// heartbeat is answered with the service's last answer, until HeartbeatInterval
// is over. So a changed status travels within one tick.
//
// It also answers the worker's GetCheckpoint calls with a stand-in: the worker
// makes them one at a time inside its state machine and would miss
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
//     failure, or retry when the pause after it is over.
type workerTransport struct {
	endpoint *tunnelapi.Client
	creds    *service.CredentialsCache
	ctx      context.Context // of the session; cancelled when it has to end at once
	logger   watermill.LoggerAdapter
	tag      string // Config.ClientTag
	lease    *lease // of the client
	timing

	// connected is closed by the first heartbeat: since then the worker has a
	// state machine, and Shutdown may be called without a race.
	connected     chan struct{}
	connectedOnce sync.Once

	due atomic.Bool // the next tick must be a real heartbeat

	mu       sync.Mutex
	clientID string
	released bool // the service knows that the client ends
	beat     beat // written by the worker's goroutine only

	counts    counts
	noteError func(op string, err error) // called when a heartbeat failed; nil: not called

	noteConnected func() // called when the service has admitted the client; nil: not called

	renewing   atomic.Bool    // credentials are being renewed
	background sync.WaitGroup // that goroutine, which ends with ctx; the session waits for it
}

func newWorkerTransport(ctx context.Context, e *tunnelapi.Client, interval, timeout time.Duration, logger watermill.LoggerAdapter) *workerTransport {
	return &workerTransport{
		endpoint: e, creds: e.Creds, ctx: ctx, logger: logger,
		timing:    newTiming(interval, timeout),
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
			if err := retag(req, t.tag, t.creds.SDK(t.endpoint.Region).GetCredentials()); err != nil {
				return nil, &tunnelapi.CallError{Err: err}
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
	resp, body, err := tunnelapi.Exchange(t.ctx, t.endpoint.Base, req, timeout)
	if err != nil {
		return nil, &tunnelapi.CallError{Err: err}
	}
	ok := tunnelapi.Success(resp)
	switch {
	case ok && len(body) == 0 && tunnelapi.NeedsBody(op):
		return nil, &tunnelapi.CallError{Err: fmt.Errorf("the answer (%s) is empty", resp.Status)}
	case ok && op == "connect":
		t.noteClient(body, sent)
	case !ok:
		se := tunnelapi.AnswerError(op, resp, body)
		if tunnelapi.Classify(se) == auth {
			t.creds.Forget()
		}
		if se.Code == tunnel.ErrCodeServerUnavailable || heartbeatMayPass(op, se) {
			return nil, &tunnelapi.CallError{Err: se}
		}
	}
	forSDK := answer(req, resp.StatusCode, body)
	forSDK.Header.Set(tunnelapi.HeaderRequestID, resp.Header.Get(tunnelapi.HeaderRequestID))
	return forSDK, nil
}

// heartbeatMayPass tells errors of a heartbeat that pass by themselves. For the
// SDK any code but OTSTunnelServerUnavailable ends the session.
func heartbeatMayPass(op string, err error) bool {
	if op != "heartbeat" {
		return false
	}
	c := tunnelapi.Classify(err)
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

// heartbeatNow makes the next tick a real heartbeat: something suggests that the
// service sees this client differently.
func (t *workerTransport) heartbeatNow() { t.due.Store(true) }

func (t *workerTransport) shutdown(req *http.Request) (*http.Response, error) {
	if t.ctx.Err() != nil { // session.release makes the call
		return nil, &tunnelapi.CallError{Err: context.Cause(t.ctx)}
	}
	resp, err := t.pass(req, releaseTimeout)
	if err == nil && tunnelapi.Success(resp) {
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

// isReleased reports whether the service knows that the client ended.
func (t *workerTransport) isReleased() bool {
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.released
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
