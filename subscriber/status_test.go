package subscriber_test

import (
	"context"
	"encoding/json"
	"errors"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/ThreeDotsLabs/watermill/message"
	"github.com/aliyun/aliyun-tablestore-go-sdk/tunnel"
	"github.com/cenkalti/backoff/v4"

	"github.com/watermill-ots/watermill-ots/emulator"
	"github.com/watermill-ots/watermill-ots/internal/testbed"
	"github.com/watermill-ots/watermill-ots/ots"
	"github.com/watermill-ots/watermill-ots/subscriber"
)

// only returns the status of the one subscription there is.
func only(t *testing.T, s *subscriber.Subscriber) subscriber.SubscriptionStatus {
	t.Helper()
	st := s.Status()
	if len(st.Subscriptions) != 1 {
		t.Fatalf("%d subscriptions, want one", len(st.Subscriptions))
	}
	return st.Subscriptions[0]
}

func TestStatus_counts_what_was_read_delivered_acked_and_nacked(t *testing.T) {
	b := twoChannels(t)
	s, messages := subscribe(t, b, func(c *subscriber.Config) {
		c.NackBackoff = func() backoff.BackOff { return backoff.NewConstantBackOff(time.Millisecond) }
	})
	b.PutAll(40, 2)
	for settled, nacked := 0, 0; settled < 80; {
		msg := receive(t, messages)
		if r, _ := ots.RecordFromMessage(msg); r.Attempt == 1 && nacked < 7 {
			nacked++
			msg.Nack()
			continue
		}
		settled++
		msg.Ack()
	}
	testbed.Eventually(t, 5*time.Second, "all acks are counted and committed, and a read found nothing more", func() bool {
		st := only(t, s)
		return st.Totals.Acked == 80 && st.InFlight == 0 && st.Totals.Checkpoints >= 2 && st.Totals.ReadsEmpty > 0
	})
	st := only(t, s)
	got := st.Totals
	served := b.Emulator.Stats().Operations["tunnel/readrecords"]
	if reads := got.ReadsFull + got.ReadsPartial + got.ReadsEmpty; reads > uint64(served.Requests) || reads == 0 || got.ReadsEmpty == 0 {
		t.Errorf("%d reads, the service answered %d: %+v", reads, served.Requests, got)
	}
	if got.BytesRead == 0 || got.Heartbeats == 0 {
		t.Errorf("no bytes or no heartbeats: %+v", got)
	}
	got.BytesRead, got.Heartbeats, got.Checkpoints = 0, 0, 0
	got.ReadsFull, got.ReadsPartial, got.ReadsEmpty = 0, 0, 0
	want := subscriber.Totals{
		RecordsRead: 80, Delivered: 87, Redelivered: 7, Acked: 80, Nacked: 7, ChannelsOpened: 2, Connects: 1,
	}
	if got != want {
		t.Errorf("totals are\n%+v, want\n%+v", got, want)
	}
	if len(st.Failing) != 0 || len(st.Errors) != 0 || st.LastError != nil {
		t.Errorf("failing %+v, errors %+v, %+v", st.Failing, st.Errors, st.LastError)
	}
	read := uint64(0)
	for _, c := range st.Channels {
		read += c.Read
		if c.State != subscriber.ChannelOpen || c.Base || c.ClientID != st.Clients[0].ClientID || c.Read != c.Acked {
			t.Errorf("channel %+v", c)
		}
	}
	if read != 80 || len(st.Channels) != 2 {
		t.Errorf("%d channels with %d records", len(st.Channels), read)
	}
}

func TestStatus_tells_topic_clients_and_limits(t *testing.T) {
	b := testbed.New(t, emulator.Options{})
	id := b.CreateTunnel(tunnel.TunnelTypeStream)
	s, _ := subscribe(t, b, func(c *subscriber.Config) { c.WorkerSize = 2; c.MaxInFlight = 123 })
	testbed.Eventually(t, 5*time.Second, "two clients are connected and the stream's retention is known", func() bool {
		st := only(t, s)
		return st.Connected && st.Clients[0].Connected && st.Clients[1].Connected && st.Retention == 24*time.Hour
	})
	st := only(t, s)
	if st.Topic != testbed.Topic || st.Table != testbed.Table || st.Tunnel != testbed.Tunnel || st.TunnelID != id || st.TunnelType != subscriber.Stream {
		t.Errorf("names: %+v", st)
	}
	if st.MaxInFlight != 123 || st.MaxInFlightBytes != subscriber.DefaultMaxInFlightBytes || st.Started.IsZero() || st.Ended || st.Draining || st.Fatal != "" {
		t.Errorf("%+v", st)
	}
	one, two := st.Clients[0], st.Clients[1]
	if one.Worker != 0 || two.Worker != 1 || one.ClientID == two.ClientID || one.Reconnects != 0 || time.Since(one.LastHeartbeat) > 5*time.Second {
		t.Errorf("clients %+v, %+v", one, two)
	}
}

