package subscriber

import (
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/ThreeDotsLabs/watermill/message"
	"github.com/aliyun/aliyun-tablestore-go-sdk/tunnel"
	"github.com/aliyun/aliyun-tablestore-go-sdk/tunnel/protocol"
)

// pollConfig is a Config with its defaults, or with those that change sets.
func pollConfig(change func(*Config)) *Config {
	var cfg Config
	if change != nil {
		change(&cfg)
	}
	cfg = cfg.withDefaults()
	return &cfg
}

func newTestPoller(cfg *Config) (*poller, time.Time) {
	start := time.Unix(1700000000, 0)
	return newPoller(new(pollBudget), cfg, start), start
}

// polled simulates a channel whose changes come at the given times, and reads that
// take a while. It returns when the channel is read until the end, and how late each change is seen.
func polled(cfg *Config, end time.Duration, changes []time.Duration) (reads, late []time.Duration) {
	const answer = 2 * time.Millisecond
	p, start := newTestPoller(cfg)
	for at := time.Duration(0); at < end; {
		reads = append(reads, at)
		n := 0
		for ; n < len(changes) && changes[n] <= at; n++ {
			late = append(late, at+answer-changes[n])
		}
		changes = changes[n:]
		at += answer
		pause, _ := p.after(&page{rows: make([]rowView, n), next: "t"}, "t", start.Add(at))
		at += pause
	}
	return reads, late
}

func between(reads []time.Duration, from, to time.Duration) (n int) {
	for _, at := range reads {
		if at >= from && at < to {
			n++
		}
	}
	return n
}

func TestPoller_pages_with_more_behind_them_are_read_on_at_once(t *testing.T) {
	yes, no := true, false
	stream := func(n int) []rowView { return make([]rowView, n) }
	for name, c := range map[string]struct {
		page  page
		pause bool
		more  bool
	}{
		"more records than fullPageRecords": {page{rows: stream(501)}, false, true},
		"fullPageRecords":                   {page{rows: stream(500)}, true, false},
		"more bytes than fullPageBytes":     {page{rows: stream(1), size: fullPageBytes + 1}, false, true},
		"fullPageBytes":                     {page{rows: stream(1), size: fullPageBytes}, true, false},
		"the service says more":             {page{rows: stream(1), more: &yes}, false, true},
		"the service says no more":          {page{rows: stream(501), size: fullPageBytes + 1, more: &no}, true, false},
		"base data":                         {page{base: true, rows: stream(1)}, false, true},
		"base data, no more for the moment": {page{base: true, rows: stream(1), more: &no}, false, true},
		"empty":                             {page{}, true, false},
		"empty, no more":                    {page{more: &no}, true, false},
		"empty, more behind the token":      {page{more: &yes}, false, true},
		"empty, more, and the same token":   {page{more: &yes, next: "t0"}, true, true},
		"records, more, and the same token": {page{rows: stream(1), more: &yes, next: "t0"}, false, true},
	} {
		p, start := newTestPoller(pollConfig(nil))
		if c.page.next == "" {
			c.page.next = "t1"
		}
		if pause, more := p.after(&c.page, "t0", start); (pause > 0) != c.pause || more != c.more {
			t.Errorf("%s: pause %v, more %v", name, pause, more)
		}
	}
}

func TestPoller_idle_channel_is_read_ever_less_often(t *testing.T) {
	for _, longest := range []time.Duration{time.Second, 20 * time.Second} {
		cfg := pollConfig(func(c *Config) { c.MaxPollInterval = longest })
		reads, _ := polled(cfg, time.Hour, nil)
		for i := 2; i < len(reads); i++ {
			if a, b := reads[i-1]-reads[i-2], reads[i]-reads[i-1]; b < a || b > longest+5*ms || a < DefaultMinPollInterval {
				t.Fatalf("pause %v after %v", b, a)
			}
		}
		if n := between(reads, 0, time.Minute); n > 80 {
			t.Errorf("%d reads in the first idle minute", n)
		}
		if n, most := between(reads, 30*time.Minute, time.Hour), int(30*time.Minute/longest)+1; n > most {
			t.Errorf("%d reads in half an idle hour with MaxPollInterval %v, want at most %d", n, longest, most)
		}
	}
}

