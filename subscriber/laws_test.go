package subscriber_test

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/binary"
	"encoding/hex"
	"errors"
	"io"
	"net/http"
	"path"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/ThreeDotsLabs/watermill"
	"github.com/ThreeDotsLabs/watermill/message"
	"github.com/aliyun/aliyun-tablestore-go-sdk/tunnel"
	"github.com/aliyun/aliyun-tablestore-go-sdk/tunnel/protocol"
	"github.com/cenkalti/backoff/v4"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/protoadapt"

	"github.com/watermill-ots/watermill-ots/ack"
	"github.com/watermill-ots/watermill-ots/emulator"
	"github.com/watermill-ots/watermill-ots/internal/plainbuffer"
	"github.com/watermill-ots/watermill-ots/internal/testbed"
	"github.com/watermill-ots/watermill-ots/subscriber"
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

// onAnswer changes the answers of an operation from here on.
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

// served waits until the service has handed out so many records, and then for as long
// as it takes to offer them: from then on the subscriber holds them out.
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

func TestL1_record_that_is_held_out_when_the_drain_begins_comes_again(t *testing.T) {
	b := testbed.New(t, emulator.Options{})
	b.CreateTunnel(tunnel.TunnelTypeStream)
	s, messages := subscribe(t, b, nil)
	put(t, b, "a", 1)
	receive(t, messages).Ack()
	put(t, b, "b", 1)
	served(t, b, 2)
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	_, messages = subscribe(t, b, nil)
	msg := receive(t, messages)
	wantName(t, msg, "b/1")
	msg.Ack()
}

func TestL1_record_called_back_before_anybody_took_it_comes_again(t *testing.T) {
	b := testbed.New(t, emulator.Options{})
	b.CreateTunnel(tunnel.TunnelTypeStream)
	_, messages := subscribe(t, b, nil)
	put(t, b, "a", 1, 2)
	first := receive(t, messages)
	d := deliveryOf(t, first)
	d.HandOff()
	served(t, b, 2)
	d.CallBack(errors.New("the batch failed"))
	first.Nack()
	for _, want := range []string{"a/1", "a/2"} {
		msg := receive(t, messages)
		wantName(t, msg, want)
		msg.Ack()
	}
}

// haltingJSON halts in the Unmarshaler at the first record with version 2.
type haltingJSON struct {
	once            sync.Once
	reached, resume chan struct{}
}

func (h *haltingJSON) Unmarshal(r *subscriber.Record) (*message.Message, error) {
	if v, _ := r.Column("v"); v.Int64() == 2 {
		h.once.Do(func() {
			close(h.reached)
			<-h.resume
		})
	}
	return subscriber.JSON{}.Unmarshal(r)
}

func TestL1_record_called_back_while_its_message_is_made_comes_again(t *testing.T) {
	b := testbed.New(t, emulator.Options{})
	b.CreateTunnel(tunnel.TunnelTypeStream)
	halt := &haltingJSON{reached: make(chan struct{}), resume: make(chan struct{})}
	_, messages := subscribe(t, b, func(c *subscriber.Config) { c.Unmarshaler = halt })
	put(t, b, "a", 1, 2)
	first := receive(t, messages)
	d := deliveryOf(t, first)
	d.HandOff()
	<-halt.reached
	d.CallBack(errors.New("the batch failed"))
	close(halt.resume)
	first.Nack()
	for _, want := range []string{"a/1", "a/2"} {
		msg := receive(t, messages)
		wantName(t, msg, want)
		msg.Ack()
	}
}

func TestL1_L2_checkpoint_whose_answer_is_lost_is_found_and_the_next_ones_follow(t *testing.T) {
	b := testbed.New(t, emulator.Options{})
	id := b.CreateTunnel(tunnel.TunnelTypeStream)
	_, messages := subscribe(t, b, nil)
	put(t, b, "warm", 1)
	receive(t, messages).Ack()
	testbed.Eventually(t, 5*time.Second, "a checkpoint is stored", func() bool { return requests(b, "checkpoint") > 0 })
	b.Emulator.Inject(emulator.Fault{Operation: "tunnel/checkpoint", Break: emulator.BeforeAnswer})
	var changed time.Time
	for v := 1; v <= 2; v++ {
		put(t, b, "a", v)
		msg := receive(t, messages)
		r, _ := subscriber.RecordFromMessage(msg)
		changed = time.UnixMicro(r.Sequence.Timestamp)
		msg.Ack()
		testbed.Eventually(t, 5*time.Second, "the acked record is committed", func() bool {
			for _, at := range b.Committed(id) {
				if at.Before(changed) {
					return false
				}
			}
			return b.Emulator.Stats().Faults > 0
		})
	}
}