func TestStatus_lag_is_the_age_of_the_oldest_change_that_is_not_acked(t *testing.T) {
	t.Parallel()
	b := testbed.New(t, emulator.Options{})
	b.CreateTunnel(tunnel.TunnelTypeStream)
	put(t, b, "a", 1) // before any read, which could be asked for before the change and have it all the same
	put(t, b, "b", 1)
	s, messages := subscribe(t, b, nil)
	first, second := receive(t, messages), receive(t, messages)
	second.Ack()
	rec, _ := ots.RecordFromMessage(first)
	changed := time.UnixMicro(rec.Sequence.Timestamp)
	testbed.Eventually(t, 5*time.Second, "the first change is half a second old", func() bool { return time.Since(changed) > 500*time.Millisecond })
	st := only(t, s)
	c := st.Channels[0]
	if !c.Position.Equal(changed) || c.Lag < 500*time.Millisecond || c.Lag != st.Lag {
		t.Errorf("position %v, lag %v, of the subscription %v; the oldest change is of %v", c.Position, c.Lag, st.Lag, changed)
	}
	if o := c.Oldest; o == nil || o.Key != `["a"]` || o.Attempts != 1 || o.Failures != 0 || o.Age <= 0 || o.Age > c.Lag {
		t.Errorf("oldest is %+v", o)
	}
	if c.InFlight != 1 || c.InFlightBytes == 0 || c.WithHandlers != 1 || st.InFlight != 1 {
		t.Errorf("in flight: %+v", c)
	}
	first.Ack()
	testbed.Eventually(t, 5*time.Second, "a channel that has caught up lags by its polls, its checkpoint by its interval", func() bool {
		c := only(t, s).Channels[0]
		return c.InFlight == 0 && c.Oldest == nil && c.Lag < 400*time.Millisecond && c.Position.After(changed) && c.PollInterval > 0 && c.CheckpointAge < 400*time.Millisecond
	})
}

func TestStatus_channel_with_a_full_window_waits(t *testing.T) {
	b := testbed.New(t, emulator.Options{})
	b.CreateTunnel(tunnel.TunnelTypeStream)
	s, messages := subscribe(t, b, func(c *subscriber.Config) { c.MaxInFlight = 1 })
	put(t, b, "a", 1)
	msg := receive(t, messages)
	testbed.Eventually(t, 5*time.Second, "the window is full", func() bool { return only(t, s).Channels[0].WindowFull })
	msg.Ack()
	testbed.Eventually(t, 5*time.Second, "the window has room", func() bool { return !only(t, s).Channels[0].WindowFull })
}

func TestStatus_names_failing_records_with_attempts_and_the_last_error(t *testing.T) {
	b := testbed.New(t, emulator.Options{})
	b.CreateTunnel(tunnel.TunnelTypeStream)
	s, messages := subscribe(t, b, func(c *subscriber.Config) {
		c.NackBackoff = func() backoff.BackOff { return backoff.NewConstantBackOff(10 * time.Millisecond) }
	})
	put(t, b, "plain", 1)
	put(t, b, "told", 1)
	var held []*message.Message
	for len(held) < 2 { // each fails once, and is held then
		msg := receive(t, messages)
		if r, _ := ots.RecordFromMessage(msg); r.Attempt > 1 {
			held = append(held, msg)
			continue
		}
		if name(msg) == "told/1" {
			deliveryOf(t, msg).CallBack(errors.New("no such customer"))
		}
		msg.Nack()
	}
	testbed.Eventually(t, 5*time.Second, "two records fail", func() bool { return only(t, s).FailingTotal == 2 })
	failing := only(t, s).Failing
	i := slices.IndexFunc(failing, func(f subscriber.FailingRecord) bool { return f.Key == `["told"]` })
	if i < 0 || len(failing) != 2 {
		t.Fatalf("failing are %+v", failing)
	}
	told, plain := failing[i], failing[1-i]
	if told.Error != "no such customer" || told.Attempts != 1 || told.Type != "put" || told.Channel == "" || told.Sequence == "" || told.First.IsZero() || told.Last.Before(told.First) {
		t.Errorf("told is %+v", told)
	}
	if plain.Key != `["plain"]` || plain.Error != "message nacked" {
		t.Errorf("plain is %+v", plain)
	}
	for _, msg := range held {
		msg.Ack()
	}
}

