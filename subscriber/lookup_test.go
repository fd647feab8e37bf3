package subscriber_test

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"maps"
	"math/rand/v2"
	"net/http"
	"path"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/ThreeDotsLabs/watermill/message"
	"github.com/aliyun/aliyun-tablestore-go-sdk/tablestore"
	pb "github.com/aliyun/aliyun-tablestore-go-sdk/tablestore/otsprotocol"
	"github.com/aliyun/aliyun-tablestore-go-sdk/tunnel"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/protoadapt"

	"github.com/watermill-ots/watermill-ots/emulator"
	"github.com/watermill-ots/watermill-ots/internal/plainbuffer"
	"github.com/watermill-ots/watermill-ots/internal/testbed"
	"github.com/watermill-ots/watermill-ots/ots"
	"github.com/watermill-ots/watermill-ots/subscriber"
)

// rowFaults fails single rows of BatchGetRow answers, as the service does for rows of a
// partition that is throttled or moves.
type rowFaults struct {
	base  http.RoundTripper
	fails func(key string) bool // the first column of the row's key
	code  string
	calls atomic.Int64 // of BatchGetRow
}

func (f *rowFaults) RoundTrip(req *http.Request) (*http.Response, error) {
	if path.Base(req.URL.Path) != "BatchGetRow" {
		return f.base.RoundTrip(req)
	}
	f.calls.Add(1)
	body, err := io.ReadAll(req.Body)
	if err != nil {
		return nil, err
	}
	req = req.Clone(req.Context())
	req.Body = io.NopCloser(bytes.NewReader(body))
	resp, err := f.base.RoundTrip(req)
	if err != nil || resp.StatusCode != http.StatusOK || f.fails == nil {
		return resp, err
	}
	defer resp.Body.Close()
	answer, err := io.ReadAll(resp.Body)
	if err != nil {
		return nil, err
	}
	var asked pb.BatchGetRowRequest
	var told pb.BatchGetRowResponse
	if err := errors.Join(proto.Unmarshal(body, protoadapt.MessageV2Of(&asked)), proto.Unmarshal(answer, protoadapt.MessageV2Of(&told))); err != nil {
		return nil, err
	}
	for i, encoded := range asked.Tables[0].PrimaryKey {
		var key plainbuffer.Row
		if err := plainbuffer.Decode(encoded, &key); err != nil {
			return nil, err
		}
		if f.fails(key.PrimaryKey[0].Value.Str()) {
			told.Tables[0].Rows[i] = &pb.RowInBatchGetRowResponse{IsOk: proto.Bool(false), Error: &pb.Error{Code: proto.String(f.code), Message: proto.String("message of the row")}}
		}
	}
	if answer, err = proto.Marshal(protoadapt.MessageV2Of(&told)); err != nil {
		return nil, err
	}
	resp.Body, resp.ContentLength = io.NopCloser(bytes.NewReader(answer)), int64(len(answer))
	resp.Header.Set("Content-Length", fmt.Sprint(len(answer)))
	return resp, nil
}

// transport returns an HTTP transport that is closed at the end of the test.
func transport(t *testing.T) *http.Transport {
	tr := &http.Transport{MaxIdleConnsPerHost: 64}
	t.Cleanup(tr.CloseIdleConnections)
	return tr
}

// updateRow writes columns of a row, or removes those whose value is nil.
func updateRow(b *testbed.Bed, key string, columns map[string]any) {
	b.Helper()
	change := &tablestore.UpdateRowChange{TableName: testbed.Table, PrimaryKey: new(tablestore.PrimaryKey)}
	change.PrimaryKey.AddPrimaryKeyColumn("k", key)
	for name, v := range columns {
		if v == nil {
			change.DeleteColumn(name)
		} else {
			change.PutColumn(name, v)
		}
	}
	change.SetCondition(tablestore.RowExistenceExpectation_IGNORE)
	if _, err := b.Client.UpdateRow(&tablestore.UpdateRowRequest{UpdateRowChange: change}); err != nil {
		b.Error(err)
	}
}

func deleteRow(b *testbed.Bed, key string) {
	b.Helper()
	if err := b.Emulator.Delete(testbed.Table, emulator.Row{"k": key}); err != nil {
		b.Error(err)
	}
}

