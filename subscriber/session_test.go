package subscriber

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/ThreeDotsLabs/watermill"
	"github.com/ThreeDotsLabs/watermill/message"
	"github.com/aliyun/aliyun-tablestore-go-sdk/tunnel"
	"github.com/aliyun/aliyun-tablestore-go-sdk/tunnel/protocol"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/protoadapt"

	"github.com/watermill-ots/watermill-ots/internal/plainbuffer"
	"github.com/watermill-ots/watermill-ots/ots"
)

// fakeTunnel is a fakeService with one tunnel, whose channel c1 is open at the
// first client. It has one page of records, then empty ones.
func fakeTunnel(records int) *fakeService {
	f := new(fakeService)
	f.always("describe", describeReply("tunnel-1"))
	var clients atomic.Int64
	f.on("connect", func([]byte) reply { return clientReply(fmt.Sprintf("client-%d", clients.Add(1))) })
	f.always("heartbeat", heartbeatReply("c1:1:OPEN"))
	f.always("getcheckpoint", checkpointReply("t0", 0))
	f.on("readrecords", func(body []byte) reply {
		var req protocol.ReadRecordsRequest
		if err := proto.Unmarshal(body, protoadapt.MessageV2Of(&req)); err != nil {
			panic(err)
		}
		if req.GetToken() != "t0" {
			return pageReply(req.GetToken(), nil)
		}
		var rs []*protocol.Record
		for i := range records {
			rs = append(rs, wireRecord(protocol.ActionType_PUT_ROW, &plainbuffer.Row{
				PrimaryKey:  []plainbuffer.Cell{{Name: "id", Value: plainbuffer.IntegerValue(int64(i)), HasValue: true}},
				HasSequence: true, Sequence: plainbuffer.Sequence{Timestamp: 1700000000000000, RowIndex: int32(i)},
			}, nil))
		}
		return pageReply("t1", rs)
	})
	return f
}

func describeReply(id string) reply {
	s := func(v string) *string { return &v }
	return reply{body: marshal(&protocol.DescribeTunnelResponse{Tunnel: &protocol.TunnelInfo{
		TunnelId: s(id), TunnelType: s("Stream"), TableName: s("table"), InstanceName: s("inst"), StreamId: s("stream-1"), Stage: s("ProcessStream"),
	}})}
}

func checkpointReply(token string, sequence int64) reply {
	return reply{body: marshal(&protocol.GetCheckpointResponse{Checkpoint: &token, SequenceNumber: &sequence})}
}

func pageReply(next string, records []*protocol.Record) reply {
	return reply{body: marshal(&protocol.ReadRecordsResponse{NextToken: &next, Records: records})}
}

// stored returns the tokens of the checkpoint calls.
func stored(t *testing.T, f *fakeService) (tokens []string) {
	t.Helper()
	for _, body := range f.bodies("checkpoint") {
		var req protocol.CheckpointRequest
		unmarshal(t, body, &req)
		tokens = append(tokens, fmt.Sprintf("%s@%d", req.GetCheckpoint(), req.GetSequenceNumber()))
	}
	return tokens
}

func fakeSubscriber(t *testing.T, f *fakeService, change func(*Config)) *Subscriber {
	t.Helper()
	cfg := Config{
		Endpoint: "http://localhost", Instance: "inst", AccessKeyID: "id", AccessKeySecret: "hush-hush", Transport: f,
		HeartbeatInterval: 5 * time.Second, HeartbeatTimeout: 30 * time.Second,
	}
	if change != nil {
		change(&cfg)
	}
	s, err := New(cfg, watermill.NopLogger{})
	if err != nil {
		t.Fatal(err)
	}
	return s
}

func subscribeTo(t *testing.T, s *Subscriber) <-chan *message.Message {
	t.Helper()
	messages, err := s.Subscribe(context.Background(), "table/tunnel")
	if err != nil {
		t.Fatal(err)
	}
	return messages
}