func TestStatus_lists_at_most_MaxFailing_records_the_worst_first(t *testing.T) {
	b := testbed.New(t, emulator.Options{})
	b.CreateTunnel(tunnel.TunnelTypeStream)
	s, messages := subscribe(t, b, func(c *subscriber.Config) {
		c.NackBackoff = func() backoff.BackOff { return backoff.NewConstantBackOff(10 * time.Millisecond) }
	})
	const n = subscriber.MaxFailing + 5
	b.PutAll(n, 1)
	var held []*message.Message
	for len(held) < n { // each fails once and is held then, one fails three times
		msg := receive(t, messages)
		if r, _ := ots.RecordFromMessage(msg); r.Attempt == 1 || r.KeyText() == `["key-0003"]` && r.Attempt <= 3 {
			msg.Nack()
			continue
		}
		held = append(held, msg)
	}
	testbed.Eventually(t, 5*time.Second, "all fail, one of them three times", func() bool {
		st := only(t, s)
		return st.FailingTotal == n && st.Failing[0].Attempts == 3
	})
	st := only(t, s)
	if st.FailingTotal != n || len(st.Failing) != subscriber.MaxFailing || st.Failing[0].Key != `["key-0003"]` || st.Failing[0].Attempts != 3 {
		t.Errorf("%d of %d records, the first is %+v", len(st.Failing), st.FailingTotal, st.Failing[0])
	}
	for _, msg := range held {
		msg.Ack()
	}
}

func TestStatus_record_that_is_acked_at_last_fails_no_more(t *testing.T) {
	b := testbed.New(t, emulator.Options{})
	b.CreateTunnel(tunnel.TunnelTypeStream)
	s, messages := subscribe(t, b, nil)
	put(t, b, "a", 1)
	receive(t, messages).Nack()
	receive(t, messages).Ack()
	testbed.Eventually(t, 5*time.Second, "nothing fails", func() bool {
		st := only(t, s)
		return st.Totals.Acked == 1 && st.FailingTotal == 0
	})
}

func TestStatus_counts_failed_calls_by_operation_and_code(t *testing.T) {
	t.Parallel()
	b := testbed.New(t, emulator.Options{})
	b.CreateTunnel(tunnel.TunnelTypeStream)
	b.Emulator.Inject(emulator.Fault{Operation: "tunnel/readrecords", Code: "OTSServerUnavailable", Times: 2})
	b.Emulator.Inject(emulator.Fault{Operation: "tunnel/checkpoint", Break: emulator.BeforeRequest})
	b.Emulator.Inject(emulator.Fault{Operation: "tunnel/connect", Code: "OTSQuotaExhausted"})
	s, messages := subscribe(t, b, nil)
	put(t, b, "a", 1)
	receive(t, messages).Ack()
	count := func(op, code string) uint64 {
		for _, e := range only(t, s).Errors {
			if e.Op == op && e.Code == code {
				return e.Count
			}
		}
		return 0
	}
	testbed.Eventually(t, 10*time.Second, "the faults are counted", func() bool {
		return count("readrecords", "OTSServerUnavailable") == 2 && count("checkpoint", "network") == 1 && count("connect", "OTSQuotaExhausted") == 1
	})
	st := only(t, s)
	if st.LastError == nil || st.LastError.Error == "" || time.Since(st.LastError.Time) > time.Minute || st.Channels[0].LastError == nil {
		t.Errorf("last error %+v, of the channel %+v", st.LastError, st.Channels[0].LastError)
	}
	if st.Totals.ReadsFailed != 2 || st.Totals.CheckpointsFailed != 1 {
		t.Errorf("%+v", st.Totals)
	}
}

