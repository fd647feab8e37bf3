package subscriber

import (
	"slices"
	"testing"
	"testing/synctest"
	"time"

	"github.com/cenkalti/backoff/v4"
)

// finite is a backoff of given pauses, then Stop.
type finite struct {
	pauses []time.Duration
	n      int
}

func (s *finite) NextBackOff() time.Duration {
	s.n++
	if s.n > len(s.pauses) {
		return backoff.Stop
	}
	return s.pauses[s.n-1]
}

func (s *finite) Reset() { s.n = 0 }

func TestNackBackoff_that_stops_goes_on_with_its_longest_pause(t *testing.T) {
	for name, tc := range map[string]struct{ pauses, want []time.Duration }{
		"after pauses that grow": {[]time.Duration{time.Second, 4 * time.Second}, []time.Duration{time.Second, 4 * time.Second, 4 * time.Second, 4 * time.Second}},
		"after one that shrinks": {[]time.Duration{5 * time.Second, time.Second}, []time.Duration{5 * time.Second, time.Second, 5 * time.Second, 5 * time.Second}},
		"at once":                {nil, []time.Duration{stoppedPause, stoppedPause}},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				s := fakeSubscriber(t, fakeTunnel(1), func(c *Config) {
					c.NackBackoff = func() backoff.BackOff { return &finite{pauses: tc.pauses} }
				})
				messages := subscribeTo(t, s)
				var got []time.Duration
				msg := <-messages
				for range tc.want {
					nacked := time.Now()
					msg.Nack()
					msg = <-messages
					got = append(got, time.Since(nacked).Round(time.Second))
				}
				if !slices.Equal(got, tc.want) {
					t.Errorf("the pauses are %v, want %v", got, tc.want)
				}
				msg.Ack()
				if err := s.Close(); err != nil {
					t.Error(err)
				}
			})
		})
	}
}
