package subscriber

import (
	"fmt"
	"runtime"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"
	"weak"

	"github.com/ThreeDotsLabs/watermill/message"
	"github.com/aliyun/aliyun-tablestore-go-sdk/tunnel/protocol"

	"github.com/watermill-ots/watermill-ots/internal/plainbuffer"
	"github.com/watermill-ots/watermill-ots/ots"
)

// countingPages makes f deliver pages of that many records each, and then empty ones.
// The tokens are t0, t1 and so on.
func countingPages(t *testing.T, f *fakeService, pages, records int) *fakeService {
	return f.on("readrecords", func(body []byte) reply {
		n := tokenOf(t, body)
		if n >= pages {
			return pageReply(fmt.Sprintf("t%d", n), nil)
		}
		var rs []*protocol.Record
		for i := range records {
			id := int64(n*records + i)
			rs = append(rs, wireRecord(protocol.ActionType_PUT_ROW, &plainbuffer.Row{
				PrimaryKey:  []plainbuffer.Cell{wireCell("id", plainbuffer.IntegerValue(id), 0)},
				Cells:       []plainbuffer.Cell{wireCell("column", plainbuffer.StringValue(fmt.Sprint("value ", id)), 1)},
				HasSequence: true, Sequence: plainbuffer.Sequence{Timestamp: 1700000000000000, RowIndex: int32(id)},
			}, nil))
		}
		return pageReply(fmt.Sprintf("t%d", n+1), rs)
	})
}

// tokenOf returns the number in the token of a read.
func tokenOf(t *testing.T, body []byte) (n int) {
	var req protocol.ReadRecordsRequest
	unmarshal(t, body, &req)
	if _, err := fmt.Sscanf(req.GetToken(), "t%d", &n); err != nil {
		t.Errorf("read from token %q", req.GetToken())
	}
	return n
}

// keeper is an Unmarshaler that keeps a column's name of each record, or nothing.
type keeper struct{ names *atomic.Pointer[[]string] }

func (k keeper) Unmarshal(r *ots.Record) (*message.Message, error) {
	if k.names != nil && r.KeyText() == "[10]" {
		k.names.Store(&[]string{r.Columns[0].Name})
	}
	return message.NewMessage("", nil), nil
}

// alive counts the pages whose bodies are still in memory.
func alive(bodies map[weak.Pointer[byte]]int) (pages []int) {
	for range 3 {
		runtime.GC()
	}
	for p, n := range bodies {
		if p.Value() != nil {
			pages = append(pages, n)
		}
	}
	return pages
}