func TestStatus_counts_sessions_that_follow_each_other(t *testing.T) {
	b := testbed.New(t, emulator.Options{})
	b.CreateTunnel(tunnel.TunnelTypeStream)
	s, _ := subscribe(t, b, func(c *subscriber.Config) {
		c.ReconnectBackoff = func() backoff.BackOff { return backoff.NewConstantBackOff(10 * time.Millisecond) }
	})
	testbed.Eventually(t, 5*time.Second, "a channel is open", func() bool { return len(only(t, s).Channels) == 1 })
	b.Emulator.Inject(emulator.Fault{Operation: "tunnel/heartbeat", Code: "OTSResourceGone"})
	testbed.Eventually(t, 5*time.Second, "another session has the channel", func() bool {
		st := only(t, s)
		return st.Totals.Connects == 2 && st.Totals.ChannelsOpened == 2 && st.Clients[0].Connected
	})
	st := only(t, s)
	c := st.Clients[0]
	if c.Reconnects != 1 || c.LastError == nil || c.LastError.Op != "heartbeat" || c.LastError.Code != "OTSResourceGone" {
		t.Errorf("client %+v, %+v", c, c.LastError)
	}
	if st.Totals.ChannelsLost != 1 || st.Totals.HeartbeatsFailed != 1 || st.Totals.Reconnects != 1 {
		t.Errorf("%+v", st.Totals)
	}
}

func TestStatus_counts_channels_that_the_service_moves(t *testing.T) {
	t.Parallel() // it waits in real time
	b := twoChannels(t)
	s, _ := subscribe(t, b, nil)
	testbed.Eventually(t, 5*time.Second, "both channels are open", func() bool { return len(only(t, s).Channels) == 2 })
	other, _ := subscribe(t, b, nil)
	testbed.Eventually(t, 10*time.Second, "one of them has moved", func() bool {
		return len(only(t, s).Channels) == 1 && len(only(t, other).Channels) == 1
	})
	if got := only(t, s).Totals; got.Rebalances != 1 || got.ChannelsClosed != 1 || got.Drains != 1 || got.ChannelsLost != 0 {
		t.Errorf("%+v", got)
	}
}

func TestStatus_keeps_the_totals_of_subscriptions_that_have_ended(t *testing.T) {
	b := testbed.New(t, emulator.Options{})
	b.CreateTunnel(tunnel.TunnelTypeStream)
	s, err := subscriber.New(testbed.Config(b.Emulator.Endpoint()), testLogger(t))
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	for n := 1; n <= 3; n++ {
		ctx, cancel := context.WithCancel(t.Context())
		messages, err := s.Subscribe(ctx, testbed.Topic)
		if err != nil {
			t.Fatal(err)
		}
		put(t, b, "a", n)
		receive(t, messages).Ack()
		testbed.Eventually(t, 5*time.Second, "the ack is counted", func() bool { return s.Status().Subscriptions[0].Totals.Acked == 1 })
		cancel()
		for range messages { // closed when the subscription has ended
			t.Error("a message after the end")
		}
		st := only(t, s)
		if !st.Ended || st.Connected || st.Topic != testbed.Topic || st.Totals.Acked != uint64(n) || st.Totals.Connects != uint64(n) || st.Totals.ChannelsClosed != uint64(n) || len(st.Channels) != 0 {
			t.Fatalf("after %d: %+v", n, st)
		}
	}
	if err := s.Close(); err != nil {
		t.Error(err)
	}
	if st := s.Status(); !st.Closed || len(st.Subscriptions) != 1 {
		t.Errorf("after Close: %+v", st)
	}
}

func TestStatus_tells_why_a_subscription_ended_by_itself(t *testing.T) {
	b := testbed.New(t, emulator.Options{})
	b.CreateTunnel(tunnel.TunnelTypeStream)
	s, messages := subscribe(t, b, nil)
	testbed.Eventually(t, 5*time.Second, "a channel is open", func() bool { return len(only(t, s).Channels) == 1 })
	if _, err := b.Tunnels.DeleteTunnel(&tunnel.DeleteTunnelRequest{TableName: testbed.Table, TunnelName: testbed.Tunnel}); err != nil {
		t.Fatal(err)
	}
	for range messages {
		t.Error("a message of a deleted tunnel")
	}
	st := only(t, s)
	if err := s.Err(); !st.Ended || err == nil || st.Fatal != err.Error() || !errors.Is(err, ots.ErrTunnelGone) {
		t.Errorf("%+v; Err is %v", st, err)
	}
}

