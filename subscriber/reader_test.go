package subscriber

import (
	"context"
	"errors"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/ThreeDotsLabs/watermill"
	"github.com/aliyun/aliyun-tablestore-go-sdk/tunnel/protocol"
)

// polled simulates a channel with pages of that many records at the given times
// (from 0 on) and returns when it is read until the end.
func polled(longest, end time.Duration, records map[time.Duration]int) (reads []time.Duration) {
	start := time.Unix(1700000000, 0)
	p := poller{longest: longest, since: start}
	for at := time.Duration(0); at < end; {
		n := 0
		for t, k := range records { // what came since the last read
			if t <= at {
				n += k
				delete(records, t)
			}
		}
		reads = append(reads, at)
		pg := &page{rows: make([]rowView, n)}
		at += p.after(pg, start.Add(at))
	}
	return reads
}

func between(reads []time.Duration, from, to time.Duration) (n int) {
	for _, at := range reads {
		if at >= from && at < to {
			n++
		}
	}
	return n
}

func TestPoller_full_pages_are_read_without_pause(t *testing.T) {
	now := time.Unix(1700000000, 0)
	yes, no := true, false
	stream := func(n int) []rowView { return make([]rowView, n) }
	for name, c := range map[string]struct {
		page  page
		pause bool
	}{
		"more records than fullPageRecords": {page{rows: stream(501)}, false},
		"fullPageRecords":                   {page{rows: stream(500)}, true},
		"more bytes than fullPageBytes":     {page{rows: stream(1), size: fullPageBytes + 1}, false},
		"fullPageBytes":                     {page{rows: stream(1), size: fullPageBytes}, true},
		"the service says more":             {page{rows: stream(1), more: &yes}, false},
		"the service says no more":          {page{rows: stream(501), size: fullPageBytes + 1, more: &no}, true},
		"base data":                         {page{base: true, rows: make([]rowView, 1)}, false},
		"base data, no more for the moment": {page{base: true, rows: make([]rowView, 1), more: &no}, false},
		"empty":                             {page{}, true},
	} {
		p := poller{longest: time.Second, since: now}
		if got := p.after(&c.page, now); (got > 0) != c.pause {
			t.Errorf("%s: pause %v", name, got)
		}
	}
}

func TestPoller_idle_channel_is_read_ever_less_often(t *testing.T) {
	reads := polled(time.Second, 10*time.Minute, nil)
	for i := 2; i < len(reads); i++ {
		if a, b := reads[i-1]-reads[i-2], reads[i]-reads[i-1]; b < a || b > time.Second || a < minPoll {
			t.Fatalf("pause %v after %v", b, a)
		}
	}
	for minute := 1; minute < 10; minute++ {
		from := time.Duration(minute) * time.Minute
		if n := between(reads, from, from+time.Minute); n > 61 {
			t.Errorf("%d reads in idle minute %d, want at most 72 (1.2 a second)", n, minute)
		}
	}
	// The first minute after a record costs more: that is the price of seeing followers soon.
	if n := between(reads, 0, time.Minute); n > 110 {
		t.Errorf("%d reads in the first idle minute", n)
	}
	if n := between(polled(20*time.Second, time.Hour, nil), 30*time.Minute, time.Hour); n > 91 {
		t.Errorf("%d reads in half an hour with MaxPollInterval 20s", n)
	}
}

func TestPoller_record_is_seen_after_an_eighth_of_the_idle_time_at_most(t *testing.T) {
	for _, idle := range []time.Duration{0, time.Millisecond, 40 * time.Millisecond, 100 * time.Millisecond, time.Second, 5 * time.Second, time.Minute, time.Hour} {
		reads := polled(time.Second, idle+2*time.Second, nil)
		i, _ := slices.BinarySearch(reads, idle)
		late := reads[i] - idle
		if bound := min(time.Second, max(minPoll, idle/pollShare)); late > bound {
			t.Errorf("a record after %v of silence is seen %v later, want at most %v", idle, late, bound)
		}
	}
}

