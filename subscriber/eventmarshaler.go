package subscriber

import (
	"errors"
	"fmt"
	"maps"
	"reflect"
	"slices"

	"github.com/ThreeDotsLabs/watermill/message"

	"github.com/watermill-ots/watermill-ots/ots"
)

// ErrNotAnEvent is returned by EventMarshaler.Marshal.
var ErrNotAnEvent = errors.New("changes of tables are read, not published")

// EventMarshaler is a cqrs.CommandEventMarshaler of Watermill for messages of this package: it gives
// changes names, by which an EventProcessor or EventGroupProcessor finds the handler, and
// fills the handler's event from the typed record, whatever the payload is, as ots.Bind does.
//
// Watermill's own marshalers take the name from metadata that changes do not have. With
// AckOnUnknownEvent, which is usual, a processor then acks every change and calls no
// handler. With this marshaler a change without a handler of its name is unknown in the same way; leave
// AckOnUnknownEvent off if none may be.
//
// A processor must pass on the messages' contexts, as they do. Safe for concurrent use.
type EventMarshaler struct {
	byName map[string]reflect.Type
	byType map[reflect.Type]string
	nameOf func(*message.Message) string
	rows   bool
}

// EventOptions are settings of NewEventMarshaler.
type EventOptions struct {
	// NameOf returns the name of the event that a message is. Default EventName. An empty name
	// belongs to no handler.
	NameOf func(*message.Message) string

	// Rows fills events from the row that was looked up (Config.Lookup), where there is one, instead of
	// what the change wrote.
	Rows bool
}

// EventName is "table.type", such as "orders.update": put, update or delete.
func EventName(msg *message.Message) string {
	table, typ := msg.Metadata.Get(MetadataTable), msg.Metadata.Get(MetadataType)
	if table == "" || typ == "" {
		return ""
	}
	return table + "." + typ
}

// NewEventMarshaler returns a marshaler for the events in the map: by their names, a struct (or
// a pointer to one) of the type that handlers take, with tags as for ots.Bind. Each name has a type of its own, because
// processors ask for the name of a type. The error names what is wrong.
func NewEventMarshaler(events map[string]any, options EventOptions) (*EventMarshaler, error) {
	m := &EventMarshaler{byName: make(map[string]reflect.Type), byType: make(map[reflect.Type]string), nameOf: options.NameOf, rows: options.Rows}
	if m.nameOf == nil {
		m.nameOf = EventName
	}
	if len(events) == 0 {
		return nil, errors.New("event marshaler: no events are given, so no change would have a handler")
	}
	var faults []error
	for _, name := range slices.Sorted(maps.Keys(events)) {
		typ := structType(events[name])
		switch {
		case name == "":
			faults = append(faults, fmt.Errorf("event type %T has an empty name", events[name]))
		case typ == nil:
			faults = append(faults, fmt.Errorf("event %q is a %T: give a struct", name, events[name]))
		case m.byType[typ] != "":
			faults = append(faults, fmt.Errorf("events %q and %q are both of type %s: give each a type of its own", m.byType[typ], name, typ))
		default:
			if err := ots.CheckBinding(reflect.New(typ).Interface()); err != nil {
				faults = append(faults, fmt.Errorf("event %q: %w", name, err))
			}
			m.byName[name], m.byType[typ] = typ, name
		}
	}
	if len(faults) > 0 {
		return nil, fmt.Errorf("event marshaler: %w", errors.Join(faults...))
	}
	return m, nil
}

// structType returns the type of a struct or of what a pointer points to; nil for anything else.
func structType(v any) reflect.Type {
	typ := reflect.TypeOf(v)
	if typ != nil && typ.Kind() == reflect.Pointer {
		typ = typ.Elem()
	}
	if typ == nil || typ.Kind() != reflect.Struct {
		return nil
	}
	return typ
}

// Name returns the name of an event's type. It panics for a type that NewEventMarshaler was not
// given: processors ask for the names when handlers are added, and a handler without one would never be called.
func (m *EventMarshaler) Name(v any) string {
	name := m.byType[structType(v)]
	if name == "" {
		panic(fmt.Sprintf("the handler of %T would never be called: give the type to NewEventMarshaler, which has %v", v, slices.Sorted(maps.Keys(m.byName))))
	}
	return name
}

// NameFromMessage returns the name of the event that a message is, empty for none.
func (m *EventMarshaler) NameFromMessage(msg *message.Message) string { return m.nameOf(msg) }

// Unmarshal fills the event, a pointer to a struct, from the message's record.
func (m *EventMarshaler) Unmarshal(msg *message.Message, v any) error {
	r, ok := ots.RecordFromMessage(msg)
	if !ok {
		return fmt.Errorf("event %s: %w", m.nameOf(msg), ots.ErrNoRecord)
	}
	if m.rows && r.RowState == ots.RowFound {
		return ots.BindRowTo(r, v)
	}
	return ots.BindTo(r, v)
}

// Marshal returns ErrNotAnEvent: a bus of events needs a marshaler of its own, such as cqrs.JSONMarshaler.
func (*EventMarshaler) Marshal(v any) (*message.Message, error) {
	return nil, fmt.Errorf("marshalling %T: %w", v, ErrNotAnEvent)
}