// TestStatus_is_consistent looks while records flow: effects never outrun causes.
func TestStatus_is_consistent_while_everything_goes_on(t *testing.T) {
	b := twoChannels(t)
	s, messages := subscribe(t, b, func(c *subscriber.Config) {
		c.NackBackoff = func() backoff.BackOff { return backoff.NewConstantBackOff(time.Millisecond) }
	})
	stop := make(chan struct{})
	var looks sync.WaitGroup
	looks.Go(func() { // ends with stop
		var before subscriber.Totals
		for {
			select {
			case <-stop:
				return
			default:
			}
			st := only(t, s)
			now := st.Totals
			if now.Acked+now.Nacked > now.Delivered || now.Delivered-now.Redelivered > now.RecordsRead || now.Redelivered > now.Delivered {
				t.Errorf("effects outrun causes: %+v", now)
				return
			}
			if now.Acked < before.Acked || now.Delivered < before.Delivered || now.RecordsRead < before.RecordsRead {
				t.Errorf("totals went back from %+v to %+v", before, now)
				return
			}
			before = now
		}
	})
	b.PutAll(40, 20)
	for settled := 0; settled < 800; {
		msg := receive(t, messages)
		if r, _ := ots.RecordFromMessage(msg); r.Attempt == 1 && settled%5 == 0 {
			msg.Nack()
			continue
		}
		settled++
		msg.Ack()
	}
	close(stop)
	looks.Wait()
}

func TestStatus_in_JSON_is_what_it_was_and_holds_no_secret(t *testing.T) {
	b := testbed.New(t, emulator.Options{})
	b.CreateTunnel(tunnel.TunnelTypeStream)
	s, messages := subscribe(t, b, nil)
	put(t, b, "a", 1)
	receive(t, messages).Nack()
	testbed.Eventually(t, 5*time.Second, "the nack is counted", func() bool { return only(t, s).FailingTotal == 1 })
	text, err := json.Marshal(s.Status())
	if err != nil {
		t.Fatal(err)
	}
	for _, secret := range []string{testbed.KeySecret, testbed.KeyID} {
		if strings.Contains(string(text), secret) {
			t.Errorf("the key is in %s", text)
		}
	}
	var back subscriber.Status
	if err := json.Unmarshal(text, &back); err != nil {
		t.Fatal(err)
	}
	again, err := json.Marshal(back)
	if err != nil || string(again) != string(text) {
		t.Errorf("%v: \n%s became\n%s", err, text, again)
	}
	if strings.Contains(string(text), ":null") {
		t.Errorf("a list is null: %s", text)
	}
}

func TestOnAck_is_told_of_each_ack_with_its_delay(t *testing.T) {
	b := testbed.New(t, emulator.Options{})
	b.CreateTunnel(tunnel.TunnelTypeStream)
	told := make(chan subscriber.Acked, 10)
	_, messages := subscribe(t, b, func(c *subscriber.Config) {
		c.OnAck = func(a subscriber.Acked) { told <- a }
		c.NackBackoff = func() backoff.BackOff { return backoff.NewConstantBackOff(50 * time.Millisecond) }
	})
	put(t, b, "a", 1)
	receive(t, messages).Nack()
	msg := receive(t, messages)
	rec, _ := ots.RecordFromMessage(msg)
	msg.Ack()
	a := <-told
	if a.Instance != testbed.Instance || a.Topic != testbed.Topic || a.Attempt != 2 || !a.Changed.Equal(time.UnixMicro(rec.Sequence.Timestamp)) || a.Delay < 40*time.Millisecond || a.Handling <= 0 || a.Handling > a.Delay {
		t.Errorf("told %+v", a)
	}
	if len(told) != 0 {
		t.Errorf("told of an ack that was none: %+v", <-told)
	}
}

// picky refuses the first record it sees of key "refused", and skips those of key "skipped".
type picky struct{ refused sync.Once }

func (u *picky) Unmarshal(r *ots.Record) (msg *message.Message, err error) {
	switch r.KeyText() {
	case `["refused"]`:
		u.refused.Do(func() { err = errors.New("refused") })
	case `["skipped"]`:
		err = ots.ErrSkip
	}
	if err != nil {
		return nil, err
	}
	return subscriber.JSON{}.Unmarshal(r)
}