func TestPoller_steady_low_traffic_is_seen_soon(t *testing.T) {
	records := make(map[time.Duration]int)
	for i := range 300 { // one a second
		records[time.Duration(i)*time.Second] = 1
	}
	due := 0
	for _, at := range polled(5*time.Second, 5*time.Minute, records) {
		// The record of each second is read within an eighth of a second.
		if sec := int(at / time.Second); sec >= due {
			if late := at - time.Duration(sec)*time.Second; late > time.Second/pollShare {
				t.Fatalf("second %d is read %v late", sec, late)
			}
			due = sec + 1
		}
	}
	if due != 300 {
		t.Errorf("only %d seconds were read", due)
	}
}

// reads returns the tokens of the ReadRecords calls.
func reads(t *testing.T, f *fakeService) (tokens []string) {
	t.Helper()
	for _, body := range f.bodies("readrecords") {
		var req protocol.ReadRecordsRequest
		unmarshal(t, body, &req)
		tokens = append(tokens, req.GetToken())
	}
	return tokens
}

func TestReader_failed_read_is_repeated_with_pauses_from_the_same_token(t *testing.T) {
	corrupt := pageReply("t1", []*protocol.Record{someRecord(1)})
	corrupt.body[len(corrupt.body)/2] ^= 0xff
	for name, c := range map[string]struct {
		failure reply
		least   time.Duration // between two reads
	}{
		"network":      {reply{err: errNetwork}, 40 * time.Millisecond},
		"unavailable":  {unavailable, 40 * time.Millisecond},
		"busy":         {errorReply(503, codeServerBusy), throttlePause},
		"corrupt page": {corrupt, 40 * time.Millisecond},
		"no next":      {pageReply("", nil), 40 * time.Millisecond},
		"auth":         {errorReply(403, codeAuthFailed), 40 * time.Millisecond},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				f := fakeTunnel(0)
				logger := watermill.NewCaptureLogger()
				calls := 0
				f.on("readrecords", func([]byte) reply {
					if calls++; calls <= 6 {
						return c.failure
					}
					if calls == 7 {
						return pageReply("t1", []*protocol.Record{someRecord(1)})
					}
					return pageReply("t1", nil)
				})
				start := time.Now()
				s, err := New(Config{Endpoint: "http://localhost", Instance: "inst", AccessKeyID: "id", AccessKeySecret: "hush-hush", Transport: f}, logger)
				if err != nil {
					t.Fatal(err)
				}
				messages, err := s.Subscribe(context.Background(), "table/tunnel")
				if err != nil {
					t.Fatal(err)
				}
				(<-messages).Ack()
				if err := s.Close(); err != nil {
					t.Error(err)
				}
				if got := reads(t, f)[:7]; !slices.Equal(got, slices.Repeat([]string{"t0"}, 7)) {
					t.Errorf("read from %v", got)
				}
				at := f.times("readrecords", start)
				for i := 1; i < 7; i++ {
					if pause := at[i] - at[i-1]; pause < c.least || pause > 5*time.Second*12/10 {
						t.Errorf("pause %d is %v", i, pause)
					}
				}
				told := 0
				for _, m := range logger.Captured()[watermill.ErrorLogLevel] {
					var ce *ChannelError
					if errors.As(m.Err, &ce) && ce.Channel == "c1" && ce.Table == "table" && ce.Tunnel == "tunnel" && !strings.Contains(m.Err.Error(), "hush") {
						told++
					}
				}
				if told != 6 {
					t.Errorf("%d of 6 failures are logged with the channel", told)
				}
			})
		})
	}
}

func TestL6_reading_stops_while_the_window_is_full(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := fakeTunnel(0)
		n := int64(0)
		f.on("readrecords", func([]byte) reply {
			n += 10
			var rs []*protocol.Record
			for i := range int64(10) {
				rs = append(rs, someRecord(n+i))
			}
			return pageReply("t", rs)
		})
		s := fakeSubscriber(t, f, func(c *Config) { c.MaxInFlight = 25; c.CloseTimeout = time.Second })
		messages := subscribeTo(t, s)
		time.Sleep(time.Hour)
		if got := len(reads(t, f)); got != 3 {
			t.Errorf("%d pages of 10 were read with MaxInFlight 25, want 3", got)
		}
		for range 10 {
			(<-messages).Ack()
		}
		time.Sleep(time.Hour)
		if got := len(reads(t, f)); got != 4 {
			t.Errorf("%d pages were read after one was acked, want 4", got)
		}
		_ = s.Close()
	})
}