func TestL2_checkpoint_that_was_refused_with_a_mismatch_does_not_count_as_stored(t *testing.T) {
	b := testbed.New(t, emulator.Options{})
	b.CreateTunnel(tunnel.TunnelTypeStream)
	s, messages := subscribe(t, b, func(c *subscriber.Config) { c.CheckpointInterval = time.Hour })
	put(t, b, "a", 1)
	receive(t, messages).Ack()
	b.Emulator.Inject(emulator.Fault{Operation: "tunnel/checkpoint", Code: tunnel.ErrCodeSequenceNotMatch})
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	put(t, b, "b", 1)
	_, messages = subscribe(t, b, nil)
	msg := receive(t, messages) // not a/1 again: the drain stored it at its second try
	wantName(t, msg, "b/1")
	msg.Ack()
}

// TestL2_uuid_is_what_anybody_can_compute asserts the UUID against a second
// implementation, fed with what the service knows: so also the tunnel's and the
// channel's id are in it.
func TestL2_uuid_is_what_anybody_can_compute(t *testing.T) {
	b := testbed.New(t, emulator.Options{})
	id := b.CreateTunnel(tunnel.TunnelTypeStream)
	_, messages := subscribe(t, b, nil)
	put(t, b, "a", 1)
	msg := receive(t, messages)
	r, _ := subscriber.RecordFromMessage(msg)
	var row plainbuffer.Row
	key := plainbuffer.AppendPrimaryKey(nil, []plainbuffer.Cell{{Name: "k", Value: plainbuffer.StringValue("a"), HasValue: true}})
	if err := plainbuffer.Decode(key, &row); err != nil {
		t.Fatal(err)
	}
	var names []byte
	for _, s := range []string{id, r.Channel} {
		names = append(binary.LittleEndian.AppendUint64(names, uint64(len(s))), s...)
	}
	seed := sha256.Sum256(names)
	whole := append(seed[:], byte(r.Type))
	whole = binary.LittleEndian.AppendUint32(whole, uint32(r.Sequence.Epoch))
	whole = binary.LittleEndian.AppendUint64(whole, uint64(r.Sequence.Timestamp))
	whole = binary.LittleEndian.AppendUint32(whole, uint32(r.Sequence.RowIndex))
	sum := sha256.Sum256(append(whole, row.KeyBytes...))
	sum[6], sum[8] = sum[6]&0x0f|0x80, sum[8]&0x3f|0x80
	if got := strings.ReplaceAll(msg.UUID, "-", ""); got != hex.EncodeToString(sum[:16]) {
		t.Errorf("UUID is %s, want the digits %x", msg.UUID, sum[:16])
	}
	msg.Ack()
}

// hurried tells whether whoever waits is to hurry.
func hurried(d ack.Delivery) bool {
	select {
	case <-d.Hurry():
		return true
	default:
		return false
	}
}

func TestL6_L7_waiting_messages_are_hurried_by_a_full_window_and_by_the_drain(t *testing.T) {
	b := testbed.New(t, emulator.Options{})
	b.CreateTunnel(tunnel.TunnelTypeStream)
	s, messages := subscribe(t, b, func(c *subscriber.Config) { c.MaxInFlight = 1 })
	put(t, b, "a", 1)
	msg := receive(t, messages)
	d := deliveryOf(t, msg)
	d.HandOff()
	testbed.Eventually(t, 5*time.Second, "the only message that fits is hurried", func() bool { return hurried(d) })
	d.Begin()
	if hurried(d) {
		t.Error("a batch that runs is hurried: it waits for nobody")
	}
	hurry := d.Hurry()
	closed := make(chan error, 1)
	go func() { closed <- s.Close() }()
	select {
	case <-hurry:
	case <-time.After(5 * time.Second):
		t.Error("the drain does not hurry a message that waits")
	}
	msg.Ack()
	if err := <-closed; err != nil {
		t.Error(err)
	}
}