func TestL6_record_that_is_kept_or_stuck_pins_its_page_and_no_other(t *testing.T) {
	t.Parallel()
	const pages, each = 40, 3
	names := new(atomic.Pointer[[]string])
	for name, c := range map[string]struct {
		unmarshaler ots.Unmarshaler
		keep        func(msg *message.Message) any // what is kept of record 10, which is in page 3
		acked       bool                           // it is acked, too
	}{
		"stuck":                       {JSON{}, func(msg *message.Message) any { return msg }, false},
		"stuck, typed":                {None{}, func(msg *message.Message) any { r, _ := ots.RecordFromMessage(msg); return r }, false},
		"record kept after its ack":   {None{}, func(msg *message.Message) any { r, _ := ots.RecordFromMessage(msg); return r }, true},
		"message kept after its ack":  {JSON{}, func(msg *message.Message) any { return msg }, true},
		"value kept":                  {None{}, func(msg *message.Message) any { r, _ := ots.RecordFromMessage(msg); return r.Columns[0].Value }, true},
		"column name kept":            {None{}, func(msg *message.Message) any { r, _ := ots.RecordFromMessage(msg); return r.Columns[0].Name }, true},
		"stuck, user's Unmarshaler":   {keeper{}, func(msg *message.Message) any { return msg }, false},
		"kept by user's Unmarshaler":  {keeper{names}, func(*message.Message) any { return nil }, true},
		"stuck, records read by all":  {keeper{}, func(msg *message.Message) any { r, _ := ots.RecordFromMessage(msg); return r }, false},
		"key kept":                    {JSON{}, func(msg *message.Message) any { return msg.Context().(*delivery).Key() }, true},
		"old image and key of Record": {None{}, func(msg *message.Message) any { r, _ := ots.RecordFromMessage(msg); return r.PrimaryKey }, true},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				f := countingPages(t, fakeTunnel(0), pages, each)
				s := fakeSubscriber(t, f, func(cfg *Config) { cfg.Unmarshaler = c.unmarshaler })
				messages := subscribeTo(t, s)
				bodies := make(map[weak.Pointer[byte]]int)
				var kept any
				var stuck *message.Message
				for i := range pages * each {
					msg := <-messages
					p := msg.Context().(*delivery).attempt.Page().(*page)
					bodies[weak.Make(&p.body[0])] = i / each
					if i == 10 {
						kept = c.keep(msg)
						if !c.acked {
							stuck = msg
							continue
						}
					} else if strings.Contains(name, "typed") || strings.Contains(name, "read by all") {
						if _, ok := ots.RecordFromMessage(msg); !ok {
							t.Error("no record")
						}
					}
					msg.Ack()
				}
				time.Sleep(time.Minute) // the channel is idle
				if got := alive(bodies); len(got) != 1 || got[0] != 3 {
					t.Errorf("pages in memory are %v, want page 3 alone", got)
				}
				runtime.KeepAlive(kept)
				if stuck != nil {
					stuck.Ack()
				}
				if err := s.Close(); err != nil {
					t.Error(err)
				}
			})
		})
	}
}

func TestL6_idle_channel_pins_no_page(t *testing.T) {
	t.Parallel()
	for name, u := range map[string]ots.Unmarshaler{"JSON": JSON{}, "None": None{}, "CloudEvents": CloudEvents{}, "user's": keeper{}} {
		for _, typed := range []bool{false, true} {
			t.Run(fmt.Sprintf("%s, typed=%v", name, typed), func(t *testing.T) {
				synctest.Test(t, func(t *testing.T) {
					s := fakeSubscriber(t, countingPages(t, fakeTunnel(0), 5, 2), func(cfg *Config) { cfg.Unmarshaler = u })
					var mu sync.Mutex // handlers run side by side
					bodies := make(map[weak.Pointer[byte]]int)
					if _, err := s.Handle(t.Context(), "table/tunnel", func(msg *message.Message) error {
						p := msg.Context().(*delivery).attempt.Page().(*page)
						mu.Lock()
						bodies[weak.Make(&p.body[0])] = len(bodies)
						mu.Unlock()
						if typed {
							ots.RecordFromMessage(msg)
						}
						return nil
					}); err != nil {
						t.Fatal(err)
					}
					time.Sleep(time.Minute)
					mu.Lock()
					defer mu.Unlock()
					if len(bodies) != 5 {
						t.Fatalf("%d pages were seen", len(bodies))
					}
					if got := alive(bodies); len(got) != 0 {
						t.Errorf("%d pages in memory, though all is acked", len(got))
					}
					if err := s.Close(); err != nil {
						t.Error(err)
					}
				})
			})
		}
	}
}

func TestL6_records_of_different_pages_share_no_block(t *testing.T) {
	bodies := make(map[weak.Pointer[byte]]int)
	decoder := recordDecoder{block: blockCells}
	kept := new(ots.Record)
	for n := range 10 { // one behind the other, as when the deliverer never waits
		p := mustDecode(t, wirePage("n", nil, benchWire(3, 2)...))
		bodies[weak.Make(&p.body[0])] = n
		r := new(ots.Record)
		for i := range p.rows {
			decoder.decode(p, i, r)
		}
		if n == 4 {
			kept = r
		}
	}
	if got := alive(bodies); len(got) > 2 { // the decoder holds its last page
		t.Errorf("pages in memory are %v, want those of the kept record and of the last one", got)
	}
	runtime.KeepAlive(kept)
	runtime.KeepAlive(&decoder)
}

