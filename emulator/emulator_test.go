package emulator_test

import (
	"encoding/json"
	"errors"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"sync"
	"testing"

	"go.uber.org/goleak"

	"github.com/aliyun/aliyun-tablestore-go-sdk/tablestore"
	"github.com/aliyun/aliyun-tablestore-go-sdk/tunnel/protocol"

	"github.com/watermill-ots/watermill-ots/emulator"
)

func TestStart(t *testing.T) {
	t.Run("refuses half of the credentials", func(t *testing.T) {
		for _, opts := range []emulator.Options{{AccessKeyID: "ak"}, {AccessKeySecret: "sk"}, {SecurityToken: "sts"}, {Region: "cn-hangzhou"}} {
			if _, err := emulator.Start(opts); err == nil || !strings.Contains(err.Error(), "AccessKeyID") {
				t.Errorf("%+v: %v", opts, err)
			}
		}
	})
	t.Run("refuses an address in use, and leaves the data directory free", func(t *testing.T) {
		l, err := net.Listen("tcp", "127.0.0.1:0")
		if err != nil {
			t.Fatal(err)
		}
		defer l.Close()
		dir := t.TempDir()
		if _, err := emulator.Start(emulator.Options{Addr: l.Addr().String(), DataDir: dir}); err == nil || !strings.Contains(err.Error(), l.Addr().String()) {
			t.Errorf("got %v", err)
		}
		start(t, emulator.Options{DataDir: dir})
	})
	t.Run("says what is wrong with a data directory", func(t *testing.T) {
		foreign := t.TempDir()
		os.WriteFile(filepath.Join(foreign, "thesis.doc"), nil, 0o600)
		if _, err := emulator.Start(emulator.Options{DataDir: foreign}); !errors.Is(err, emulator.ErrDataDirForeign) {
			t.Errorf("got %v", err)
		}
		used := t.TempDir()
		start(t, emulator.Options{DataDir: used})
		if _, err := emulator.Start(emulator.Options{DataDir: used}); !errors.Is(err, emulator.ErrDataDirInUse) {
			t.Errorf("got %v", err)
		}
	})
	t.Run("never puts the secret into an error or a log", func(t *testing.T) {
		// Options are not printed anywhere; a fault's log line prints the fault.
		_, err := emulator.Start(emulator.Options{AccessKeySecret: "hush"})
		if err == nil || strings.Contains(err.Error(), "hush") {
			t.Errorf("got %v", err)
		}
	})
}

func TestClose(t *testing.T) {
	t.Run("leaves no goroutine, from any number of callers, with open connections", func(t *testing.T) {
		defer goleak.VerifyNone(t, goleak.IgnoreCurrent())
		e, err := emulator.Start(emulator.Options{DataDir: t.TempDir()})
		if err != nil {
			t.Fatal(err)
		}
		transport := e.Transport()
		r := &raw{t: t, base: e.Endpoint(), client: &http.Client{Transport: transport}}
		r.createIntTable("t", 10, 1, true)
		silent, err := net.Dial("tcp", strings.TrimPrefix(e.Endpoint(), "http://"))
		if err != nil {
			t.Fatal(err)
		}
		defer silent.Close()
		var wg sync.WaitGroup
		for range 3 {
			wg.Go(func() {
				if err := e.Close(); err != nil {
					t.Error(err)
				}
			})
		}
		wg.Wait()
		if err := r.putInt("t", 1); err == nil {
			t.Error("a closed emulator answers")
		}
		transport.CloseIdleConnections()
	})
	t.Run("keeps everything in the data directory", func(t *testing.T) {
		opts := emulator.Options{DataDir: t.TempDir()}
		e := start(t, opts)
		r := newRaw(t, e)
		r.createIntTable("t", 10, 2, true)
		tunnelID, clientID, channels := r.openTunnel("t", protocol.TunnelType_Stream)
		if err := r.putInt("t", 1); err != nil {
			t.Fatal(err)
		}
		var cp protocol.GetCheckpointResponse
		r.must("/tunnel/getcheckpoint", &protocol.GetCheckpointRequest{TunnelId: &tunnelID, ClientId: &clientID, ChannelId: &channels[0]}, &cp)
		r.must("/tunnel/checkpoint", &protocol.CheckpointRequest{
			TunnelId: &tunnelID, ClientId: &clientID, ChannelId: &channels[0], Checkpoint: cp.Checkpoint, SequenceNumber: ptr(cp.GetSequenceNumber() + 1),
		}, &protocol.CheckpointResponse{})
		if err := e.Close(); err != nil {
			t.Fatal(err)
		}
		r = newRaw(t, start(t, opts))
		expect(t, "row", r.getInt("t", 1), 1)
		// To its clients a restart is a pause: they continue where they were.
		sequence := cp.GetSequenceNumber()
		r.must("/tunnel/getcheckpoint", &protocol.GetCheckpointRequest{TunnelId: &tunnelID, ClientId: &clientID, ChannelId: &channels[0]}, &cp)
		expect(t, "sequence number", cp.GetSequenceNumber(), sequence+1)
	})
}