func TestL4_channel_is_fenced(t *testing.T) {
	for name, lose := range map[string]func(b *testbed.Bed, w *wire, first *message.Message){
		"when a checkpoint says that it is gone": func(b *testbed.Bed, _ *wire, first *message.Message) {
			b.Emulator.Inject(emulator.Fault{Operation: "tunnel/checkpoint", Code: tunnel.ErrCodeResourceGone})
			first.Ack() // is to be committed
		},
		"when the service says CLOSE":      func(_ *testbed.Bed, w *wire, _ *message.Message) { w.tell(protocol.ChannelStatus_CLOSE) },
		"when the service says TERMINATED": func(_ *testbed.Bed, w *wire, _ *message.Message) { w.tell(protocol.ChannelStatus_TERMINATED) },
	} {
		t.Run(name, func(t *testing.T) {
			b := testbed.New(t, emulator.Options{})
			b.CreateTunnel(tunnel.TunnelTypeStream)
			w := newWire(t)
			_, messages := subscribe(t, b, func(c *subscriber.Config) { c.Transport = w })
			put(t, b, "a", 1)
			first := receive(t, messages)
			put(t, b, "b", 1)
			held := receive(t, messages)
			lose(b, w, first)
			select {
			case <-held.Context().Done():
			case <-time.After(5 * time.Second):
				t.Fatal("the context of a message in flight does not end")
			}
			if cause := context.Cause(held.Context()); !errors.Is(cause, subscriber.ErrChannelLost) {
				t.Errorf("its cause is %v", cause)
			}
			before := w.all("stored ")
			held.Ack()
			time.Sleep(200 * time.Millisecond) // several checkpoint intervals
			if after := w.all("stored "); !slices.Equal(after, before) && name != "when a checkpoint says that it is gone" {
				t.Errorf("the ack after the loss stored %v", after[len(before):])
			}
		})
	}
}

func TestL5_closing_meets_a_finish_token_that_is_not_stored(t *testing.T) {
	for name, c := range map[string]struct {
		closing func(*testbed.Bed)
		report  string
		stored  []string
	}{
		"nor can be":        {func(*testbed.Bed) {}, "reported CLOSE", nil},
		"but can be by now": {func(b *testbed.Bed) { b.Emulator.ClearFaults() }, "reported TERMINATED", []string{"stored " + tunnel.FinishTag}},
	} {
		t.Run(name, func(t *testing.T) {
			b := testbed.New(t, emulator.Options{})
			b.PutAll(3, 1)
			b.CreateTunnel(tunnel.TunnelTypeBaseData)
			b.Emulator.Inject(emulator.Fault{Operation: "tunnel/checkpoint", Code: tunnel.ErrCodeServerUnavailable, Times: -1})
			w := newWire(t)
			_, messages := subscribe(t, b, func(c *subscriber.Config) {
				c.Transport = w
				c.CheckpointInterval = time.Hour // only the finish token is committed
				// Longer than the tries of a drain's last commit: it has one.
				c.ReadBackoff = func() backoff.BackOff { return backoff.NewConstantBackOff(6 * time.Second) }
			})
			for range 3 {
				receive(t, messages).Ack()
			}
			testbed.Eventually(t, 5*time.Second, "the finish token is refused", func() bool { return requests(b, "checkpoint") > 0 })
			c.closing(b)
			w.tell(protocol.ChannelStatus_CLOSING)
			if report, stored := w.firstReport(t); report != c.report || !slices.Equal(stored, c.stored) {
				t.Errorf("%s after %v, want %s after %v", report, stored, c.report, c.stored)
			}
		})
	}
}

func TestL5_channel_whose_finish_token_is_stored_is_terminated_without_a_read(t *testing.T) {
	b := testbed.New(t, emulator.Options{})
	b.PutAll(3, 1)
	b.CreateTunnel(tunnel.TunnelTypeBaseData)
	w := newWire(t)
	w.onAnswer("getcheckpoint", func([]byte) []byte {
		return encode(&protocol.GetCheckpointResponse{Checkpoint: proto.String(tunnel.FinishTag), SequenceNumber: proto.Int64(1)})
	})
	subscribe(t, b, func(c *subscriber.Config) { c.Transport = w })
	if report, _ := w.firstReport(t); report != "reported TERMINATED" {
		t.Errorf("%s", report)
	}
	if n := len(w.all("read")); n > 0 {
		t.Errorf("%d reads of a channel that is at its end", n)
	}
}