// TestPoller_cost is what docs/performance.md tells of the defaults.
func TestPoller_a_change_costs_five_reads_at_most_and_is_seen_soon(t *testing.T) {
	seed := uint64(time.Now().UnixNano())
	t.Logf("seed %d", seed)
	r := rand.New(rand.NewPCG(seed, 0))
	const changes = 5000
	for _, rate := range []float64{0.5, 1, 2, 5, 10, 25, 50, 200} {
		for name, next := range map[string]func(i int) float64{
			"regular":   func(int) float64 { return 1 / rate },
			"at random": func(int) float64 { return r.ExpFloat64() / rate },
			"in bursts of ten": func(i int) float64 { // 30 ms apart, unless that is too slow
				if within := min(0.03, 0.1/rate); i%10 != 0 {
					return within
				} else {
					return (10/rate - 9*within) * r.ExpFloat64()
				}
			},
		} {
			var at []time.Duration
			sum := 0.0
			for i := range changes {
				sum += next(i)
				at = append(at, time.Duration(sum*float64(time.Second)))
			}
			reads, late := polled(pollConfig(nil), at[changes-1]+2*time.Second, at)
			if len(late) != changes {
				t.Fatalf("%s, %v a second: %d changes were seen", name, rate, len(late))
			}
			slices.Sort(late)
			each, p50, p99 := float64(len(reads))/changes, late[changes/2], late[changes*99/100]
			t.Logf("%5.1f changes a second %-16s: %.1f reads each, %5.1f a second; seen after %3d ms (median), %3d ms (p99)",
				rate, name, each, float64(len(reads))/sum, p50.Milliseconds(), p99.Milliseconds())
			if each > 5.05 {
				t.Errorf("%s, %v a second: %.2f reads for each change", name, rate, each)
			}
			if p99 > time.Second+5*ms || rate >= 25 && name != "in bursts of ten" && p99 > 100*ms {
				t.Errorf("%s, %v a second: 99 of 100 changes are seen within %v", name, rate, p99)
			}
		}
	}
}

func TestPoller_change_that_follows_another_is_seen_soon_whatever_was_usual(t *testing.T) {
	var changes []time.Duration
	for i := range 10 { // a minute apart
		changes = append(changes, time.Duration(i)*time.Minute)
	}
	_, late := polled(pollConfig(nil), 10*time.Minute, changes)
	last := changes[9] + late[9] // when it is handled
	changes = append(changes, last+ms)
	_, late = polled(pollConfig(nil), 10*time.Minute, changes)
	if late[10] > DefaultMinPollInterval+5*ms {
		t.Errorf("a change right after another one is seen %v late", late[10])
	}
}

func TestPoller_adapts_to_another_rate_within_seconds(t *testing.T) {
	var changes []time.Duration
	at := time.Duration(0)
	for range 10 {
		at += time.Minute
		changes = append(changes, at)
	}
	for range 100 { // twenty seconds of five a second
		at += 200 * ms
		changes = append(changes, at)
	}
	_, late := polled(pollConfig(nil), at+time.Second, changes)
	if worst := slices.Max(late[40:]); worst > 150*ms {
		t.Errorf("six seconds after the rate has changed a change is seen %v late", worst)
	}
}

// pollers simulates the channels of a subscription: those that wants names have a
// change at each read, the others none. It returns how often each is read within a minute,
// after some time.
func pollers(cfg *Config, channels int, busy func(n int) bool) (reads []int) {
	budget, start := new(pollBudget), time.Unix(1700000000, 0)
	all := make([]*poller, channels)
	due := make([]time.Duration, channels)
	reads = make([]int, channels)
	for n := range all {
		all[n] = newPoller(budget, cfg, start)
	}
	const from, to = 2 * time.Minute, 3 * time.Minute
	for at := time.Duration(0); at < to; at = (slices.Min(due) + ms - 1).Truncate(ms) {
		for n, p := range all {
			if due[n] > at {
				continue
			}
			pg := &page{next: "t"}
			if busy(n) {
				pg.rows = make([]rowView, 1)
			}
			pause, _ := p.after(pg, "t", start.Add(at))
			due[n] = at + max(pause, ms)
			if at >= from {
				reads[n]++
			}
		}
	}
	return reads
}

func TestPollBudget_bounds_the_empty_reads_of_all_channels(t *testing.T) {
	t.Parallel()
	none := func(int) bool { return false }
	for _, c := range []struct {
		channels, limit int
		want            int // reads a second of all channels
	}{
		{1, 100, 1}, {64, 100, 64}, {128, 100, 100}, {1000, 100, 100}, {1000, 2000, 1000}, {64, 10, 10}, {3, 1, 1},
	} {
		cfg := pollConfig(func(cfg *Config) { cfg.EmptyReadsPerSecond = c.limit })
		sum := 0
		for n, reads := range pollers(cfg, c.channels, none) {
			sum += reads
			if fair := 60 * c.want / c.channels; reads < fair*3/4-1 || reads > fair*5/4+2 {
				t.Errorf("%d channels, limit %d: channel %d is read %d times a minute, want about %d", c.channels, c.limit, n, reads, fair)
				break
			}
		}
		if perSecond := float64(sum) / 60; perSecond > 1.05*float64(c.want)+0.1 || perSecond < 0.9*float64(c.want) {
			t.Errorf("%d channels, limit %d: %.1f reads a second, want %d", c.channels, c.limit, perSecond, c.want)
		}
	}
}