// columnsOf reads a row's columns with the official SDK.
func columnsOf(e *emulator.Emulator, table string, id int64) (map[string]any, error) {
	key := new(tablestore.PrimaryKey)
	key.AddPrimaryKeyColumn("id", id)
	row, err := tablestore.NewClient(e.Endpoint(), "any", "any", "any").GetRow(&tablestore.GetRowRequest{
		SingleRowQueryCriteria: &tablestore.SingleRowQueryCriteria{TableName: table, PrimaryKey: key, MaxVersion: 1},
	})
	if err != nil {
		return nil, err
	}
	columns := make(map[string]any)
	for _, c := range row.Columns {
		columns[c.ColumnName] = c.Value
	}
	return columns, nil
}

func TestAdmin(t *testing.T) {
	e := start(t, emulator.Options{})
	r := newRaw(t, e)
	r.createIntTable("t", 100, 1, true)
	tunnelID, clientID, _ := r.openTunnel("t", protocol.TunnelType_Stream)
	admin := httptest.NewServer(e.AdminHandler())
	defer admin.Close()
	call := func(method, path, body string) (int, string) {
		t.Helper()
		req, err := http.NewRequestWithContext(t.Context(), method, admin.URL+path, strings.NewReader(body))
		if err != nil {
			t.Fatal(err)
		}
		resp, err := admin.Client().Do(req)
		if err != nil {
			t.Fatal(err)
		}
		defer resp.Body.Close()
		b, err := io.ReadAll(resp.Body)
		if err != nil {
			t.Fatal(err)
		}
		return resp.StatusCode, string(b)
	}
	ok := func(method, path, body string) string {
		t.Helper()
		status, answer := call(method, path, body)
		if status != 200 && status != 204 {
			t.Fatalf("%s %s: %d %s", method, path, status, answer)
		}
		return answer
	}
	t.Run("writes rows", func(t *testing.T) {
		if err := e.CreateTable("rows", emulator.Key("id", emulator.Integer)); err != nil {
			t.Fatal(err)
		}
		ok("POST", "/tables/rows/put", `{"id": 9007199254740993, "amount": 7.5, "paid": true, "note": "7"}`)
		ok("POST", "/tables/rows/update", `{"id": 9007199254740993, "count": 2}`)
		ok("POST", "/tables/rows/put", `{"id": 2}`)
		ok("POST", "/tables/rows/delete", `{"id": 2}`)
		got, err := columnsOf(e, "rows", 9007199254740993)
		want := map[string]any{"amount": 7.5, "paid": true, "note": "7", "count": int64(2)}
		if err != nil || !reflect.DeepEqual(got, want) {
			t.Errorf("the row is %v, %v; want %v", got, err, want)
		}
		if got, err := columnsOf(e, "rows", 2); err != nil || len(got) > 0 {
			t.Errorf("the deleted row is %v, %v", got, err)
		}
	})
	t.Run("says why a row is refused", func(t *testing.T) {
		for body, want := range map[string]string{
			`{"amount": 1}`:                `no value for the key column \"id\"`,
			`{"id": 1, "note": null}`:      `column \"note\" is null; it must be a number`,
			`{"id": 1, "tags": ["a"]}`:     `column \"tags\"`,
			`{"id": 92233720368547758070}`: "64 bits",
			`{"id": 1} {"id": 2}`:          "something follows",
			`[]`:                           "must be a JSON object",
			`{"id": "a"}`:                  "row {id: a}",
			`{"id": 1, "amount": 1e999}`:   "too large for a double",
		} {
			if status, answer := call("POST", "/tables/rows/put", body); status/100 != 4 || !strings.Contains(answer, want) {
				t.Errorf("%s: %d %s, without %s", body, status, answer, want)
			}
		}
		if status, answer := call("POST", "/tables/absent/put", `{"id": 1}`); status/100 != 4 || !strings.Contains(answer, "absent") {
			t.Errorf("an absent table: %d %s", status, answer)
		}
	})
	t.Run("injects, lists and clears faults", func(t *testing.T) {
		ok("POST", "/faults", `{"operation":"UpdateRow","code":"OTSServerBusy","times":2,"delay":"1ms","break":""}`)
		if err := r.putInt("t", 1); err == nil {
			t.Error("the request succeeded")
		}
		var list []map[string]any
		if err := json.Unmarshal([]byte(ok("GET", "/faults", "")), &list); err != nil || len(list) != 1 || list[0]["times"] != 1.0 || list[0]["delay"] != "1ms" {
			t.Errorf("the list is %v, %v", list, err)
		}
		ok("DELETE", "/faults", "")
		if err := r.putInt("t", 1); err != nil {
			t.Error(err)
		}
	})
	t.Run("lists a fault with every key as it was injected", func(t *testing.T) {
		const fault = `{"operation":"tunnel/*","after":3,"times":-1,"chance":0.5,"delay":"1.5s","hang":true,"code":"OTSTeapot","status":418,` +
			`"message":"short and stout","break":"mid-answer","corrupt":true,"trickle":"250ms","duplicate":true}`
		ok("POST", "/faults", fault)
		defer ok("DELETE", "/faults", "")
		var want map[string]any
		var list []map[string]any
		if err := errors.Join(json.Unmarshal([]byte(fault), &want), json.Unmarshal([]byte(ok("GET", "/faults", "")), &list)); err != nil {
			t.Fatal(err)
		}
		if keys := reflect.TypeFor[emulator.Fault]().NumField(); len(want) != keys {
			t.Fatalf("the fault has %d keys of %d", len(want), keys)
		}
		if len(list) != 1 || !reflect.DeepEqual(list[0], want) {
			t.Errorf("the list is %v, want %v", list, want)
		}
	})
	t.Run("splits and merges", func(t *testing.T) {
		ok("POST", "/tables/t/split", "")
		ok("POST", "/tables/t/merge", "")
		status, answer := call("POST", "/tables/t/merge", "")
		if status != 400 || !strings.Contains(answer, "one partition") {
			t.Errorf("merging one partition: %d %s", status, answer)
		}
	})
	t.Run("splits at keys", func(t *testing.T) {
		r.createIntTable("parts", 1, 1, true)
		ok("POST", "/tables/parts/split", `{"at": [25, 50, 75]}`)
		_, _, channels := r.openTunnel("parts", protocol.TunnelType_Stream)
		expect(t, "channels", len(channels), 4)
		for _, body := range []string{`{"at": [50]}`, `{"at": ["text"]}`, `{"at": [1.5]}`, `{"at": [7, 7]}`,
			`{"at": [null]}`, `{"at": []}`, `{}`, `{"at": [7]} {"at": [8]}`, `{"at": [7]} x`} {
			if status, answer := call("POST", "/tables/parts/split", body); status != 400 {
				t.Errorf("%s: %d %s", body, status, answer)
			}
		}
	})
	t.Run("shows tunnels and stats", func(t *testing.T) {
		if answer := ok("GET", "/tunnels", ""); !strings.Contains(answer, tunnelID) || !strings.Contains(answer, clientID) {
			t.Errorf("tunnels are %s", answer)
		}
		if answer := ok("GET", "/stats", ""); !strings.Contains(answer, "UpdateRow") {
			t.Errorf("stats are %s", answer)
		}
	})
	t.Run("expires clients and tunnels", func(t *testing.T) {
		beat := func() string {
			_, err := r.post("/tunnel/heartbeat", &protocol.HeartbeatRequest{TunnelId: &tunnelID, ClientId: &clientID})
			if err == nil {
				return "ok"
			}
			return err.Error()
		}
		expect(t, "before", beat(), "ok")
		ok("POST", "/tunnels/t/tStream/rebalance", "")
		expect(t, "after a rebalance", beat(), "ok")
		ok("POST", "/tunnels/t/tStream/clients/"+clientID+"/expire", "")
		if got := beat(); !strings.Contains(got, "OTSResourceGone") {
			t.Errorf("an expired client's heartbeat: %s", got)
		}
		ok("POST", "/tunnels/t/tStream/expire", "")
		if got := beat(); !strings.Contains(got, "OTSTunnelExpired") {
			t.Errorf("an expired tunnel's heartbeat: %s", got)
		}
	})
	t.Run("skews the clock, pauses and resumes", func(t *testing.T) {
		ok("POST", "/clock", `{"ahead":"1h"}`)
		ok("POST", "/clock", `{"ahead":"0s"}`)
		ok("POST", "/pause", "")
		ok("POST", "/resume", "")
		if err := r.putInt("t", 1); err != nil {
			t.Error(err)
		}
	})
	for _, v := range []struct{ name, method, path, body, want string }{
		{"a misspelt key", "POST", "/faults", `{"oparation":"x"}`, "oparation"},
		{"invalid JSON", "POST", "/faults", `delay 5`, "reading the request"},
		{"a bad duration", "POST", "/faults", `{"delay":"soon"}`, "soon"},
		{"a bad break", "POST", "/faults", `{"break":"here"}`, "before-request"},
		{"a bad chance", "POST", "/faults", `{"chance":2}`, "chance"},
		{"a bad status", "POST", "/faults", `{"status":200}`, "status"},
		{"a missing table", "POST", "/tables/none/split", ``, "none"},
		{"a missing tunnel", "POST", "/tunnels/t/none/expire", ``, "none"},
		{"a bad clock", "POST", "/clock", `{"ahead":"soon"}`, "soon"},
		{"a number as a duration", "POST", "/clock", `{"ahead":20}`, "ahead is a JSON number; it must be a string"},
		{"a text as a count", "POST", "/faults", `{"hang":true,"times":"3"}`, "times is a JSON string; it must be a whole number"},
		{"one key instead of a list", "POST", "/tables/t/split", `{"at":7}`, "at is a JSON number; it must be a list"},
		{"an empty body", "POST", "/faults", ``, "the body is empty; it must be a JSON object"},
		{"a key of another type", "POST", "/tables/t/split", `{"at":["x"]}`, "can't begin at a value of type VT_STRING: the partition key is VT_INTEGER"},
		{"two faults in a request", "POST", "/faults", `{"hang":true} {"hang":true}`, "follows"},
		{"a request that does not exist", "POST", "/fault", `{}`, "POST /faults"},
		{"a wrong method", "GET", "/pause", ``, "POST /pause"},
	} {
		t.Run("says what is wrong with "+v.name, func(t *testing.T) {
			status, answer := call(v.method, v.path, v.body)
			if status < 400 || !strings.Contains(answer, v.want) || !strings.Contains(answer, `"error"`) {
				t.Errorf("got %d %s", status, answer)
			}
		})
	}
}
