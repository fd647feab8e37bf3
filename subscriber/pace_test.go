package subscriber

import "testing"

// calledQuickly notes quick handlers that the leader called itself.
func (p *pace) calledQuickly(n int) {
	for range n {
		p.called(quickHandler)
	}
}

// leading returns a pace whose leader calls handlers.
func leading(t *testing.T) *pace {
	t.Helper()
	p := newPace()
	if n := p.asides(); n != leastAside {
		t.Fatalf("%d handlers get goroutines at first, want %d", n, leastAside)
	}
	return p
}

// asides counts the handlers that get goroutines, and return, until the leader calls them.
func (p *pace) asides() (n int) {
	for ; !p.inline(); n++ {
		p.returned()
	}
	return n
}

func TestPace_handlers_get_goroutines_while_many_have_not_returned(t *testing.T) {
	p := newPace()
	for i := range 10 * mostAside {
		if p.inline() {
			t.Fatalf("the leader calls handler %d although none has returned", i)
		}
	}
	for range 10*mostAside - mostRunning {
		p.returned()
	}
	if !p.inline() {
		t.Errorf("the leader calls no handler although only %d are running", mostRunning)
	}
}

func TestPace_lets_the_leader_call_handlers_until_most_are_not_quick(t *testing.T) {
	p := leading(t)
	for range mostLate / quickPerLate {
		if !p.inline() {
			t.Fatal("handlers get goroutines too early")
		}
		p.called(quickHandler + 1)
	}
	if p.called(quickHandler + 1); p.inline() {
		t.Error("the leader calls handlers although none is quick")
	}
}

func TestPace_tells_handlers_that_are_seldom_and_often_not_quick_apart(t *testing.T) {
	seldom, often := leading(t), leading(t)
	for range 10 * mostLate {
		seldom.called(quickHandler + 1)
		seldom.calledQuickly(quickPerLate)
		often.called(quickHandler + 1)
		often.calledQuickly(quickPerLate - 2)
		often.calls = 0 // or it would be forgiven
		if !seldom.inline() {
			t.Fatalf("one handler in %d that is not quick keeps the leader from calling them", quickPerLate+1)
		}
	}
	if often.inline() {
		t.Errorf("the leader calls handlers of which one in %d is not quick", quickPerLate-1)
	}
}

func TestPace_one_slow_call_among_many_quick_ones_changes_nothing(t *testing.T) {
	p := leading(t)
	for range 100 {
		p.called(slowHandler + 1)
		p.calledQuickly(quickPerSlow)
	}
	if !p.inline() {
		t.Errorf("handlers get goroutines although 1 in %d calls was slow", quickPerSlow)
	}
}

func TestPace_slow_calls_soon_after_each_other_give_handlers_goroutines(t *testing.T) {
	p := leading(t)
	p.called(slowHandler + 1)
	p.calledQuickly(quickPerSlow - 1)
	p.called(slowHandler + 1)
	if p.inline() {
		t.Errorf("the leader calls handlers although 2 in %d calls were slow", quickPerSlow+1)
	}
}

func TestPace_tries_again_the_later_the_oftener_the_leader_was_held_up_soon(t *testing.T) {
	p := leading(t)
	for want := leastAside; want < 4*mostAside; want *= 2 {
		p.calledQuickly(soonCalls - 1)
		if p.stuck(); p.asides() != min(want, mostAside) {
			t.Fatalf("want %d handlers with goroutines", min(want, mostAside))
		}
	}
	p.calledQuickly(soonCalls)
	if p.stuck(); p.asides() != leastAside {
		t.Error("what was before a time in which the leader was of use is remembered")
	}
}

func TestPace_forgives_a_stall_after_many_calls(t *testing.T) {
	p := leading(t)
	p.calledQuickly(steadyCalls)
	if p.stuck(); !p.inline() {
		t.Errorf("handlers get goroutines after one stall in %d calls", steadyCalls)
	}
	if p.stuck(); p.inline() {
		t.Error("the leader calls handlers although it was held up twice")
	}
}