func TestPollBudget_reads_that_find_records_do_not_count(t *testing.T) {
	t.Parallel()
	cfg := pollConfig(nil)
	reads := pollers(cfg, 500, func(n int) bool { return n < 5 })
	empty := 0
	for n, r := range reads {
		switch fastest := int(time.Minute / cfg.MinPollInterval); {
		case n >= 5:
			empty += r
		case r < fastest*9/10:
			t.Errorf("channel %d, with a change at each read, is read %d times a minute, want %d", n, r, fastest)
		}
	}
	if perSecond := float64(empty) / 60; perSecond > 105 || perSecond < 90 {
		t.Errorf("%.1f empty reads a second, want 100", perSecond)
	}
}

// wanted returns how many channels of a budget want to be read without finding anything, and how often.
func wanted(b *pollBudget) (channels int, reads int64) {
	b.mu.Lock()
	defer b.mu.Unlock()
	return len(b.pauses), b.wanted
}

func TestPollBudget_channel_that_ends_wants_nothing_any_more(t *testing.T) {
	for _, failing := range []bool{false, true} {
		synctest.Test(t, func(t *testing.T) {
			f := fakeTunnel(0)
			s := fakeSubscriber(t, f, nil)
			subscribeTo(t, s)
			time.Sleep(time.Minute)
			s.mu.Lock()
			b := &s.subscriptions[0].channels.polls
			s.mu.Unlock()
			if n, reads := wanted(b); n != 1 || reads == 0 {
				t.Error("an idle channel wants to be read")
			}
			if failing {
				f.always("readrecords", unavailable)
				time.Sleep(time.Minute)
				if n, reads := wanted(b); n != 0 || reads != 0 {
					t.Error("a channel whose reads fail counts as one that is read")
				}
			}
			if err := s.Close(); err != nil {
				t.Error(err)
			}
			if n, reads := wanted(b); n != 0 || reads != 0 {
				t.Error("a channel that ended counts as one that is read")
			}
		})
	}
}

func TestPollBudget_those_that_are_read_often_give_way_first(t *testing.T) {
	cfg := pollConfig(nil)
	b, start := new(pollBudget), time.Unix(1700000000, 0)
	for range 50 {
		b.stretch(newPoller(b, cfg, start), time.Second)
	}
	var pause time.Duration
	for range 10 {
		pause = b.stretch(newPoller(b, cfg, start), 20*ms)
	}
	// Of 100 reads a second the 50 have one each, and the 10 have five each.
	if pause < 199*ms || pause > 201*ms {
		t.Errorf("beside 50 channels with a pause of a second, 10 pause %v, want 200ms", pause)
	}
	if pause := b.stretch(newPoller(b, cfg, start), time.Second); pause != time.Second {
		t.Errorf("one that wants a second gets %v", pause)
	}
}

func TestPollBudget_channel_that_found_records_wants_nothing(t *testing.T) {
	p, start := newTestPoller(pollConfig(nil))
	more := true
	for name, pg := range map[string]*page{
		"records": {rows: make([]rowView, 1), next: "t"}, "more": {rows: make([]rowView, 1), more: &more, next: "t"}, "more behind the token": {more: &more, next: "u"},
	} {
		p.after(&page{next: "t"}, "t", start)
		if len(p.budget.pauses) != 1 {
			t.Fatal("a channel without records wants nothing")
		}
		p.after(pg, "t", start)
		if len(p.budget.pauses) != 0 || p.budget.wanted != 0 {
			t.Errorf("%s: the channel still counts as one that finds nothing", name)
		}
	}
}

func TestPoller_the_usual_time_between_changes(t *testing.T) {
	p, at := newTestPoller(pollConfig(nil))
	for _, step := range []struct {
		silence     time.Duration
		changes     int
		least, most time.Duration
	}{
		{time.Hour, 1, 4 * time.Second, 4 * time.Second}, // as long as makes a difference, and no longer
		{time.Second, 1, 3 * time.Second, 3500 * ms},     // one change moves it by a quarter
		{time.Second, 10, 100 * ms, 300 * ms},            // ten changes at once are ten
		{100 * ms, 10, 10 * ms, 30 * ms},
		{time.Minute, 1, 900 * ms, 1100 * ms},
	} {
		at = at.Add(step.silence)
		p.saw(step.changes, at)
		if p.gap < step.least || p.gap > step.most {
			t.Errorf("%d changes after %v: %v, want %v to %v", step.changes, step.silence, p.gap, step.least, step.most)
		}
	}
}

// moreReply is an empty page that says whether there is more.
func moreReply(next string, more bool) reply {
	return reply{body: marshal(&protocol.ReadRecordsResponse{NextToken: &next, MayMoreRecord: &more})}
}

