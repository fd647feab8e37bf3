package router

import "testing"

func TestTransportIsBoundedByThePool(t *testing.T) {
	for _, c := range []struct {
		in             Instance
		idle, together int
	}{
		{Instance{}, 1024, 0},
		{Instance{PoolSize: 100, PoolMaxOverflow: 20}, 100, 120},
		{Instance{PoolSize: 5}, 5, 5},
	} {
		tr := newTransport(c.in)
		if tr.MaxIdleConnsPerHost != c.idle || tr.MaxConnsPerHost != c.together {
			t.Errorf("%+v: %d idle, %d together", c.in, tr.MaxIdleConnsPerHost, tr.MaxConnsPerHost)
		}
	}
}
