package subscriber_test

import (
	"bytes"
	"context"
	"errors"
	"io"
	"net/http"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/ThreeDotsLabs/watermill"
	"github.com/aliyun/aliyun-tablestore-go-sdk/tunnel"
	"github.com/aliyun/aliyun-tablestore-go-sdk/tunnel/protocol"
	"github.com/cenkalti/backoff/v4"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/protoadapt"

	"github.com/watermill-ots/watermill-ots/emulator"
	"github.com/watermill-ots/watermill-ots/internal/testbed"
	"github.com/watermill-ots/watermill-ots/ots"
	"github.com/watermill-ots/watermill-ots/subscriber"
)

// tokenGate is a transport that refuses requests without the STS token that is
// valid now, as the service does.
type tokenGate struct {
	valid   atomic.Pointer[string]
	refused atomic.Int64
}

func (g *tokenGate) RoundTrip(r *http.Request) (*http.Response, error) {
	if r.Header.Get("x-ots-ststoken") == *g.valid.Load() {
		return http.DefaultTransport.RoundTrip(r)
	}
	g.refused.Add(1)
	code, text := "OTSAuthFailed", "The security token is expired."
	body, err := proto.Marshal(protoadapt.MessageV2Of(&protocol.Error{Code: &code, Message: &text}))
	if err != nil {
		return nil, err
	}
	return &http.Response{
		StatusCode: http.StatusForbidden, Status: "403 Forbidden", Proto: "HTTP/1.1", ProtoMajor: 1, ProtoMinor: 1,
		Header: http.Header{}, Request: r, ContentLength: int64(len(body)), Body: io.NopCloser(bytes.NewReader(body)),
	}, nil
}

func TestCredentials_that_are_rotated_while_running_are_asked_for_again(t *testing.T) {
	t.Parallel() // it waits in real time
	b := testbed.New(t, emulator.Options{})
	b.CreateTunnel(tunnel.TunnelTypeStream)
	gate := new(tokenGate)
	tokens := []string{"token-1", "token-2"}
	gate.valid.Store(&tokens[0])
	_, messages := subscribe(t, b, func(c *subscriber.Config) {
		c.Transport = gate
		c.HeartbeatTimeout = 10 * time.Second
		// The provider gives what is valid, and says that it stays so for ever:
		// the service takes it back before.
		c.Credentials = ots.CredentialsProviderFunc(func(context.Context) (ots.Credentials, error) {
			return ots.Credentials{AccessKeyID: testbed.KeyID, AccessKeySecret: testbed.KeySecret, SecurityToken: *gate.valid.Load()}, nil
		})
	})
	put(t, b, "a", 1)
	first := receive(t, messages)
	gate.valid.Store(&tokens[1])
	testbed.Eventually(t, 5*time.Second, "the old token is refused", func() bool { return gate.refused.Load() > 0 })
	put(t, b, "a", 2)
	first.Ack() // the channel is still ours: the ack counts
	second := receive(t, messages)
	wantName(t, second, "a/2")
	second.Ack()
}

func TestEndpoint_that_is_gone_for_longer_than_the_heartbeat_timeout_is_connected_again(t *testing.T) {
	t.Parallel() // it waits in real time
	dir := t.TempDir()
	opts := emulator.Options{DataDir: dir, Instance: testbed.Instance, AccessKeyID: testbed.KeyID, AccessKeySecret: testbed.KeySecret}
	b := testbed.New(t, opts)
	id := b.CreateTunnel(tunnel.TunnelTypeStream)
	s, messages := subscribe(t, b, nil) // HeartbeatTimeout 1s
	put(t, b, "a", 1, 2)
	first := receive(t, messages)
	addr := strings.TrimPrefix(b.Emulator.Endpoint(), "http://")
	if err := b.Emulator.Close(); err != nil {
		t.Fatal(err)
	}
	select {
	case <-first.Context().Done():
	case <-time.After(5 * time.Second):
		t.Fatal("L4: the message's context lives although no heartbeat was answered for longer than the timeout")
	}
	if cause := context.Cause(first.Context()); !errors.Is(cause, subscriber.ErrChannelLost) || !errors.Is(cause, context.Canceled) {
		t.Errorf("L4: the cause is %v", cause)
	}
	first.Ack() // fenced: changes nothing
	time.Sleep(500 * time.Millisecond)
	opts.Addr = addr
	again, err := emulator.Start(opts)
	if err != nil {
		t.Fatal(err)
	}
	defer again.Close()
	for _, want := range []string{"a/1", "a/2"} {
		msg := receive(t, messages)
		wantName(t, msg, want)
		msg.Ack()
	}
	testbed.Eventually(t, 5*time.Second, "both are committed", func() bool {
		for _, at := range b.Committed(id) {
			r, _ := ots.RecordFromMessage(first)
			return at.After(time.UnixMicro(r.Sequence.Timestamp))
		}
		return false
	})
	if err := s.Close(); err != nil {
		t.Error(err)
	}
}

