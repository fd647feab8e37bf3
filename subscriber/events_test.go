package subscriber_test

import (
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/aliyun/aliyun-tablestore-go-sdk/tunnel"

	"github.com/watermill-ots/watermill-ots/emulator"
	"github.com/watermill-ots/watermill-ots/internal/testbed"
	"github.com/watermill-ots/watermill-ots/ots"
	"github.com/watermill-ots/watermill-ots/subscriber"
)

// recorded collects what callbacks were called with.
type recorded[T any] struct {
	mu  sync.Mutex
	all []T
}

func (r *recorded[T]) add(v T) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.all = append(r.all, v)
}

func (r *recorded[T]) get() []T {
	r.mu.Lock()
	defer r.mu.Unlock()
	return slices.Clone(r.all)
}

func TestOnPhase_tells_once_that_the_stream_starts_before_its_first_change(t *testing.T) {
	t.Parallel() // it waits in real time
	b := testbed.New(t, emulator.Options{})
	b.PutAll(100, 1)
	b.CreateTunnel(tunnel.TunnelTypeBaseStream)
	put(t, b, "later", 1)
	phases := new(recorded[subscriber.Phase])
	_, messages := subscribe(t, b, func(c *subscriber.Config) { c.OnPhase = phases.add })
	for stream := 0; stream < 1; {
		msg := receive(t, messages)
		r, _ := ots.RecordFromMessage(msg)
		if !r.Sequence.IsZero() {
			stream++
			if !slices.ContainsFunc(phases.get(), func(p subscriber.Phase) bool { return p.Kind == subscriber.StreamStarted }) {
				t.Error("a change was delivered before OnPhase was called with the start of the stream")
			}
		}
		msg.Ack()
	}
	if err := b.Emulator.Split(testbed.Table); err != nil {
		t.Fatal(err)
	}
	put(t, b, "later", 2)
	receive(t, messages).Ack()
	var kinds []string
	for _, p := range phases.get() {
		if p.Topic != testbed.Topic || p.Channel == "" {
			t.Errorf("phase %+v does not say where", p)
		}
		kind := p.Kind.String()
		if p.Base {
			kind = "base " + kind
		}
		kinds = append(kinds, kind)
	}
	want := "base channel opened, base channel finished, channel opened, stream started, channel finished, channel opened"
	if got := strings.Join(kinds, ", "); !strings.HasPrefix(got, want) {
		t.Errorf("told %s\nwant %s ...", got, want)
	}
}

func TestWatchdog_reports_a_handler_that_is_stuck_with_key_and_stack(t *testing.T) {
	t.Parallel()
	b := testbed.New(t, emulator.Options{})
	b.CreateTunnel(tunnel.TunnelTypeStream)
	alarms := new(recorded[subscriber.Alarm])
	_, messages := subscribe(t, b, func(c *subscriber.Config) {
		c.StuckAfter, c.OnAlarm = 100*time.Millisecond, alarms.add
	})
	put(t, b, "slow", 1)
	put(t, b, "quick", 1)
	slow := receive(t, messages)
	receive(t, messages).Ack()
	testbed.Eventually(t, 5*time.Second, "two alarms are raised", func() bool { return len(alarms.get()) >= 2 })
	slow.Ack()
	for i, a := range alarms.get() {
		if a.Kind != subscriber.HandlerStuck || a.Key != `["slow"]` || a.Topic != testbed.Topic || a.Channel == "" || a.Attempt != 1 {
			t.Errorf("alarm %d is %+v", i, a)
		}
		if least := time.Duration(i+1) * 100 * time.Millisecond; a.Age < least {
			t.Errorf("alarm %d came at the age of %v, before %v", i, a.Age, least)
		}
	}
	time.Sleep(300 * time.Millisecond)
	n := len(alarms.get())
	time.Sleep(300 * time.Millisecond)
	if more := len(alarms.get()); more != n {
		t.Errorf("%d alarms after the message was acked", more-n)
	}
}

func TestWatchdog_reports_an_output_that_nobody_reads(t *testing.T) {
	b := testbed.New(t, emulator.Options{})
	b.CreateTunnel(tunnel.TunnelTypeStream)
	alarms := new(recorded[subscriber.Alarm])
	_, messages := subscribe(t, b, func(c *subscriber.Config) {
		c.StuckAfter, c.OnAlarm = 100*time.Millisecond, alarms.add
	})
	put(t, b, "a", 1)
	testbed.Eventually(t, 5*time.Second, "an alarm is raised", func() bool { return len(alarms.get()) > 0 })
	if a := alarms.get()[0]; a.Kind != subscriber.OutputStuck || a.Key != `["a"]` {
		t.Errorf("the alarm is %+v", a)
	}
	receive(t, messages).Ack()
}