func TestL5_channel_whose_checkpoint_cannot_be_read_is_given_back_not_terminated(t *testing.T) {
	b := testbed.New(t, emulator.Options{})
	b.PutAll(3, 1)
	b.CreateTunnel(tunnel.TunnelTypeBaseData)
	b.Emulator.Inject(emulator.Fault{Operation: "tunnel/getcheckpoint", Code: tunnel.ErrCodeParamInvalid})
	w := newWire(t)
	subscribe(t, b, func(c *subscriber.Config) { c.Transport = w })
	if report, _ := w.firstReport(t); report != "reported CLOSE" {
		t.Errorf("%s", report)
	}
}

func TestL6_bytes_in_flight_stay_within_MaxInFlightBytes_and_a_page(t *testing.T) {
	b := testbed.New(t, emulator.Options{})
	b.CreateTunnel(tunnel.TunnelTypeStream)
	_, messages := subscribe(t, b, func(c *subscriber.Config) { c.MaxInFlightBytes = 1 })
	put(t, b, "a", 1)
	first := receive(t, messages)
	put(t, b, "b", 1)
	receiveNone(t, messages, 300*time.Millisecond)
	first.Ack()
	msg := receive(t, messages)
	wantName(t, msg, "b/1")
	msg.Ack()
}

// fill writes one record after the other to each of the keys, acks nothing, and
// returns how many messages there are when no more come.
func fill(t *testing.T, b *testbed.Bed, messages <-chan *message.Message, rounds int, prefixes ...string) (n int) {
	t.Helper()
	for i := range rounds {
		for _, p := range prefixes {
			put(t, b, p+testbed.Key(i), 1)
			select {
			case <-messages:
				n++
			case <-time.After(150 * time.Millisecond):
			}
		}
	}
	for {
		select {
		case <-messages:
			n++
		case <-time.After(300 * time.Millisecond):
			return n
		}
	}
}

func TestL6_channels_of_a_subscription_share_one_window(t *testing.T) {
	b := testbed.New(t, emulator.Options{})
	if err := b.Emulator.SplitAt(testbed.Table, "m"); err != nil {
		t.Fatal(err)
	}
	b.CreateTunnel(tunnel.TunnelTypeStream)
	_, messages := subscribe(t, b, func(c *subscriber.Config) { c.MaxInFlight, c.CloseTimeout = 10, 10*time.Millisecond })
	// A page holds one record, as each is read before the next is written: so
	// 10 and one page for each channel, and twice as much with a window each.
	if n := fill(t, b, messages, 12, "a", "z"); n < 10 || n > 14 {
		t.Errorf("%d messages are in flight with MaxInFlight 10 and 2 channels", n)
	}
}

func TestL6_ended_channel_gives_its_share_back(t *testing.T) {
	b := testbed.New(t, emulator.Options{})
	b.CreateTunnel(tunnel.TunnelTypeStream)
	_, messages := subscribe(t, b, func(c *subscriber.Config) { c.MaxInFlight, c.CloseTimeout = 10, 10*time.Millisecond })
	b.Emulator.Inject(emulator.Fault{Operation: "tunnel/readrecords", Code: tunnel.ErrCodeResourceGone, Times: 6})
	testbed.Eventually(t, 10*time.Second, "the channel was lost and opened six times", func() bool { return b.Emulator.Stats().Faults == 6 })
	if n := fill(t, b, messages, 12, "a"); n < 10 {
		t.Errorf("%d messages are in flight with MaxInFlight 10 and one channel that is open", n)
	}
}

func TestL5_finish_token_refused_with_a_lost_channel_is_not_reported_as_terminated(t *testing.T) {
	b := testbed.New(t, emulator.Options{})
	b.PutAll(3, 1)
	b.CreateTunnel(tunnel.TunnelTypeBaseData)
	b.Emulator.Inject(emulator.Fault{Operation: "tunnel/checkpoint", Code: tunnel.ErrCodeResourceGone})
	w := newWire(t)
	_, messages := subscribe(t, b, func(c *subscriber.Config) { c.Transport, c.CheckpointInterval = w, time.Hour })
	for range 6 { // all rows come again, to the channel's next run
		receive(t, messages).Ack()
	}
	want := []string{"stored " + tunnel.FinishTag}
	if report, stored := w.firstReport(t); report != "reported TERMINATED" || !slices.Equal(stored, want) {
		t.Errorf("%s after %v, want TERMINATED after %v", report, stored, want)
	}
}

