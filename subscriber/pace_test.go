package subscriber

import "testing"

// quickly notes quick handlers in goroutines of their own.
func (p *pace) quickly(n int) {
	for range n {
		p.took(quickHandler)
	}
}

// calledQuickly notes quick handlers that the leader called itself.
func (p *pace) calledQuickly(n int) {
	for range n {
		p.called(slowHandler)
	}
}

func TestPace_handlers_get_goroutines_until_enough_in_a_row_are_quick(t *testing.T) {
	p := newPace()
	p.quickly(quickInARow - 1)
	if p.inline() {
		t.Errorf("the leader calls handlers after %d quick ones", quickInARow-1)
	}
	p.took(quickHandler + 1)
	p.quickly(quickInARow - 1)
	if p.inline() {
		t.Error("quick handlers before a slow one count")
	}
	if p.quickly(1); !p.inline() {
		t.Errorf("handlers get goroutines after %d quick ones in a row", quickInARow)
	}
}

func TestPace_one_slow_call_among_many_quick_ones_changes_nothing(t *testing.T) {
	p := newPace()
	p.quickly(quickInARow)
	for range 100 {
		p.called(slowHandler + 1)
		p.calledQuickly(slowWeight)
	}
	if !p.inline() {
		t.Errorf("handlers get goroutines although 1 in %d calls was slow", slowWeight)
	}
}

func TestPace_slow_calls_soon_after_each_other_give_handlers_goroutines(t *testing.T) {
	p := newPace()
	p.quickly(quickInARow)
	p.called(slowHandler + 1)
	p.calledQuickly(slowWeight - 1)
	p.called(slowHandler + 1)
	if p.inline() {
		t.Errorf("the leader calls handlers although 2 in %d calls were slow", slowWeight+1)
	}
}

func TestPace_asks_for_twice_as_many_quick_handlers_after_each_failure(t *testing.T) {
	p := newPace()
	for want := quickInARow; want < mostInARow; want *= 2 {
		if p.quickly(want - 1); p.inline() {
			t.Fatalf("the leader calls handlers after %d quick ones, want %d", want-1, want)
		}
		if p.quickly(1); !p.inline() {
			t.Fatalf("handlers get goroutines after %d quick ones", want)
		}
		p.stuck()
	}
	p.quickly(mostInARow)
	p.stuck()
	if p.quickly(mostInARow); !p.inline() {
		t.Errorf("more than %d quick handlers are asked for", mostInARow)
	}
}

func TestPace_forgives_a_slow_call_after_many_quick_ones(t *testing.T) {
	p := newPace()
	p.quickly(quickInARow)
	p.stuck()
	p.quickly(2 * quickInARow)
	p.calledQuickly(steadyCalls)
	if p.stuck(); !p.inline() {
		t.Errorf("handlers get goroutines after one stall in %d calls", steadyCalls)
	}
	if p.stuck(); p.inline() {
		t.Error("the leader calls handlers although it was stuck twice")
	}
	if p.quickly(2 * quickInARow); !p.inline() {
		t.Error("what was asked for before the stall that was forgiven is remembered")
	}
}