// tableRows returns the table, as texts by key.
func tableRows(b *testbed.Bed) map[string]string {
	b.Helper()
	from, to := new(tablestore.PrimaryKey), new(tablestore.PrimaryKey)
	from.AddPrimaryKeyColumnWithMinValue("k")
	to.AddPrimaryKeyColumnWithMaxValue("k")
	resp, err := b.Client.GetRange(&tablestore.GetRangeRequest{RangeRowQueryCriteria: &tablestore.RangeRowQueryCriteria{
		TableName: testbed.Table, StartPrimaryKey: from, EndPrimaryKey: to, Direction: tablestore.FORWARD, MaxVersion: 1, Limit: 5000,
	}})
	if err != nil {
		b.Fatal(err)
	}
	rows := make(map[string]string)
	for _, r := range resp.Rows {
		columns := make(map[string]any)
		for _, c := range r.Columns {
			columns[c.ColumnName] = c.Value
		}
		rows[fmt.Sprintf("[%q]", r.PrimaryKey.PrimaryKeys[0].Value)] = fmt.Sprint(columns)
	}
	return rows
}

// rowText is a row as tableRows has it.
func rowText(cells []ots.Cell) string {
	columns := make(map[string]any)
	for _, c := range cells {
		columns[c.Name] = c.Value.Any()
	}
	return fmt.Sprint(columns)
}

// wholeRows is a sink that replaces rows, and knows nothing of single columns.
type wholeRows struct {
	t      *testing.T
	mu     sync.Mutex
	rows   map[string]string
	counts map[ots.RowState]int
}

func (w *wholeRows) handle(msg *message.Message) error {
	r, ok := ots.RecordFromMessage(msg)
	if !ok {
		return errors.New("no record")
	}
	row, known := r.WholeRow()
	w.mu.Lock()
	defer w.mu.Unlock()
	w.counts[r.RowState]++
	switch {
	case r.Type == ots.Delete || r.RowState == ots.RowGone:
		delete(w.rows, r.KeyText())
	case !known:
		w.t.Errorf("the row of an %v of %s is not known", r.Type, r.KeyText())
	default:
		// Column n counts the writes of a key: the row is at least as new as the change.
		if n, wrote := r.Column("n"); wrote {
			if m, _ := r.RowColumn("n"); r.RowState == ots.RowFound && m.Int64() < n.Int64() {
				w.t.Errorf("row %s is of write %d, older than its change %d", r.KeyText(), m.Int64(), n.Int64())
			}
		}
		w.rows[r.KeyText()] = rowText(row)
	}
	return nil
}

func TestLookup_sink_of_whole_rows_equals_the_table_when_writes_and_faults_race_with_lookups(t *testing.T) {
	t.Parallel()
	for _, way := range []string{"Handle", "Subscribe", "every record"} {
		t.Run(way, func(t *testing.T) {
			seed := rand.Uint64()
			t.Logf("seed %d", seed)
			b := testbed.New(t, emulator.Options{Seed: seed})
			b.PutAll(20, 1)
			b.CreateTunnel(tunnel.TunnelTypeBaseStream)
			for _, f := range []emulator.Fault{
				{Operation: "BatchGetRow", Code: "OTSServerBusy", Times: -1, Chance: 0.1},
				{Operation: "BatchGetRow", Break: emulator.MidAnswer, Times: -1, Chance: 0.05},
				{Operation: "BatchGetRow", Delay: 30 * time.Millisecond, Times: -1, Chance: 0.2},
			} {
				if err := b.Emulator.Inject(f); err != nil {
					t.Fatal(err)
				}
			}
			cfg := testbed.Config(b.Emulator.Endpoint())
			cfg.Lookup, cfg.MaxInFlight = subscriber.LookupUpdates, 50
			if way == "every record" {
				cfg.Lookup = subscriber.LookupAlways
			}
			var dice sync.Mutex
			failing := rand.New(rand.NewPCG(seed, 2))
			cfg.Transport = &rowFaults{base: transport(t), code: "OTSServerUnavailable", fails: func(string) bool {
				dice.Lock()
				defer dice.Unlock()
				return failing.IntN(20) == 0
			}}
			s, err := subscriber.New(cfg, nil)
			if err != nil {
				t.Fatal(err)
			}
			defer s.Close()
			sink := &wholeRows{t: t, rows: make(map[string]string), counts: make(map[ots.RowState]int)}
			if way == "Subscribe" {
				messages, err := s.Subscribe(t.Context(), testbed.Topic)
				if err != nil {
					t.Fatal(err)
				}
				go func() { // ends with Close
					for msg := range messages {
						if sink.handle(msg) == nil {
							msg.Ack()
						}
					}
				}()
			} else if _, err := s.Handle(t.Context(), testbed.Topic, sink.handle); err != nil {
				t.Fatal(err)
			}
			writeAtRandom(b, seed)
			var want map[string]string
			testbed.Eventually(t, 60*time.Second, "the sink equals the table", func() bool {
				want = tableRows(b)
				sink.mu.Lock()
				defer sink.mu.Unlock()
				return maps.Equal(sink.rows, want)
			})
			totals := s.Status().Subscriptions[0].Totals
			sink.mu.Lock()
			defer sink.mu.Unlock()
			t.Logf("rows %v; %d calls read %d rows, %d of them gone, %d units", sink.counts, totals.Lookups, totals.RowsLookedUp, totals.RowsGone, totals.LookupUnits)
			if sink.counts[ots.RowFound] == 0 || totals.RowsLookedUp == 0 || totals.LookupUnits < totals.RowsLookedUp || totals.Lookups == 0 {
				t.Errorf("nothing was looked up: %+v", totals)
			}
			if unknown := sink.counts[ots.RowUnknown]; (unknown == 0) != (way == "every record") {
				t.Errorf("%d records were not looked up", unknown)
			}
		})
	}
}