func TestL7_Close_waits_neither_for_a_pause_nor_for_a_service_that_fails(t *testing.T) {
	for name, fault := range map[string]emulator.Fault{
		"in the pause between sessions":         {Operation: "tunnel/connect", Code: tunnel.ErrCodeServerUnavailable, Times: -1},
		"in the pause before a checkpoint read": {Operation: "tunnel/getcheckpoint", Code: tunnel.ErrCodeServerUnavailable, Times: -1},
	} {
		t.Run(name, func(t *testing.T) {
			b := testbed.New(t, emulator.Options{})
			b.CreateTunnel(tunnel.TunnelTypeStream)
			b.Emulator.Inject(fault)
			long := func() backoff.BackOff { return backoff.NewConstantBackOff(time.Hour) }
			s, _ := subscribe(t, b, func(c *subscriber.Config) { c.ReconnectBackoff, c.ReadBackoff = long, long })
			testbed.Eventually(t, 10*time.Second, "the call failed", func() bool { return b.Emulator.Stats().Faults > 0 })
			time.Sleep(100 * time.Millisecond) // it pauses
			began := time.Now()
			if err := s.Close(); err != nil {
				t.Error(err)
			}
			if took := time.Since(began); took > 3*time.Second {
				t.Errorf("Close took %v", took)
			}
		})
	}
}

func TestL7_Close_counts_the_unsettled_messages_of_all_channels(t *testing.T) {
	b := testbed.New(t, emulator.Options{})
	if err := b.Emulator.SplitAt(testbed.Table, "m"); err != nil {
		t.Fatal(err)
	}
	b.CreateTunnel(tunnel.TunnelTypeStream)
	s, messages := subscribe(t, b, func(c *subscriber.Config) { c.CloseTimeout = 50 * time.Millisecond })
	put(t, b, "a", 1)
	put(t, b, "z", 1)
	receive(t, messages)
	receive(t, messages)
	if err := s.Close(); !errors.Is(err, subscriber.ErrDrainTimeout) || !strings.Contains(err.Error(), "2 messages still unsettled") {
		t.Errorf("Close with two unsettled messages returned %v", err)
	}
}

func TestL7_Close_counts_unsettled_messages_when_a_commit_hangs(t *testing.T) {
	b := testbed.New(t, emulator.Options{})
	b.CreateTunnel(tunnel.TunnelTypeStream)
	b.Emulator.Inject(emulator.Fault{Operation: "tunnel/checkpoint", Hang: true, Times: -1})
	s, messages := subscribe(t, b, func(c *subscriber.Config) {
		c.CloseTimeout = 50 * time.Millisecond
		c.HeartbeatInterval, c.HeartbeatTimeout = 30*time.Second, 300*time.Second // also the call's own bound
	})
	put(t, b, "a", 1)
	first := receive(t, messages)
	put(t, b, "b", 1) // in a page of its own
	receive(t, messages)
	first.Ack()
	testbed.Eventually(t, 5*time.Second, "a commit hangs", func() bool { return b.Emulator.Stats().Faults > 0 })
	if err := s.Close(); !errors.Is(err, subscriber.ErrDrainTimeout) {
		t.Errorf("Close with an unsettled message returned %v", err)
	}
}

func TestL7_client_is_ended_although_the_first_shutdown_call_fails(t *testing.T) {
	b := testbed.New(t, emulator.Options{})
	b.CreateTunnel(tunnel.TunnelTypeStream)
	long := func(c *subscriber.Config) { c.HeartbeatInterval, c.HeartbeatTimeout = 30*time.Second, 300*time.Second }
	s, messages := subscribe(t, b, long)
	put(t, b, "a", 1)
	receive(t, messages).Ack()
	b.Emulator.Inject(emulator.Fault{Operation: "tunnel/shutdown", Code: tunnel.ErrCodeServerUnavailable})
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	put(t, b, "b", 1)
	_, messages = subscribe(t, b, long)
	receive(t, messages).Ack() // within 10 s: only an ended client frees its channels so soon
}

