package subscriber_test

import (
	"bytes"
	"io"
	"net/http"
	"path"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/ThreeDotsLabs/watermill/message"
	"github.com/aliyun/aliyun-tablestore-go-sdk/tunnel/protocol"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/protoadapt"

	"github.com/watermill-ots/watermill-ots/ack"
	"github.com/watermill-ots/watermill-ots/internal/testbed"
)

// wire is a transport that keeps what laws are about, in order: the checkpoints
// that the service stored, and the ends of channels that were reported to it.
// It can change answers on their way.
type wire struct {
	base *http.Transport

	mu     sync.Mutex                            // guards the following
	events []string                              // "stored TOKEN", "reported STATUS", "read"
	edit   map[string]func(answer []byte) []byte // by operation
}

func newWire(t *testing.T) *wire {
	w := &wire{base: new(http.Transport), edit: make(map[string]func([]byte) []byte)}
	t.Cleanup(w.base.CloseIdleConnections)
	return w
}

// decode parses a message of the tunnel protocol that only a broken peer would send wrong.
func decode(b []byte, m protoadapt.MessageV1) {
	if err := proto.Unmarshal(b, protoadapt.MessageV2Of(m)); err != nil {
		panic(err)
	}
}

func encode(m protoadapt.MessageV1) []byte {
	b, err := proto.Marshal(protoadapt.MessageV2Of(m))
	if err != nil {
		panic(err)
	}
	return b
}

func (w *wire) RoundTrip(r *http.Request) (*http.Response, error) {
	sent, err := io.ReadAll(r.Body)
	if err != nil {
		return nil, err
	}
	op := path.Base(r.URL.Path)
	if op == "heartbeat" {
		w.note(reportedEnds(sent)...)
	}
	out := r.Clone(r.Context())
	out.Body = io.NopCloser(bytes.NewReader(sent))
	resp, err := w.base.RoundTrip(out)
	if err != nil {
		return nil, err
	}
	answer, err := io.ReadAll(resp.Body)
	resp.Body.Close()
	if err != nil {
		return nil, err
	}
	if resp.StatusCode == http.StatusOK {
		switch op {
		case "checkpoint":
			var c protocol.CheckpointRequest
			decode(sent, &c)
			w.note("stored " + c.GetCheckpoint())
		case "readrecords":
			w.note("read")
		}
		w.mu.Lock()
		if edit := w.edit[op]; edit != nil {
			answer = edit(answer)
		}
		w.mu.Unlock()
	}
	resp.Body, resp.ContentLength = io.NopCloser(bytes.NewReader(answer)), int64(len(answer))
	return resp, nil
}

func reportedEnds(heartbeat []byte) (events []string) {
	var hb protocol.HeartbeatRequest
	decode(heartbeat, &hb)
	for _, c := range hb.Channels {
		if s := c.GetStatus(); s == protocol.ChannelStatus_CLOSE || s == protocol.ChannelStatus_TERMINATED {
			events = append(events, "reported "+s.String())
		}
	}
	return events
}

func (w *wire) note(events ...string) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.events = append(w.events, events...)
}

// onAnswer changes the answers of an operation from now.
func (w *wire) onAnswer(op string, edit func([]byte) []byte) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.edit[op] = edit
}

// tell makes the service's heartbeats give each open channel another status.
func (w *wire) tell(status protocol.ChannelStatus) {
	w.onAnswer("heartbeat", func(answer []byte) []byte {
		var hb protocol.HeartbeatResponse
		decode(answer, &hb)
		for _, c := range hb.Channels {
			if c.GetStatus() == protocol.ChannelStatus_OPEN {
				c.Version, c.Status = proto.Int64(c.GetVersion()+1), status.Enum()
			}
		}
		return encode(&hb)
	})
}

// all returns the events that begin with a prefix.
func (w *wire) all(prefix string) (events []string) {
	w.mu.Lock()
	defer w.mu.Unlock()
	for _, e := range w.events {
		if strings.HasPrefix(e, prefix) {
			events = append(events, e)
		}
	}
	return events
}

// firstReport waits for the first end that is reported, and returns it with what was stored before.
func (w *wire) firstReport(t *testing.T) (report string, stored []string) {
	t.Helper()
	testbed.Eventually(t, 10*time.Second, "an end of the channel is reported", func() bool { return len(w.all("reported ")) > 0 })
	w.mu.Lock()
	defer w.mu.Unlock()
	for _, e := range w.events {
		if strings.HasPrefix(e, "reported ") {
			return e, stored
		}
		if strings.HasPrefix(e, "stored ") {
			stored = append(stored, e)
		}
	}
	return "", stored
}

// requests is how many requests of an operation the service answered.
func requests(b *testbed.Bed, op string) int64 {
	return b.Emulator.Stats().Operations["tunnel/"+op].Requests
}

// served waits until the service has handed out that many records, and then for as long
// as it takes to offer them: since then the subscriber holds them out.
func served(t *testing.T, b *testbed.Bed, n int64) {
	t.Helper()
	testbed.Eventually(t, 5*time.Second, "the record is read", func() bool { return b.Emulator.Stats().RecordsServed >= n })
	time.Sleep(100 * time.Millisecond)
}

func deliveryOf(t *testing.T, msg *message.Message) ack.Delivery {
	t.Helper()
	d, ok := ack.FromContext(msg.Context())
	if !ok {
		t.Fatal("the context carries no delivery")
	}
	return d
}
