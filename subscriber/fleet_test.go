package subscriber_test

import (
	"testing"
	"testing/synctest"
	"time"

	"github.com/watermill-ots/watermill-ots/subscriber"
)

// takeover returns how long it takes until the processes that are left hold all channels.
func (f *fleet) takeover(left []*process, channels int) time.Duration {
	f.Helper()
	began := time.Now()
	for time.Since(began) < 10*time.Minute {
		n := 0
		for _, p := range left {
			for _, c := range p.status().Channels {
				if c.State == subscriber.ChannelOpen && c.PollInterval > 0 {
					n++
				}
			}
		}
		if n == channels {
			return time.Since(began)
		}
		time.Sleep(100 * time.Millisecond)
	}
	f.Fatal("the channels are not taken over")
	return 0
}

func TestPresetFleet_brings_channels_of_a_killed_process_back_within_seconds(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct {
		preset      subscriber.Preset
		least, most time.Duration
		closed      time.Duration // most, after a clean end
	}{
		"preset":   {subscriber.PresetFleet, 10 * time.Second, 26 * time.Second, 6 * time.Second},
		"defaults": {"", 4 * time.Minute, 331 * time.Second, 31 * time.Second},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				const channels = 6
				f := newFleet(t, channels)
				var all []*process
				for range 3 {
					all = append(all, f.process(func(cfg *subscriber.Config) { cfg.Preset = c.preset }))
				}
				time.Sleep(3 * time.Minute)
				all[2].kill()
				killed := f.takeover(all[:2], channels)
				time.Sleep(time.Minute)
				if err := all[1].sub.Close(); err != nil {
					t.Error(err)
				}
				ended := f.takeover(all[:1], channels)
				t.Logf("after a kill: %v, after Close: %v", killed.Round(100*time.Millisecond), ended.Round(100*time.Millisecond))
				if killed < c.least || killed > c.most || ended > c.closed {
					t.Errorf("after a kill it took %v, not %v to %v; after Close %v, not %v", killed, c.least, c.most, ended, c.closed)
				}
			})
		})
	}
}

func TestPresetFleet_gives_way_to_what_is_set(t *testing.T) {
	for _, c := range []struct{ interval, timeout, wantInterval, wantTimeout time.Duration }{
		{0, 0, 5 * time.Second, 20 * time.Second},
		{10 * time.Second, 0, 10 * time.Second, 20 * time.Second},
		{0, time.Minute, 5 * time.Second, time.Minute},
	} {
		cfg := subscriber.Config{Preset: subscriber.PresetFleet, HeartbeatInterval: c.interval, HeartbeatTimeout: c.timeout}
		if i, d := cfg.Heartbeats(); i != c.wantInterval || d != c.wantTimeout {
			t.Errorf("%v and %v become %v and %v", c.interval, c.timeout, i, d)
		}
	}
}