// writeAtRandom puts, updates and deletes rows from several goroutines.
func writeAtRandom(b *testbed.Bed, seed uint64) {
	var writers sync.WaitGroup
	for w := range 4 {
		writers.Go(func() {
			r := rand.New(rand.NewPCG(seed, uint64(10+w)))
			for n := range 150 {
				time.Sleep(time.Duration(r.IntN(5)) * time.Millisecond)
				key := testbed.Key(w*10 + r.IntN(10)) // of this writer alone, so that n grows
				switch r.IntN(8) {
				case 0:
					deleteRow(b, key)
				case 1:
					if err := b.Emulator.Put(testbed.Table, emulator.Row{"k": key, "n": int64(n)}); err != nil {
						b.Error(err)
					}
				case 2:
					updateRow(b, key, map[string]any{"n": int64(n), "a": nil})
				default:
					updateRow(b, key, map[string]any{"n": int64(n), []string{"a", "b", "c"}[r.IntN(3)]: fmt.Sprint(n)})
				}
			}
		})
	}
	writers.Wait()
}

func TestLookup_row_that_cannot_be_read_holds_back_its_page_and_its_key_only(t *testing.T) {
	t.Parallel()
	b := testbed.New(t, emulator.Options{})
	b.CreateTunnel(tunnel.TunnelTypeStream)
	var fails atomic.Bool
	fails.Store(true)
	cfg := testbed.Config(b.Emulator.Endpoint())
	cfg.Lookup = subscriber.LookupUpdates
	cfg.Transport = &rowFaults{base: transport(t), code: "OTSNotEnoughCapacityUnit", fails: func(key string) bool { return key == "bad" && fails.Load() }}
	s, err := subscriber.New(cfg, nil)
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	var mu sync.Mutex
	var got []string
	if _, err := s.Handle(t.Context(), testbed.Topic, func(msg *message.Message) error {
		r, _ := ots.RecordFromMessage(msg)
		n, _ := r.Column("n")
		mu.Lock()
		defer mu.Unlock()
		got = append(got, fmt.Sprintf("%s %d", r.PrimaryKey[0].Value, n.Int64()))
		return nil
	}); err != nil {
		t.Fatal(err)
	}
	handled := func(want ...string) func() bool {
		return func() bool {
			mu.Lock()
			defer mu.Unlock()
			return strings.Join(got, ", ") == strings.Join(want, ", ")
		}
	}
	read := func(n uint64) {
		testbed.Eventually(t, 30*time.Second, "the page is read", func() bool { return s.Status().Subscriptions[0].Totals.RecordsRead == n })
	}
	updateRow(b, "bad", map[string]any{"n": int64(1)})
	read(1)
	updateRow(b, "good", map[string]any{"n": int64(1)})
	read(2)
	updateRow(b, "bad", map[string]any{"n": int64(2)})
	updateRow(b, "other", map[string]any{"n": int64(1)})
	testbed.Eventually(t, 30*time.Second, "the page behind it flows", handled("good 1"))
	trouble := func() string { return fmt.Sprint(s.Status().Subscriptions[0].Trouble) }
	testbed.Eventually(t, 30*time.Second, "the trouble is in the status", func() bool {
		return strings.Contains(trouble(), "lookups of rows fail")
	})
	if !strings.Contains(trouble(), "throttles") {
		t.Errorf("the trouble is %s", trouble())
	}
	fails.Store(false)
	testbed.Eventually(t, 30*time.Second, "the rest follows, each key in order", func() bool {
		mu.Lock()
		defer mu.Unlock()
		return len(got) == 4 && indexOf(got, "bad 1") < indexOf(got, "bad 2")
	})
	testbed.Eventually(t, 30*time.Second, "the trouble is over", func() bool { return trouble() == "[]" })
}

