package subscriber

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"path"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/ThreeDotsLabs/watermill"
	"github.com/aliyun/aliyun-tablestore-go-sdk/tunnel"
	"github.com/aliyun/aliyun-tablestore-go-sdk/tunnel/protocol"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/protoadapt"

	"github.com/watermill-ots/watermill-ots/internal/service"
	"github.com/watermill-ots/watermill-ots/internal/tunnelapi"
)

// reply is how the fake service answers one call. The zero reply is an empty 200.
type reply struct {
	status int
	body   []byte
	err    error         // of the network: nothing arrives
	after  time.Duration // how long the answer takes
	hang   bool          // the answer never comes
}

// fakeService is a RoundTripper that answers as its handlers say. It has no
// network, so that it works in a synctest bubble.
type fakeService struct {
	mu       sync.Mutex
	handlers map[string]func(body []byte) reply // by operation; missing: an empty 200
	calls    []fakeCall
}

type fakeCall struct {
	op   string
	at   time.Time
	body []byte
	key  string // access key id that signed it
}

func (f *fakeService) on(op string, h func(body []byte) reply) *fakeService {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.handlers == nil {
		f.handlers = make(map[string]func([]byte) reply)
	}
	f.handlers[op] = h
	return f
}

// always answers each call of op alike.
func (f *fakeService) always(op string, r reply) *fakeService {
	return f.on(op, func([]byte) reply { return r })
}

func (f *fakeService) RoundTrip(req *http.Request) (*http.Response, error) {
	body, err := io.ReadAll(req.Body)
	if err != nil {
		return nil, err
	}
	op := path.Base(req.URL.Path)
	f.mu.Lock()
	f.calls = append(f.calls, fakeCall{op: op, at: time.Now(), body: body, key: req.Header.Get("x-ots-accesskeyid")})
	handler := f.handlers[op]
	f.mu.Unlock()
	var r reply
	if handler != nil {
		r = handler(body)
	}
	if r.hang {
		<-req.Context().Done()
		return nil, req.Context().Err()
	}
	if r.after > 0 {
		select {
		case <-time.After(r.after):
		case <-req.Context().Done():
			return nil, req.Context().Err()
		}
	}
	if r.err != nil {
		return nil, r.err
	}
	if r.status == 0 {
		r.status = http.StatusOK
	}
	return &http.Response{
		Status: fmt.Sprintf("%d %s", r.status, http.StatusText(r.status)), StatusCode: r.status,
		Header:        http.Header{"X-Ots-Requestid": {"req-" + op}},
		ContentLength: int64(len(r.body)), Body: io.NopCloser(bytes.NewReader(r.body)), Request: req,
	}, nil
}

// times returns when the operation was called, counted from start.
func (f *fakeService) times(op string, start time.Time) (at []time.Duration) {
	f.mu.Lock()
	defer f.mu.Unlock()
	for _, c := range f.calls {
		if c.op == op {
			at = append(at, c.at.Sub(start))
		}
	}
	return at
}

// bodies returns what the operation was called with.
func (f *fakeService) bodies(op string) (bodies [][]byte) {
	f.mu.Lock()
	defer f.mu.Unlock()
	for _, c := range f.calls {
		if c.op == op {
			bodies = append(bodies, c.body)
		}
	}
	return bodies
}

// fakeEndpoint is an endpoint at f, with a permanent key.
func fakeEndpoint(f *fakeService) *tunnelapi.Client {
	e := &tunnelapi.Client{
		URL: "http://ots.test", Instance: "inst", Base: f, Timeout: maxCallTimeout,
		Creds: service.NewCredentialsCache(service.StaticCredentials{AccessKeyID: "id", AccessKeySecret: "hush-hush"}, watermill.NopLogger{}),
	}
	if _, err := e.Creds.Get(context.Background()); err != nil {
		panic(err)
	}
	return e
}

// marshal encodes a message of the tunnel protocol.
func marshal(m protoadapt.MessageV1) []byte {
	b, err := proto.Marshal(protoadapt.MessageV2Of(m))
	if err != nil {
		panic(err)
	}
	return b
}

func unmarshal(t *testing.T, b []byte, m protoadapt.MessageV1) {
	t.Helper()
	if err := proto.Unmarshal(b, protoadapt.MessageV2Of(m)); err != nil {
		t.Fatal(err)
	}
}

// errorReply is an error answer as the service makes it.
func errorReply(status int, code string) reply {
	message := "message of " + code
	return reply{status: status, body: marshal(&protocol.Error{Code: &code, Message: &message})}
}

func messageReply(status int, code, message string) reply {
	return reply{status: status, body: marshal(&protocol.Error{Code: &code, Message: &message})}
}

func clientReply(id string) reply {
	return reply{body: marshal(&protocol.ConnectResponse{ClientId: &id})}
}

// channelList parses "id:version:STATUS" into the channels of a heartbeat.
func channelList(list ...string) (chs []*protocol.Channel) {
	for _, entry := range list {
		part := strings.Split(entry, ":")
		var version int64
		if _, err := fmt.Sscan(part[1], &version); err != nil {
			panic(err)
		}
		status, ok := protocol.ChannelStatus_value[part[2]]
		if !ok {
			panic("no status " + part[2])
		}
		chs = append(chs, &protocol.Channel{ChannelId: &part[0], Version: &version, Status: protocol.ChannelStatus(status).Enum()})
	}
	return chs
}

func heartbeatReply(list ...string) reply {
	return reply{body: marshal(&protocol.HeartbeatResponse{Channels: channelList(list...)})}
}

// listed is the inverse of channelList, sorted.
func listed(chs []*protocol.Channel) (list []string) {
	for _, c := range chs {
		list = append(list, fmt.Sprintf("%s:%d:%s", c.GetChannelId(), c.GetVersion(), c.GetStatus()))
	}
	slices.Sort(list)
	return list
}

// call sends the request of one operation as the SDK's HTTP client hands it to the transport.
func call(rt http.RoundTripper, op string, body []byte) (*http.Response, error) {
	req, err := http.NewRequestWithContext(context.Background(), http.MethodPost, "http://ots.test/tunnel/"+op, bytes.NewReader(body))
	if err != nil {
		return nil, err
	}
	return rt.RoundTrip(req)
}

var errNetwork = errors.New("connection reset by peer")

// codes of the tunnel service that the tests use, with their HTTP status.
var (
	gone        = errorReply(http.StatusGone, tunnel.ErrCodeResourceGone)
	unavailable = errorReply(http.StatusServiceUnavailable, tunnel.ErrCodeServerUnavailable)
)
