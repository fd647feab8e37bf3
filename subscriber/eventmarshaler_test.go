package subscriber_test

import (
	"errors"
	"fmt"
	"strings"
	"testing"

	"github.com/watermill-ots/watermill-ots/subscriber"
)

type (
	rowPut struct {
		Key string `ots:"k"`
	}
	rowDeleted struct {
		Key string `ots:"k"`
	}
)

func TestEventMarshaler_events_that_no_handler_could_get_are_refused(t *testing.T) {
	for _, c := range []struct {
		events map[string]any
		says   string
	}{
		{nil, "no events"},
		{map[string]any{"": rowPut{}}, "empty name"},
		{map[string]any{"orders.put": 7}, `event "orders.put" is a int`},
		{map[string]any{"a.put": rowPut{}, "b.put": &rowPut{}}, `"a.put" and "b.put" are both of type`},
		{map[string]any{"a.put": struct {
			X int `ots:"x,omitempty"`
		}{}}, "unknown option"},
	} {
		if _, err := subscriber.NewEventMarshaler(c.events, subscriber.EventOptions{}); err == nil || !strings.Contains(err.Error(), c.says) {
			t.Errorf("%v: the error %v does not say %q", c.events, err, c.says)
		}
	}
	m, err := subscriber.NewEventMarshaler(map[string]any{"orders.put": rowPut{}}, subscriber.EventOptions{})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := m.Marshal(rowPut{}); !errors.Is(err, subscriber.ErrNotAnEvent) {
		t.Errorf("Marshal: %v", err)
	}
	defer func() {
		if v := recover(); v == nil || !strings.Contains(fmt.Sprint(v), "would never be called") {
			t.Errorf("Name of a type without a name: %v", v)
		}
	}()
	m.Name(&rowDeleted{})
}
