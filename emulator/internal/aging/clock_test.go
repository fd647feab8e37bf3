package aging

import (
	"testing"
	"time"
)

func TestClock(t *testing.T) {
	begin := time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC)
	now := begin
	c := New(func() time.Time { return now })
	for _, v := range []struct {
		what string
		set  time.Duration // of the followed clock, relative to begin
		want time.Duration // of the aging clock
	}{
		{"goes forward with the other clock", time.Minute, time.Minute},
		{"does not go back", -time.Hour, time.Minute},
		{"continues from where it was", -time.Hour + time.Second, time.Minute + time.Second},
		{"skips forward", time.Hour, 2*time.Hour + time.Minute},
	} {
		now = begin.Add(v.set)
		if got := c.Now().Sub(begin); got != v.want {
			t.Errorf("%s: %v, want %v", v.what, got, v.want)
		}
	}
}