func TestStatus_counts_each_other_end_of_a_record(t *testing.T) {
	b := testbed.New(t, emulator.Options{})
	b.CreateTunnel(tunnel.TunnelTypeStream)
	s, messages := subscribe(t, b, func(c *subscriber.Config) {
		c.Unmarshaler = new(picky)
		c.CloseTimeout = 50 * time.Millisecond
		c.NackBackoff = func() backoff.BackOff { return backoff.NewConstantBackOff(time.Millisecond) }
	})
	put(t, b, "refused", 1)
	put(t, b, "skipped", 1)
	receive(t, messages).Ack()
	put(t, b, "a", 1, 2)
	first := receive(t, messages)
	deliveryOf(t, first).HandOff()
	second := receive(t, messages)
	first.Nack() // calls the second back
	<-second.Context().Done()
	second.Nack()
	for range 2 {
		receive(t, messages).Ack()
	}
	put(t, b, "held", 1)
	receive(t, messages) // never settled
	testbed.Eventually(t, 5*time.Second, "all acks are counted", func() bool { return only(t, s).Totals.Acked == 3 })
	if err := s.Close(); !errors.Is(err, subscriber.ErrDrainTimeout) {
		t.Errorf("Close: %v", err)
	}
	got := only(t, s).Totals
	if got.Refused != 1 || got.Nacked != 2 || got.Skipped != 1 || got.CalledBack != 1 || got.Abandoned != 1 || got.Delivered != 6 || got.Redelivered != 3 || got.Drains != 1 {
		t.Errorf("%+v", got)
	}
}

func TestStatus_of_base_data_has_no_lag_and_counts_channels_that_finish(t *testing.T) {
	b := testbed.New(t, emulator.Options{})
	put(t, b, "a", 1)
	b.CreateTunnel(tunnel.TunnelTypeBaseStream)
	s, messages := subscribe(t, b, nil)
	row := receive(t, messages)
	if c := only(t, s).Channels[0]; !c.Base || c.Lag != 0 || !c.Position.IsZero() || c.Oldest == nil || c.Oldest.Key != `["a"]` {
		t.Errorf("base data: %+v", c)
	}
	row.Ack()
	testbed.Eventually(t, 10*time.Second, "the stream follows", func() bool {
		st := only(t, s)
		return len(st.Channels) == 1 && !st.Channels[0].Base && st.Totals.ChannelsFinished == 1 && st.Totals.ChannelsOpened == 2
	})
}

func TestStatus_tells_the_states_of_a_channel(t *testing.T) {
	t.Parallel()
	b := testbed.New(t, emulator.Options{})
	b.CreateTunnel(tunnel.TunnelTypeStream)
	state := func(s *subscriber.Subscriber, want subscriber.ChannelState) func() bool {
		return func() bool {
			c := only(t, s).Channels
			return len(c) == 1 && c[0].State == want
		}
	}
	b.Emulator.Inject(emulator.Fault{Operation: "tunnel/getcheckpoint", Code: "OTSServerUnavailable", Times: -1})
	s, messages := subscribe(t, b, func(c *subscriber.Config) {
		c.ReadBackoff = func() backoff.BackOff { return backoff.NewConstantBackOff(10 * time.Millisecond) }
		c.ReconnectBackoff = func() backoff.BackOff { return backoff.NewConstantBackOff(300 * time.Millisecond) }
	})
	testbed.Eventually(t, 5*time.Second, "its checkpoint cannot be had", state(s, subscriber.ChannelOpening))
	b.Emulator.ClearFaults()
	testbed.Eventually(t, 5*time.Second, "it is open", state(s, subscriber.ChannelOpen))
	b.Emulator.Inject(emulator.Fault{Operation: "tunnel/readrecords", Code: "OTSParameterInvalid"})
	testbed.Eventually(t, 5*time.Second, "it cannot be read", state(s, subscriber.ChannelFailing))
	testbed.Eventually(t, 5*time.Second, "it is open again", state(s, subscriber.ChannelOpen))

	put(t, b, "a", 1)
	msg := receive(t, messages)
	closed := make(chan error, 1)
	go func() { closed <- s.Close() }() // ends when the message is acked; received below
	testbed.Eventually(t, 5*time.Second, "it drains", func() bool {
		return state(s, subscriber.ChannelDraining)() && only(t, s).Draining
	})
	msg.Ack()
	if err := <-closed; err != nil {
		t.Error(err)
	}
	if st := only(t, s); len(st.Channels) != 0 || !st.Ended || st.Totals.Rebalances != 0 {
		t.Errorf("after Close: %+v", st)
	}
}