// closeWithin closes s and fails the test when that takes longer.
func closeWithin(t *testing.T, s *Subscriber, d time.Duration) error {
	t.Helper()
	start := time.Now()
	err := s.Close()
	if took := time.Since(start); took > d {
		t.Errorf("Close took %v, want at most %v", took, d)
	}
	return err
}

func TestSession_commits_what_was_acked_and_then_ends_the_client(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := fakeTunnel(2)
		s := fakeSubscriber(t, f, nil)
		messages := subscribeTo(t, s)
		for range 2 {
			(<-messages).Ack()
		}
		if err := closeWithin(t, s, 0); err != nil {
			t.Fatal(err)
		}
		if got := stored(t, f); len(got) != 1 || got[0] != "t1@1" {
			t.Errorf("stored %v, want t1 once", got)
		}
		f.mu.Lock()
		calls := slices.DeleteFunc(slices.Clone(f.calls), func(c fakeCall) bool { return c.op == "DescribeTable" }) // at any time
		last := calls[len(calls)-1]
		f.mu.Unlock()
		var req protocol.ShutdownRequest
		unmarshal(t, last.body, &req)
		if n := len(f.bodies("shutdown")); last.op != "shutdown" || n != 1 || req.GetClientId() != "client-1" {
			t.Errorf("last call is %s of %s, %d shutdowns; want one shutdown of client-1 at the end", last.op, req.GetClientId(), n)
		}
	})
}

func TestCheckpoint_numbers_count_up_from_the_stored_one(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := fakeTunnel(0).always("getcheckpoint", checkpointReply("t0", 41))
		pages := 0
		f.on("readrecords", func([]byte) reply {
			if pages == 3 {
				return pageReply("t3", nil)
			}
			pages++
			return pageReply(fmt.Sprintf("t%d", pages), []*protocol.Record{someRecord(int64(pages))})
		})
		s := fakeSubscriber(t, f, nil)
		messages := subscribeTo(t, s)
		for range 3 {
			(<-messages).Ack()
			time.Sleep(DefaultCheckpointInterval)
		}
		if err := s.Close(); err != nil {
			t.Error(err)
		}
		// Which pages a checkpoint takes together is a matter of time.
		got := stored(t, f)
		for i, checkpoint := range got {
			if want := fmt.Sprintf("@%d", 42+i); !strings.HasSuffix(checkpoint, want) {
				t.Errorf("stored %v: number %d is not %s", got, i, want)
			}
		}
		if len(got) < 2 || !strings.HasPrefix(got[len(got)-1], "t3@") {
			t.Errorf("stored %v, want several, t3 the last", got)
		}
	})
}

func TestL7_close_is_bounded_whatever_does_not_answer(t *testing.T) {
	const bound = DefaultCloseTimeout + 5*time.Second
	for _, op := range []string{"connect", "heartbeat", "getcheckpoint", "readrecords", "checkpoint", "shutdown"} {
		t.Run(op, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				f := fakeTunnel(2)
				s := fakeSubscriber(t, f, func(c *Config) { c.HeartbeatTimeout = 5 * time.Minute })
				if op != "readrecords" && op != "checkpoint" && op != "heartbeat" {
					f.always(op, reply{hang: true})
				}
				messages := subscribeTo(t, s)
				if op != "connect" && op != "getcheckpoint" {
					for range 2 {
						(<-messages).Ack()
					}
					f.always(op, reply{hang: true})
				}
				time.Sleep(time.Minute) // it hangs in the call
				closing := make(chan error, 1)
				go func() { closing <- closeWithin(t, s, bound) }()
				if err := <-closing; op == "checkpoint" && (!errors.Is(err, ErrNotCommitted) || errors.Is(err, ErrDrainTimeout)) || op != "checkpoint" && err != nil {
					t.Errorf("Close returned %v", err)
				}
				if _, open := <-messages; open {
					t.Error("the output is open")
				}
			})
		})
	}
}