func indexOf(list []string, s string) int {
	for i := range list {
		if list[i] == s {
			return i
		}
	}
	return len(list)
}

func TestLookup_rows_count_against_the_window(t *testing.T) {
	t.Parallel()
	const rowSize, perPage, pages = 50 << 10, 20, 30
	b := testbed.New(t, emulator.Options{})
	fat := strings.Repeat("x", rowSize)
	for i := range perPage * pages {
		updateRow(b, testbed.Key(i), map[string]any{"fat": fat})
	}
	b.CreateTunnel(tunnel.TunnelTypeStream)
	// All pages are read while the first calls are on their way.
	if err := b.Emulator.Inject(emulator.Fault{Operation: "BatchGetRow", Delay: 3 * time.Second, Times: 10}); err != nil {
		t.Fatal(err)
	}
	cfg := testbed.Config(b.Emulator.Endpoint())
	cfg.Lookup, cfg.MaxInFlightBytes, cfg.MaxPollInterval = subscriber.LookupUpdates, 2<<20, 20*time.Millisecond
	s, err := subscriber.New(cfg, nil)
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	release := make(chan struct{})
	var handled atomic.Int64
	if _, err := s.Handle(t.Context(), testbed.Topic, func(msg *message.Message) error {
		<-release
		if row, err := ots.BindRow[struct {
			Fat string `ots:"fat,required"`
		}](record(t, msg)); err != nil || len(row.Fat) != rowSize {
			t.Errorf("the row has %d bytes: %v", len(row.Fat), err)
		}
		handled.Add(1)
		return nil
	}); err != nil {
		t.Fatal(err)
	}
	defer func() {
		if !closedChan(release) {
			close(release)
		}
	}()
	most := int64(0)
	for p := range pages {
		for i := range perPage {
			updateRow(b, testbed.Key(p*perPage+i), map[string]any{"n": int64(1)})
		}
		began := time.Now()
		for time.Since(began) < 40*time.Millisecond {
			most = max(most, s.Status().Subscriptions[0].InFlightBytes)
			time.Sleep(5 * time.Millisecond)
		}
	}
	for began := time.Now(); time.Since(began) < 3*time.Second; time.Sleep(5 * time.Millisecond) {
		most = max(most, s.Status().Subscriptions[0].InFlightBytes)
	}
	// The window, a round, and the rows of the first page, which need no admission.
	if limit := cfg.MaxInFlightBytes + 10<<20 + 2*perPage*rowSize; most > limit || most < cfg.MaxInFlightBytes/2 {
		t.Errorf("L6: %d bytes in flight, at most %d are allowed, of %d", most, limit, pages*perPage*rowSize)
	}
	close(release)
	testbed.Eventually(t, 60*time.Second, "all is handled", func() bool { return handled.Load() == perPage*pages })
}

func closedChan(c chan struct{}) bool {
	select {
	case <-c:
		return true
	default:
		return false
	}
}

func record(t *testing.T, msg *message.Message) *ots.Record {
	r, ok := ots.RecordFromMessage(msg)
	if !ok {
		t.Error("the message has no record")
		return new(ots.Record)
	}
	return r
}

