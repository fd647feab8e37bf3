package subscriber

import (
	"context"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/ThreeDotsLabs/watermill"
	"github.com/aliyun/aliyun-tablestore-go-sdk/tablestore"
	"github.com/aliyun/aliyun-tablestore-go-sdk/tunnel/protocol"

	"github.com/watermill-ots/watermill-ots/ack"
	"github.com/watermill-ots/watermill-ots/emulator"
	"github.com/watermill-ots/watermill-ots/internal/plainbuffer"
)

func TestWatchdog_warns_when_the_oldest_unacked_record_will_soon_leave_the_log(t *testing.T) {
	now := time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC)
	for _, tc := range []struct {
		name      string
		age       time.Duration
		retention time.Duration
		alarm     bool
	}{
		{"young", time.Hour, 24 * time.Hour, false},
		{"just before the last tenth", 21*time.Hour + 35*time.Minute, 24 * time.Hour, false},
		{"in the last tenth", 21*time.Hour + 37*time.Minute, 24 * time.Hour, true},
		{"older than the log", 25 * time.Hour, 24 * time.Hour, true},
		{"retention not known", 25 * time.Hour, 0, false},
	} {
		t.Run(tc.name, func(t *testing.T) {
			var alarms []Alarm
			sub := &subscription{topic: "t/u", cfg: Config{StuckAfter: time.Minute, OnAlarm: func(a Alarm) { alarms = append(alarms, a) }}}
			sub.retention.Store(int64(tc.retention))
			r := &channelRun{sub: sub, conn: &conn{id: "c"}, logger: watermill.NopLogger{}}
			r.lane = ack.NewWindow(10, 1000).Open()
			r.tracker = ack.New(ack.ByKey, "c", r.lane)
			p := mustDecode(t, wirePage("next", nil, wireRecord(protocol.ActionType_PUT_ROW, &plainbuffer.Row{
				PrimaryKey:  []plainbuffer.Cell{wireCell("k", plainbuffer.StringValue("old"), 0)},
				HasSequence: true, Sequence: plainbuffer.Sequence{Timestamp: now.Add(-tc.age).UnixMicro()},
			}, nil)))
			r.tracker.Add(ack.Page{Token: "next", Keys: []string{"old"}, Value: p})
			dog := &watchdog{run: r}
			dog.look(now)
			dog.look(now.Add(time.Second)) // the same trouble is told once in StuckAfter
			want := 0
			if tc.alarm {
				want = 1
			}
			if len(alarms) != want {
				t.Fatalf("%d alarms, want %d: %+v", len(alarms), want, alarms)
			}
			if tc.alarm {
				a := alarms[0]
				if a.Kind != RetentionNear || a.Key != `["old"]` || a.Topic != "t/u" || a.Channel != "c" || a.Age != tc.age || a.Retention != tc.retention {
					t.Errorf("the alarm is %+v", a)
				}
				dog.look(now.Add(2 * time.Minute))
				if len(alarms) != 2 {
					t.Errorf("%d alarms after another StuckAfter", len(alarms))
				}
			}
		})
	}
}

func TestStreamRetention_is_what_the_table_says(t *testing.T) {
	em, err := emulator.Start(emulator.Options{Instance: "i", AccessKeyID: "id", AccessKeySecret: "secret"})
	if err != nil {
		t.Fatal(err)
	}
	defer em.Close()
	client := tablestore.NewClient(em.Endpoint(), "i", "id", "secret")
	for name, spec := range map[string]*tablestore.StreamSpecification{
		"with": {EnableStream: true, ExpirationTime: 48}, "without": {EnableStream: false},
	} {
		meta := &tablestore.TableMeta{TableName: name}
		meta.AddPrimaryKeyColumn("k", tablestore.PrimaryKeyType_STRING)
		if _, err := client.CreateTable(&tablestore.CreateTableRequest{
			TableMeta: meta, TableOption: &tablestore.TableOption{TimeToAlive: -1, MaxVersion: 1},
			ReservedThroughput: &tablestore.ReservedThroughput{}, StreamSpec: spec,
		}); err != nil {
			t.Fatal(err)
		}
	}
	base := &http.Transport{}
	defer base.CloseIdleConnections()
	e := &endpoint{
		url: em.Endpoint(), instance: "i", base: base, timeout: 5 * time.Second,
		creds: newCredentialsCache(staticCredentials{AccessKeyID: "id", AccessKeySecret: "secret"}, watermill.NopLogger{}),
	}
	for table, want := range map[string]time.Duration{"with": 48 * time.Hour, "without": 0} {
		if got, err := e.streamRetention(t.Context(), table); err != nil || got != want {
			t.Errorf("table %s: %v, %v, want %v", table, got, err, want)
		}
	}
	if _, err := e.streamRetention(t.Context(), "missing"); err == nil || !strings.Contains(err.Error(), "missing") {
		t.Errorf("a missing table: %v", err)
	}
	empty := *e
	empty.base = roundTripFunc(func(r *http.Request) (*http.Response, error) { return answer(r, http.StatusOK, nil), nil })
	if _, err := empty.streamRetention(t.Context(), "with"); err == nil || !strings.Contains(err.Error(), "incomplete") {
		t.Errorf("an empty answer: %v", err)
	}
	ended, cancel := context.WithCancel(context.Background())
	cancel()
	if _, err := e.streamRetention(ended, "with"); err == nil {
		t.Error("no error although the context has ended")
	}
}

// roundTripFunc is a transport of one function.
type roundTripFunc func(*http.Request) (*http.Response, error)

func (f roundTripFunc) RoundTrip(r *http.Request) (*http.Response, error) { return f(r) }