func TestReader_empty_pages_with_more_behind_them_are_read_on_and_are_not_caught_up(t *testing.T) {
	const pages = 1000
	synctest.Test(t, func(t *testing.T) {
		f := fakeTunnel(0)
		began := time.Now()
		f.on("readrecords", func(body []byte) reply {
			n := tokenOf(t, body)
			if n < pages {
				r := moreReply(fmt.Sprintf("t%d", n+1), true)
				r.after = 10 * time.Millisecond
				return r
			}
			return moreReply(fmt.Sprintf("t%d", n), false)
		})
		s := fakeSubscriber(t, f, nil)
		subscribeTo(t, s)
		time.Sleep(pages * 10 * time.Millisecond / 2)
		if c := s.Status().Subscriptions[0].Channels[0]; c.Lag < time.Since(c.Opened) || c.PollInterval != 0 {
			t.Errorf("amid pages with more behind them, lag is %v, %v after the channel was opened, pause %v", c.Lag, time.Since(c.Opened), c.PollInterval)
		}
		time.Sleep(time.Minute)
		at := f.times("readrecords", began)
		if took := at[pages] - at[0]; took > pages*11*time.Millisecond {
			t.Errorf("%d pages with more behind them took %v", pages, took)
		}
		if lag := s.Status().Subscriptions[0].Channels[0].Lag; lag > 2*time.Second {
			t.Errorf("at the end lag is %v", lag)
		}
		if err := s.Close(); err != nil {
			t.Error(err)
		}
	})
}

func TestReader_service_that_says_more_and_does_not_move_is_not_asked_at_full_speed(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := fakeTunnel(0).always("readrecords", moreReply("t0", true))
		s := fakeSubscriber(t, f, nil)
		subscribeTo(t, s)
		time.Sleep(time.Minute)
		if n := len(f.bodies("readrecords")); n > 60*51 {
			t.Errorf("%d reads in a minute", n)
		}
		if c := s.Status().Subscriptions[0].Channels[0]; c.Lag < 59*time.Second {
			t.Errorf("lag is %v, though the service says that there is more", c.Lag)
		}
		if err := s.Close(); err != nil {
			t.Error(err)
		}
	})
}

func TestReader_idle_channel_commits_its_position_every_ten_minutes_and_no_more(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		f := fakeTunnel(0)
		n := 0
		f.on("readrecords", func(body []byte) reply {
			if n++; n == 1 { // a first page without records would be a position to store by itself
				return pageReply("t1", []*protocol.Record{someRecord(1)})
			}
			return pageReply(fmt.Sprintf("t%d", n), nil) // moves at each read
		})
		s := fakeSubscriber(t, f, nil)
		done, err := s.Handle(t.Context(), "table/tunnel", func(*message.Message) error { return nil })
		if err != nil {
			t.Fatal(err)
		}
		time.Sleep(idlePosition - time.Second)
		if got := stored(t, f); len(got) != 1 || got[0] != "t1@1" {
			t.Errorf("stored %v, want the page with the record alone", got)
		}
		if age := s.Status().Subscriptions[0].Channels[0].CheckpointAge; age > DefaultCheckpointInterval {
			t.Errorf("the checkpoint's age is %v, though all is stored", age)
		}
		time.Sleep(50*time.Minute + 2*DefaultCheckpointInterval)
		if got := len(stored(t, f)); got != 7 {
			t.Errorf("%d checkpoints in an hour, want one and six more for the position", got)
		}
		before := len(stored(t, f))
		if err := s.Close(); err != nil {
			t.Error(err)
		}
		<-done
		if got := len(stored(t, f)); got != before {
			t.Error("the drain of an idle channel stores a checkpoint")
		}
	})
}

func TestL5_empty_page_with_the_finish_token_ends_the_channel(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := fakeTunnel(0)
		f.on("readrecords", func(body []byte) reply {
			if n := tokenOf(t, body); n == 0 {
				return pageReply("t1", []*protocol.Record{someRecord(1)})
			}
			return pageReply(tunnel.FinishTag, nil)
		})
		finished := make(chan Phase, 1)
		s := fakeSubscriber(t, f, func(cfg *Config) {
			cfg.OnPhase = func(p Phase) {
				if p.Kind == ChannelFinished {
					finished <- p
				}
			}
		})
		(<-subscribeTo(t, s)).Ack()
		select {
		case <-finished:
		case <-time.After(time.Minute):
			t.Error("the channel did not end")
		}
		if got := stored(t, f); len(got) == 0 || !strings.HasPrefix(got[len(got)-1], tunnel.FinishTag) {
			t.Errorf("stored %v, want the finish token", got)
		}
		if err := s.Close(); err != nil {
			t.Error(err)
		}
	})
}
