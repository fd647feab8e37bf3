package subscriber

import (
	"maps"
	"testing"
	"time"

	"github.com/ThreeDotsLabs/watermill"
)

func TestView_judges_by_what_a_client_reads(t *testing.T) {
	now := time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC)
	ago := func(d time.Duration) time.Time { return now.Add(-d) }
	ch := func(id, client, status string, read time.Duration) ViewChannel {
		c := ViewChannel{ID: id, ClientID: client, Status: status, Position: ago(time.Minute)}
		if read >= 0 {
			c.LastRead = ago(read)
		}
		return c
	}
	const s = time.Second
	own := map[string]bool{"me": true}
	for name, c := range map[string]struct {
		channels []ViewChannel
		reading  bool
		suspects map[string]string
		orphans  int
		found    map[string]string
	}{
		"all are read":                {[]ViewChannel{ch("1", "me", "OPEN", s), ch("2", "b", "OPEN", 2*s)}, true, nil, 0, nil},
		"silent at the first look":    {[]ViewChannel{ch("1", "me", "OPEN", s), ch("2", "b", "OPEN", 20*s)}, true, nil, 0, map[string]string{"2": "b"}},
		"silent at the second":        {[]ViewChannel{ch("1", "me", "OPEN", s), ch("2", "b", "OPEN", 20*s)}, true, map[string]string{"2": "b"}, 1, map[string]string{"2": "b"}},
		"another client's since then": {[]ViewChannel{ch("1", "me", "OPEN", s), ch("2", "c", "OPEN", 20*s)}, true, map[string]string{"2": "b"}, 0, map[string]string{"2": "c"}},
		"one of its channels is read": {[]ViewChannel{ch("1", "b", "OPEN", 2*s), ch("2", "b", "OPEN", 60*s)}, false, map[string]string{"2": "b"}, 0, nil},
		"own channels are not read":   {[]ViewChannel{ch("1", "me", "OPEN", 60*s), ch("2", "b", "OPEN", 2*s)}, false, map[string]string{"1": "me"}, 0, nil},
		"this clock is ahead":         {[]ViewChannel{ch("1", "me", "OPEN", 60*s), ch("2", "b", "OPEN", 62*s)}, true, map[string]string{"2": "b"}, 0, nil},
		"nothing is read":             {[]ViewChannel{ch("1", "b", "OPEN", 60*s), ch("2", "c", "CLOSING", 62*s)}, false, map[string]string{"1": "b", "2": "c"}, 2, map[string]string{"1": "b", "2": "c"}},
		"never read, by a silent one": {[]ViewChannel{ch("1", "me", "OPEN", s), ch("2", "b", "OPEN", -1)}, true, map[string]string{"2": "b"}, 1, map[string]string{"2": "b"}},
		"reads are not known":         {[]ViewChannel{ch("1", "me", "OPEN", -1), ch("2", "b", "OPEN", -1)}, true, map[string]string{"2": "b"}, 0, nil},
		"free, and finished":          {[]ViewChannel{ch("1", "", "WAIT", 60*s), ch("2", "b", "TERMINATED", 60*s), ch("3", "me", "OPEN", s)}, true, map[string]string{"1": "", "2": "b"}, 0, nil},
	} {
		v := &TunnelView{Time: now, Channels: c.channels}
		found := v.judge(own, c.reading, c.suspects, orphanAfter)
		if v.Orphans != c.orphans || !maps.Equal(found, c.found) {
			t.Errorf("%s: %d orphans, want %d; suspects %v, want %v", name, v.Orphans, c.orphans, found, c.found)
		}
		n := 0
		for i, ch := range v.Channels {
			if ch.State == ViewOrphan {
				n++
				if i >= c.orphans {
					t.Errorf("%s: an orphan is not at the front: %+v", name, v.Channels)
				}
			}
			if ch.State == "" || ch.Own != (ch.ClientID == "me") {
				t.Errorf("%s: %+v", name, ch)
			}
		}
		if n != c.orphans {
			t.Errorf("%s: %d channels say that they are orphans", name, n)
		}
	}
}

func TestView_lag_is_that_of_channels_that_are_still_to_be_read(t *testing.T) {
	now := time.Now()
	v := &TunnelView{Time: now, Channels: []ViewChannel{
		{ID: "1", ClientID: "a", Status: "OPEN", Position: now.Add(-3 * time.Second)},
		{ID: "2", ClientID: "a", Status: "OPEN", Position: now.Add(-time.Hour), Base: true},
		{ID: "3", Status: "TERMINATED", Position: now.Add(-2 * time.Hour)},
		{ID: "4", Status: "WAIT", Position: now.Add(-time.Minute)},
	}}
	v.judge(nil, false, nil, orphanAfter)
	if v.Lag != time.Minute {
		t.Errorf("the lag is %v", v.Lag)
	}
	if first, last := v.Channels[0], v.Channels[3]; first.ID != "4" || last.ID != "3" {
		t.Errorf("the order is %+v", v.Channels)
	}
}

// TestOrphans_are_logged_until_they_are_read: when a dead client's channels are released
// they are not read yet.
func TestOrphans_are_logged_until_they_are_read(t *testing.T) {
	logger := watermill.NewCaptureLogger()
	w := &viewWatch{sub: &subscription{logger: logger, sessionConfig: sessionConfig{tunnelInfo: &tunnelInfo{cfg: Config{HeartbeatTimeout: 300 * time.Second}}}}}
	const again = "Every channel of the tunnel is read again"
	for _, step := range []struct {
		is    ViewState
		errs  int // lines so far
		again int
	}{
		{ViewHeld, 0, 0}, {ViewOrphan, 1, 0}, {ViewOrphan, 1, 0}, {ViewWaiting, 1, 0}, {ViewHeld, 1, 1}, {ViewHeld, 1, 1},
		{ViewWaiting, 1, 1}, {ViewOrphan, 2, 1}, {ViewHeld, 2, 2},
	} {
		c := ViewChannel{ID: "1", ClientID: "b", State: step.is}
		if step.is == ViewWaiting {
			c.ClientID = ""
		}
		w.sayOrphans(&TunnelView{Channels: []ViewChannel{{ID: "0", ClientID: "a", State: ViewHeld}, c}})
		errs, infos := len(logger.Captured()[watermill.ErrorLogLevel]), len(linesOf(logger, watermill.InfoLogLevel, again))
		if errs != step.errs || infos != step.again {
			t.Fatalf("%s: %d errors and %d times %q so far, want %d and %d", step.is, errs, infos, again, step.errs, step.again)
		}
	}
}