func TestL6_page_of_few_records_behind_a_large_one_gets_memory_for_few(t *testing.T) {
	d := testDecoder()
	for _, n := range []int{5000, 1} {
		p, err := d.decode(wirePage("n", nil, benchWire(n, 1)...))
		if err != nil {
			t.Fatal(err)
		}
		if c := cap(p.rows); c < n || c > n+16 && n == 1 {
			t.Errorf("a page of %d records has room for %d", n, c)
		}
	}
}

// foreign is an Unmarshaler that makes its messages without NewMessage.
type foreign struct {
	made func(msg *message.Message) *message.Message
}

func (u foreign) Unmarshal(r *ots.Record) (*message.Message, error) {
	msg := message.NewMessage("of "+r.KeyText(), append(make([]byte, 0, 64), r.KeyText()...))
	msg.Metadata.Set("mine", r.KeyText())
	return u.made(msg), nil
}

func TestUnmarshaler_message_whose_ack_would_not_be_seen_is_replaced(t *testing.T) {
	for name, made := range map[string]func(msg *message.Message) *message.Message{
		"made without NewMessage": func(msg *message.Message) *message.Message {
			return &message.Message{UUID: msg.UUID, Payload: msg.Payload, Metadata: msg.Metadata}
		},
		"acked already":  func(msg *message.Message) *message.Message { msg.Ack(); return msg },
		"nacked already": func(msg *message.Message) *message.Message { msg.Nack(); return msg },
		"as usual":       func(msg *message.Message) *message.Message { return msg },
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				f := fakeTunnel(3)
				s := fakeSubscriber(t, f, func(c *Config) { c.Unmarshaler = foreign{made} })
				messages := subscribeTo(t, s)
				var taken []*message.Message
				for range 3 {
					taken = append(taken, <-messages)
				}
				time.Sleep(time.Minute)
				if st := s.Status().Subscriptions[0]; st.Totals.Acked != 0 || st.InFlight != 3 {
					t.Errorf("before anything is acked: %d acked, %d in flight", st.Totals.Acked, st.InFlight)
				}
				for i, msg := range taken {
					key := fmt.Sprintf("[%d]", i)
					if msg.UUID != "of "+key || string(msg.Payload) != key || msg.Metadata.Get("mine") != key {
						t.Errorf("message %d is %+v", i, msg)
					}
					if cap(msg.Payload) != len(msg.Payload) {
						t.Errorf("an append to the payload of message %d would write behind it", i)
					}
					msg.Ack()
				}
				time.Sleep(time.Minute)
				if st := s.Status().Subscriptions[0]; st.Totals.Acked != 3 || st.InFlight != 0 {
					t.Errorf("after three acks: %d acked, %d in flight", st.Totals.Acked, st.InFlight)
				}
				if err := s.Close(); err != nil {
					t.Error(err)
				}
				if got := stored(t, f); len(got) != 1 || got[0] != "t1@1" {
					t.Errorf("stored %v, want t1", got)
				}
			})
		})
	}
}

func TestUnmarshaler_message_without_metadata_gets_some(t *testing.T) {
	msg := deliverable(&message.Message{UUID: "u"})
	msg.Metadata.Set("key", "value")
	if msg.Ack() != true || msg.UUID != "u" {
		t.Errorf("the message is %+v", msg)
	}
}

func TestPayload_has_no_room_behind_it(t *testing.T) {
	r := mustDecode(t, wirePage("n", nil, fullPage()...)).record(0)
	for _, u := range []ots.Unmarshaler{JSON{}, Raw{}, None{}, CloudEvents{}, Debezium{}} {
		msg, err := u.Unmarshal(r)
		if err != nil {
			t.Fatal(err)
		}
		key := strings.Clone(msg.Metadata[MetadataKey])
		_ = append(msg.Payload, strings.Repeat("x", 200)...)
		if cap(msg.Payload) != len(msg.Payload) || msg.Metadata[MetadataKey] != key {
			t.Errorf("%T: room for %d behind %d bytes of payload", u, cap(msg.Payload), len(msg.Payload))
		}
	}
}