func TestL7_close_names_unsettled_messages_also_when_a_checkpoint_hangs(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := fakeTunnel(3).always("checkpoint", reply{hang: true})
		s := fakeSubscriber(t, f, func(c *Config) { c.HeartbeatTimeout = 5 * time.Minute; c.CloseTimeout = time.Second })
		messages := subscribeTo(t, s)
		held := <-messages
		if err := closeWithin(t, s, time.Second+5*time.Second); !errors.Is(err, ErrDrainTimeout) {
			t.Errorf("Close returned %v", err)
		}
		if !errors.Is(context.Cause(held.Context()), ErrDrainTimeout) {
			t.Errorf("the held message's context ended with %v", context.Cause(held.Context()))
		}
	})
}

func TestSession_stopped_at_any_moment_of_its_start_ends_at_once(t *testing.T) {
	for _, answerAfter := range []time.Duration{0, 1, time.Second} {
		for _, stopAfter := range []time.Duration{0, 1, time.Second, time.Second + 1} {
			t.Run(fmt.Sprintf("answer after %v stop after %v", answerAfter, stopAfter), func(t *testing.T) {
				synctest.Test(t, func(t *testing.T) {
					f := fakeTunnel(0)
					slow := clientReply("client-1")
					slow.after = answerAfter
					f.always("connect", slow)
					s := fakeSubscriber(t, f, nil)
					messages := subscribeTo(t, s)
					time.Sleep(stopAfter)
					if err := closeWithin(t, s, tick); err != nil {
						t.Error(err)
					}
					if _, open := <-messages; open {
						t.Error("the output is open")
					}
					if connected := stopAfter > answerAfter; connected && len(f.bodies("shutdown")) != 1 {
						t.Errorf("%d shutdown calls for a client that was connected", len(f.bodies("shutdown")))
					}
				})
			})
		}
	}
}

func TestSession_connects_again_after_the_client_is_gone(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := fakeTunnel(1)
		s := fakeSubscriber(t, f, nil)
		messages := subscribeTo(t, s)
		first := <-messages
		f.on("heartbeat", func(body []byte) reply {
			var req protocol.HeartbeatRequest
			unmarshal(t, body, &req)
			if req.GetClientId() == "client-1" {
				return gone
			}
			return heartbeatReply("c1:3:OPEN")
		})
		again := <-messages
		if first.UUID != again.UUID {
			t.Errorf("UUID %s, then %s", first.UUID, again.UUID)
		}
		if cause := context.Cause(first.Context()); !errors.Is(cause, ErrChannelLost) {
			t.Errorf("the first delivery's context ended with %v", cause)
		}
		first.Ack() // too late: counts for nothing
		time.Sleep(time.Minute)
		if got := stored(t, f); len(got) != 0 {
			t.Errorf("stored %v on the ack of a lost channel", got)
		}
		again.Ack()
		time.Sleep(time.Minute) // empty pages with the same token store nothing more
		if got := stored(t, f); !slices.Equal(got, []string{"t1@1"}) {
			t.Errorf("stored %v, want t1", got)
		}
		if err := s.Close(); err != nil {
			t.Error(err)
		}
	})
}

func TestSession_tunnel_that_is_gone_closes_the_output_and_tells(t *testing.T) {
	for code, want := range map[string]error{tunnel.ErrCodeParamInvalid: ots.ErrTunnelGone, tunnel.ErrCodeTunnelExpired: ots.ErrTunnelExpired} {
		t.Run(code, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				f := fakeTunnel(1)
				s := fakeSubscriber(t, f, nil)
				messages := subscribeTo(t, s)
				(<-messages).Ack()
				if err := s.Err(); err != nil {
					t.Errorf("Err is %v while all is well", err)
				}
				f.always("heartbeat", errorReply(400, code))
				if _, open := <-messages; open {
					t.Error("another message")
				}
				if err := s.Err(); !errors.Is(err, want) || !strings.Contains(err.Error(), "table/tunnel") {
					t.Errorf("Err is %v, want %v and the topic", err, want)
				}
				if err := s.Close(); err != nil {
					t.Error(err)
				}
			})
		})
	}
}