func TestL8_failed_record_pauses_while_other_keys_flow(t *testing.T) {
	const pause = time.Second
	b := testbed.New(t, emulator.Options{})
	b.CreateTunnel(tunnel.TunnelTypeStream)
	_, messages := subscribe(t, b, func(c *subscriber.Config) {
		c.NackBackoff = func() backoff.BackOff { return backoff.NewConstantBackOff(pause) }
	})
	put(t, b, "poison", 1)
	first := receive(t, messages)
	held, _ := subscriber.RecordFromMessage(first)
	failed := time.Now()
	first.Nack()
	time.Sleep(100 * time.Millisecond) // the pause has begun
	put(t, b, "other", 1)
	other := receive(t, messages)
	wantName(t, other, "other/1")
	other.Ack()
	again := receive(t, messages)
	wantName(t, again, "poison/1")
	if took := time.Since(failed); took < pause {
		t.Errorf("it came again after %v, want %v at least", took, pause)
	}
	if r, _ := subscriber.RecordFromMessage(again); r.Attempt != 2 || held.Attempt != 1 {
		t.Errorf("attempt %d, and %d in the record that the first handler holds", r.Attempt, held.Attempt)
	}
	again.Ack()
}

func TestL8_record_that_failed_keeps_its_pauses_when_it_is_called_back(t *testing.T) {
	b := testbed.New(t, emulator.Options{})
	b.CreateTunnel(tunnel.TunnelTypeStream)
	var made atomic.Int32
	_, messages := subscribe(t, b, func(c *subscriber.Config) {
		c.NackBackoff = func() backoff.BackOff {
			made.Add(1)
			return backoff.NewConstantBackOff(10 * time.Millisecond)
		}
	})
	put(t, b, "a", 1, 2)
	first := receive(t, messages)
	d := deliveryOf(t, first)
	d.HandOff()
	receive(t, messages).Nack() // a/2 fails by itself
	second := receive(t, messages)
	d.CallBack(errors.New("the batch failed"))
	second.Nack() // the end of a called-back delivery
	first.Nack()
	again := receive(t, messages)
	wantName(t, again, "a/1")
	again.Ack()
	second = receive(t, messages)
	wantName(t, second, "a/2")
	second.Nack()
	second = receive(t, messages)
	wantName(t, second, "a/2")
	second.Ack()
	if n := made.Load(); n != 2 {
		t.Errorf("%d backoffs were made for two records that failed", n)
	}
}

// refuseOnce refuses the first record that it sees.
type refuseOnce struct{ once sync.Once }

func (u *refuseOnce) Unmarshal(r *subscriber.Record) (msg *message.Message, err error) {
	u.once.Do(func() { err = errors.New("refused") })
	if err != nil {
		return nil, err
	}
	return subscriber.JSON{}.Unmarshal(r)
}

func TestL8_failures_are_in_the_log_with_key_and_attempt(t *testing.T) {
	b := testbed.New(t, emulator.Options{})
	b.CreateTunnel(tunnel.TunnelTypeStream)
	cfg := testbed.Config(b.Emulator.Endpoint())
	cfg.NackBackoff = func() backoff.BackOff { return backoff.NewConstantBackOff(10 * time.Millisecond) }
	cfg.Unmarshaler = new(refuseOnce)
	lines := new(recorded[logLine])
	s, err := subscriber.New(cfg, keepLogger{lines: lines})
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	messages, err := s.Subscribe(t.Context(), testbed.Topic)
	if err != nil {
		t.Fatal(err)
	}
	put(t, b, "a", 1)
	receive(t, messages).Nack()
	receive(t, messages).Ack()
	logged := func(level watermill.LogLevel, attempt int) bool {
		return slices.ContainsFunc(lines.get(), func(l logLine) bool {
			return l.level == level && l.fields["key"] == `["a"]` && l.fields["attempt"] == attempt
		})
	}
	if !logged(watermill.ErrorLogLevel, 1) {
		t.Error("the record that the Unmarshaler refused is not in the log")
	}
	testbed.Eventually(t, 5*time.Second, "the message that was nacked is in the log", func() bool { return logged(watermill.DebugLogLevel, 2) })
}
