package forward

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"sync"
	"testing"

	"github.com/ThreeDotsLabs/watermill"
	"github.com/ThreeDotsLabs/watermill/message"
)

// memory is a broker in memory. Its queue has a single order.
type memory struct {
	publish  func(queue []arrival, msg arrival) ([]arrival, error) // nil: append
	endEarly bool                                                  // the reader gives up

	mu      sync.Mutex // guards what follows
	queue   []arrival
	changed chan struct{} // capacity 1
	calls   int
	closed  bool
}

func (m *memory) Publish(_ string, msgs ...*message.Message) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	for _, msg := range msgs {
		m.calls++
		a := arrival{msg.UUID, string(msg.Payload)}
		if m.publish == nil {
			m.queue = append(m.queue, a)
			continue
		}
		var err error
		if m.queue, err = m.publish(m.queue, a); err != nil {
			return err
		}
	}
	select {
	case m.changed <- struct{}{}:
	default:
	}
	return nil
}

func (m *memory) Close() error {
	m.closed = true // by the Router
	return nil
}

func (m *memory) read(ctx context.Context, got func(string, []byte)) error {
	for n := 0; !m.endEarly; {
		select {
		case <-m.changed:
		case <-ctx.Done():
			return nil
		}
		m.mu.Lock()
		found := m.queue[n:]
		n = len(m.queue)
		m.mu.Unlock()
		for _, a := range found {
			got(a.uuid, []byte(a.payload))
		}
	}
	return nil
}

func (m *memory) open(_ context.Context, b *Broker) error {
	m.changed = make(chan struct{}, 1)
	b.Server, b.Publisher, b.Read = "a queue in memory", m, m.read
	return nil
}

func TestForward_finds_nothing_wrong_with(t *testing.T) {
	failures := 0
	for _, tc := range []struct {
		name string
		m    *memory
	}{
		{"a broker that works", &memory{}},
		{"a publisher that fails sometimes", &memory{publish: func(queue []arrival, a arrival) ([]arrival, error) {
			if failures++; failures%7 == 0 {
				return queue, errors.New("simulated")
			}
			return append(queue, a), nil
		}}},
		{"a publisher that fails after the fact", &memory{publish: func(queue []arrival, a arrival) ([]arrival, error) {
			if failures++; failures%7 == 0 {
				return append(queue, a), errors.New("simulated")
			}
			return append(queue, a), nil
		}}},
	} {
		t.Run(tc.name, func(t *testing.T) {
			if err := run(t.Context(), 20, 8, watermill.NopLogger{}, tc.m.open); err != nil {
				t.Error(err)
			}
			if !tc.m.closed {
				t.Error("the publisher was not closed")
			}
		})
	}
}

func TestForward_names_what_is_wrong_with(t *testing.T) {
	for _, tc := range []struct {
		name, want string
		m          *memory
	}{
		{"a broker that changes a payload", "and read back as", &memory{publish: func(queue []arrival, a arrival) ([]arrival, error) {
			if len(queue) == 30 {
				a.payload = strings.Replace(a.payload, "placed", "paid", 1)
				a.payload = strings.Replace(a.payload, "status", "state", 1)
			}
			return append(queue, a), nil
		}}},
		{"a broker that reverses the order of a key", "but {Type:", &memory{publish: func() func(queue []arrival, a arrival) ([]arrival, error) {
			var held *arrival // an order's first change, delivered after its second
			return func(queue []arrival, a arrival) ([]arrival, error) {
				first := strings.Contains(a.payload, `"order":4}`)
				switch {
				case first && held == nil:
					held = &a
					return queue, nil
				case first && held.uuid != "":
					queue = append(queue, a, *held)
					held.uuid = ""
					return queue, nil
				}
				return append(queue, a), nil
			}
		}()}},
		{"a broker that invents messages", "was never published", &memory{publish: func(queue []arrival, a arrival) ([]arrival, error) {
			if len(queue) == 30 {
				queue = append(queue, arrival{"made-up", a.payload})
			}
			return append(queue, a), nil
		}}},
		{"a reader that ends early", "ended early", &memory{endEarly: true}},
	} {
		t.Run(tc.name, func(t *testing.T) {
			err := run(t.Context(), 20, 4, watermill.NopLogger{}, tc.m.open)
			if err == nil || !strings.Contains(err.Error(), tc.want) {
				t.Errorf("the error is %v, want one with %q", err, tc.want)
			}
		})
	}
}

// TestForward_undoes_what_open_did: all steps, the last one first.
func TestForward_undoes_what_open_did(t *testing.T) {
	var undone []int
	bad, worse := errors.New("open fails"), errors.New("so does a step of the end")
	err := run(t.Context(), 2, 1, watermill.NopLogger{}, func(_ context.Context, b *Broker) error {
		b.AtEnd(func(context.Context) error { undone = append(undone, 1); return nil })
		b.AtEnd(func(context.Context) error { undone = append(undone, 2); return worse })
		return bad
	})
	if !errors.Is(err, bad) || !errors.Is(err, worse) {
		t.Errorf("the error is %v", err)
	}
	if fmt.Sprint(undone) != "[2 1]" {
		t.Errorf("undone were %v", undone)
	}
}

// TestLedger_compare: changes at the end of an order that did not arrive count
// as missing.
func TestLedger_compare(t *testing.T) {
	payload := func(step int) string {
		return fmt.Sprintf(`{"type":"update","key":{"order":1},"columns":{"step":%d,"status":"s"}}`, step)
	}
	for _, tc := range []struct {
		name                string
		arrived             []int // steps; the UUID is the step
		missing, duplicates int
		fault               string
	}{
		{"all", []int{1, 2, 3}, 0, 0, ""},
		{"repetitions", []int{1, 2, 1, 2, 3, 3}, 0, 3, ""},
		{"the end is missing", []int{1, 2}, 1, 0, ""},
		{"the middle is missing", []int{1, 3}, 1, 0, "change 2 of order 1"},
		{"the order is wrong", []int{2, 1, 3}, 0, 0, "change 1 of order 1"},
		{"a change that was never written arrived", []int{1, 2, 3, 4}, 0, 0, "order 1 has 3 changes"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			l := newLedger()
			for step := 1; step <= 4; step++ {
				c, err := changeOf(payload(step))
				if err != nil {
					t.Fatal(err)
				}
				if step < 4 {
					l.wrote(c)
				}
				l.payloads[fmt.Sprint(step)] = payload(step)
			}
			for _, step := range tc.arrived {
				l.got(fmt.Sprint(step), []byte(payload(step)))
			}
			v := l.compare()
			if v.missing != tc.missing || v.duplicates != tc.duplicates {
				t.Errorf("%d missing, %d duplicates, want %d and %d", v.missing, v.duplicates, tc.missing, tc.duplicates)
			}
			if got := strings.Join(v.faults, "\n"); (got == "") != (tc.fault == "") || !strings.Contains(got, tc.fault) {
				t.Errorf("the faults are %q, want one with %q", got, tc.fault)
			}
		})
	}
}

func TestLedger_misses_what_was_forwarded_and_never_arrived(t *testing.T) {
	l := newLedger()
	if err := (losing{&memory{changed: make(chan struct{}, 1)}, l}).Publish("", message.NewMessage("lost", nil)); err != nil {
		t.Fatal(err)
	}
	if v := l.compare(); len(v.faults) != 1 || !strings.Contains(v.faults[0], "message lost was forwarded and never arrived") {
		t.Errorf("the faults are %q", v.faults)
	}
}