func TestL5_terminated_is_reported_only_after_the_finish_token_is_stored(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := fakeTunnel(0)
		f.on("readrecords", func([]byte) reply { return pageReply(tunnel.FinishTag, []*protocol.Record{someRecord(1)}) })
		f.on("checkpoint", func() func([]byte) reply {
			fails := 3
			return func([]byte) reply {
				if fails > 0 {
					fails--
					return unavailable
				}
				return reply{}
			}
		}())
		ended := false
		f.on("heartbeat", func(body []byte) reply {
			var req protocol.HeartbeatRequest
			unmarshal(t, body, &req)
			for _, c := range listed(req.Channels) {
				if c == "c1:2:TERMINATED" {
					ended = true
					if got := stored(t, f); len(got) != 4 || got[3] != "finished@1" {
						t.Errorf("TERMINATED after the checkpoints %v", got)
					}
				}
			}
			if ended {
				return reply{}
			}
			return heartbeatReply("c1:1:OPEN")
		})
		s := fakeSubscriber(t, f, nil)
		messages := subscribeTo(t, s)
		msg := <-messages
		time.Sleep(time.Minute)
		synctest.Wait()
		if len(stored(t, f)) != 0 || ended {
			t.Error("finished before the ack")
		}
		msg.Ack()
		time.Sleep(10 * time.Second)
		synctest.Wait()
		if !ended {
			t.Error("TERMINATED is not reported")
		}
		if err := s.Close(); err != nil {
			t.Error(err)
		}
	})
}

func TestL4_closing_drains_commits_and_then_reports_close_within_a_tick(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := fakeTunnel(1)
		s := fakeSubscriber(t, f, nil)
		messages := subscribeTo(t, s)
		msg := <-messages
		var reported time.Time
		f.on("heartbeat", func(body []byte) reply {
			var req protocol.HeartbeatRequest
			unmarshal(t, body, &req)
			if slices.Contains(listed(req.Channels), "c1:3:CLOSE") {
				reported = time.Now()
				if got := stored(t, f); !slices.Equal(got, []string{"t1@1"}) {
					t.Errorf("CLOSE is reported with the checkpoints %v", got)
				}
				return reply{}
			}
			if !reported.IsZero() {
				return reply{}
			}
			return heartbeatReply("c1:2:CLOSING")
		})
		time.Sleep(8 * time.Second)
		synctest.Wait()
		if !reported.IsZero() {
			t.Error("CLOSE is reported while a message is out")
		}
		if cause := context.Cause(msg.Context()); cause != nil {
			t.Errorf("the context of a message that drains ended with %v", cause)
		}
		acked := time.Now()
		msg.Ack()
		time.Sleep(time.Second)
		synctest.Wait()
		if late := reported.Sub(acked); late < 0 || late > tick {
			t.Errorf("CLOSE is reported %v after the last ack, want a tick at most", late)
		}
		if err := s.Close(); err != nil {
			t.Error(err)
		}
	})
}

func TestConn_a_late_status_of_a_dropped_conn_starts_nothing(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := fakeTunnel(0)
		s := sessionOf(subscriptionOf(f, Config{}, nil))
		c := &conn{session: s, id: "c1", clientID: "client-1"}
		if !c.Closed() { // the SDK asks when it drops the channel from its table
			t.Fatal("a conn without a run is not closed")
		}
		c.NotifyStatus(&tunnel.ChannelStatus{ChannelId: "c1", Version: 1, Status: protocol.ChannelStatus_OPEN})
		if c.active() != nil {
			t.Error("a run was started that nothing can end")
			s.cancel(errSessionOver)
			s.runs.Wait()
		}
	})
}