func TestLookup_tells_a_row_that_is_gone_from_one_without_the_chosen_columns(t *testing.T) {
	t.Parallel()
	b := testbed.New(t, emulator.Options{})
	b.CreateTunnel(tunnel.TunnelTypeStream)
	updateRow(b, "bare", map[string]any{"v": int64(1)})
	updateRow(b, "full", map[string]any{"v": int64(1), "a": "x"})
	updateRow(b, "gone", map[string]any{"a": "x"})
	deleteRow(b, "gone")
	cfg := testbed.Config(b.Emulator.Endpoint())
	cfg.Lookup, cfg.LookupColumns = subscriber.LookupUpdates, []string{"a", "none"}
	s, err := subscriber.New(cfg, nil)
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	messages, err := s.Subscribe(t.Context(), testbed.Topic)
	if err != nil {
		t.Fatal(err)
	}
	got := make(map[string]string)
	for range 4 {
		msg := <-messages
		r := record(t, msg)
		got[r.PrimaryKey[0].Value.String()+" "+r.Type.String()] = fmt.Sprintf("%v %v %s", r.RowState, rowText(r.Row), rowMember(string(msg.Payload)))
		msg.Ack()
	}
	want := map[string]string{
		"bare update": `found map[] "row":{}`,
		"full update": `found map[a:x] "row":{"a":"x"}`,
		"gone update": `gone map[] "row":null`,
		"gone delete": `unknown map[] `,
	}
	if !maps.Equal(got, want) {
		t.Errorf("got\n%q, want\n%q", got, want)
	}
}

// rowMember returns the member "row" of a JSON payload.
func rowMember(payload string) string {
	_, rest, found := strings.Cut(payload, `"row":`)
	if !found {
		return ""
	}
	rest, _, _ = strings.Cut(rest, `,"timestamp"`)
	return `"row":` + rest
}

func TestLookup_one_call_reads_the_rows_of_up_to_a_hundred_keys_however_many_changes_they_have(t *testing.T) {
	t.Parallel()
	for _, c := range []struct{ keys, changes int }{{100, 20}, {1200, 3}} {
		t.Run(fmt.Sprintf("%d changes of each of %d rows", c.changes, c.keys), func(t *testing.T) { lookUpOnce(t, c.keys, c.changes) })
	}
}

// lookUpOnce looks up the rows of a log that has each of so many changes of so many rows.
func lookUpOnce(t *testing.T, keys, changes int) {
	b := testbed.New(t, emulator.Options{})
	b.CreateTunnel(tunnel.TunnelTypeStream)
	for n := range changes {
		rows := make([]emulator.Row, keys)
		for i := range rows {
			rows[i] = emulator.Row{"k": testbed.Key(i), "n": int64(n)}
		}
		if err := b.Emulator.Update(testbed.Table, rows...); err != nil {
			t.Fatal(err)
		}
	}
	cfg := testbed.Config(b.Emulator.Endpoint())
	cfg.Lookup = subscriber.LookupUpdates
	s, err := subscriber.New(cfg, nil)
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	var handled atomic.Int64
	if _, err := s.Handle(t.Context(), testbed.Topic, func(msg *message.Message) error {
		if n, ok := record(t, msg).RowColumn("n"); !ok || n.Int64() != int64(changes-1) {
			t.Errorf("the row has n = %v", n)
		}
		handled.Add(1)
		return nil
	}); err != nil {
		t.Fatal(err)
	}
	testbed.Eventually(t, 30*time.Second, "all is handled", func() bool { return handled.Load() == int64(keys*changes) })
	totals := s.Status().Subscriptions[0].Totals
	if pages := totals.ReadsFull + totals.ReadsPartial; totals.Lookups > pages*uint64((keys+99)/100) || totals.RowsLookedUp > uint64(keys)*pages {
		t.Errorf("%d calls for %d rows of %d pages", totals.Lookups, totals.RowsLookedUp, pages)
	}
}

func TestLookup_configuration_that_cannot_be_meant_is_refused(t *testing.T) {
	many := make([]string, subscriber.MaxLookupColumns+1)
	for i := range many {
		many[i] = fmt.Sprint("c", i)
	}
	for _, c := range []struct {
		lookup  subscriber.Lookup
		columns []string
		says    string
	}{
		{subscriber.LookupAlways + 1, nil, "Config.Lookup is 3"},
		{subscriber.LookupNone, []string{"a"}, "reads no rows"},
		{subscriber.LookupUpdates, []string{"a b"}, `"a b"`},
		{subscriber.LookupUpdates, many, "at most 127"},
	} {
		cfg := testbed.Config("http://127.0.0.1:1")
		cfg.Lookup, cfg.LookupColumns = c.lookup, c.columns
		if err := cfg.Validate(); err == nil || !strings.Contains(err.Error(), c.says) {
			t.Errorf("%v %q: the error %v does not say %q", c.lookup, c.columns, err, c.says)
		}
	}
}