func TestClock_that_is_wrong_is_named_in_the_log_and_survived(t *testing.T) {
	t.Parallel()
	b := testbed.New(t, emulator.Options{})
	b.CreateTunnel(tunnel.TunnelTypeStream)
	logged := new(recorded[logLine])
	s, err := subscriber.New(testbed.Config(b.Emulator.Endpoint()), keepLogger{lines: logged})
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	messages, err := s.Subscribe(context.Background(), testbed.Topic)
	if err != nil {
		t.Fatal(err)
	}
	put(t, b, "a", 1)
	receive(t, messages).Ack()
	b.Emulator.SkewClock(20 * time.Minute) // more than the 15 that the service takes
	testbed.Eventually(t, 10*time.Second, "the log names the skew", func() bool {
		return slices.ContainsFunc(logged.get(), func(l logLine) bool {
			return errors.Is(l.err, ots.ErrAuth) && strings.Contains(l.err.Error(), "system time")
		})
	})
	b.Emulator.SkewClock(0)
	put(t, b, "a", 2)
	msg := receive(t, messages)
	if name(msg) == "a/1" { // the emulator's jump may have expired the client before its first checkpoint
		msg.Ack()
		msg = receive(t, messages)
	}
	wantName(t, msg, "a/2")
	msg.Ack()
}

func TestChannel_that_cannot_be_read_is_opened_ever_less_often_and_recovers(t *testing.T) {
	t.Parallel() // it waits in real time
	b := testbed.New(t, emulator.Options{})
	b.CreateTunnel(tunnel.TunnelTypeStream)
	b.Emulator.Inject(emulator.Fault{Operation: "tunnel/readrecords", Code: "OTSParameterInvalid", Times: -1})
	_, messages := subscribe(t, b, func(c *subscriber.Config) {
		c.ReconnectBackoff = func() backoff.BackOff { return backoff.NewConstantBackOff(time.Second) }
	})
	put(t, b, "a", 1)
	receiveNone(t, messages, 2500*time.Millisecond)
	if n := b.Emulator.Stats().Operations["tunnel/readrecords"].Requests; n < 2 || n > 4 {
		t.Errorf("%d reads in 2.5s with a second's pause between two", n)
	}
	b.Emulator.ClearFaults()
	msg := receive(t, messages)
	wantName(t, msg, "a/1")
	msg.Ack()
}

// logLine is a line that the subscriber logged.
type logLine struct {
	level  watermill.LogLevel
	err    error
	fields watermill.LogFields
}

// keepLogger keeps errors and debug lines. Watermill's own capturing logger
// cannot be read while it is written to.
type keepLogger struct {
	watermill.NopLogger
	lines *recorded[logLine]
}

func (l keepLogger) Error(_ string, err error, f watermill.LogFields) {
	l.lines.add(logLine{watermill.ErrorLogLevel, err, f})
}

func (l keepLogger) Debug(_ string, f watermill.LogFields) {
	l.lines.add(logLine{watermill.DebugLogLevel, nil, f})
}

func (l keepLogger) With(watermill.LogFields) watermill.LoggerAdapter { return l }
