package main

import (
	"io"
	"strings"
	"testing"
	"time"

	"github.com/aliyun/aliyun-tablestore-go-sdk/tunnel"

	"github.com/watermill-ots/watermill-ots/emulator"
	"github.com/watermill-ots/watermill-ots/examples/simple/exampletest"
	"github.com/watermill-ots/watermill-ots/ots"
)

func TestMain(m *testing.M) { exampletest.Main(m, main) }

// batches is found in the output once some batches have been handled.
const batches = `(?s)(ledger.*){2}`

func checkAllHandled(t *testing.T, p *exampletest.Program) {
	t.Helper()
	written, handled := p.Figure("changes written"), p.Figure("changes handled")
	if written == 0 || written != handled {
		t.Errorf("%d changes were written, %d handled:\n%s", written, handled, p.Output())
	}
}

func TestQuickstart_handles_all_that_it_writes_and_ends_by_itself(t *testing.T) {
	t.Parallel() // it mostly waits
	p := exampletest.Start(t, "", nil, "-duration", "3s")
	p.Wait()
	checkAllHandled(t, p)
	p.Want("ledger", "large", "forwarded", "committed position", "lag", "Made up are", "trigger says", "-- ", "Verdict: kept", "Next: ")
}

func TestQuickstart_drains_at_an_interrupt(t *testing.T) {
	t.Parallel() // it mostly waits
	p := exampletest.Start(t, batches, nil, "-duration", "1m")
	p.Interrupt()
	p.Wait()
	p.Want("Interrupted", "Verdict: ")
	p.Figure("changes handled")
}

func TestQuickstart_continues_after_kill_9_and_handles_every_order(t *testing.T) {
	t.Parallel() // it mostly waits
	dir := t.TempDir()
	p := exampletest.Start(t, batches, nil, "-data-dir", dir, "-duration", "1m")
	p.Kill()
	p = exampletest.Start(t, "", nil, "-data-dir", dir, "-duration", "1s")
	p.Wait()
	checkAllHandled(t, p)
	p.Want("Resuming ", "of earlier runs", "Verdict: kept")
	if p.Figure("  by earlier runs") == 0 {
		t.Errorf("the first run handled nothing:\n%s", p.Output())
	}
}

func TestQuickstart_consumes_a_real_tunnel_and_writes_nothing_to_its_table(t *testing.T) {
	t.Parallel() // it mostly waits
	em, err := emulator.Start(emulator.Options{Instance: "real", AccessKeyID: "id", AccessKeySecret: "secret"})
	if err != nil {
		t.Fatal(err)
	}
	defer em.Close()
	src := &source{emulator: em, endpoint: em.Endpoint(), instance: "real", keyID: "id", keySecret: "secret", table: "orders", tunnel: "mine"}
	if err := src.createTable(); err != nil {
		t.Fatal(err)
	}
	tunnels := tunnel.NewTunnelClient(src.endpoint, src.instance, src.keyID, src.keySecret)
	if _, err := tunnels.CreateTunnel(&tunnel.CreateTunnelRequest{TableName: src.table, TunnelName: src.tunnel, Type: tunnel.TunnelTypeStream}); err != nil {
		t.Fatal(err)
	}
	for n := range int64(100) {
		if err := place(src.client(), src.table, customerOf(n), n, 500); err != nil {
			t.Fatal(err)
		}
	}
	writes := func() (n int64) {
		for _, op := range []string{"PutRow", "UpdateRow", "DeleteRow", "BatchWriteRow", "CreateTable"} {
			n += em.Stats().Operations[op].Requests
		}
		return n
	}
	before, written := writes(), time.Now()
	p := exampletest.Start(t, "ledger", []string{
		"OTS_ENDPOINT=" + src.endpoint, "OTS_INSTANCE=" + src.instance, "OTS_ACCESS_KEY_ID=" + src.keyID,
		"OTS_ACCESS_KEY_SECRET=" + src.keySecret, "OTS_TABLE=" + src.table, "OTS_TUNNEL=" + src.tunnel,
	})
	committed := func() int64 {
		d, err := tunnels.DescribeTunnel(&tunnel.DescribeTunnelRequest{TableName: src.table, TunnelName: src.tunnel})
		if err != nil {
			t.Fatal(err)
		}
		return d.TunnelRPO
	}
	for end := time.Now().Add(time.Minute); committed() < written.UnixNano(); time.Sleep(20 * time.Millisecond) {
		if time.Now().After(end) {
			t.Fatal("the last record was not committed within a minute")
		}
	}
	p.Interrupt()
	p.Wait()
	if got := p.Figure("changes handled"); got != 100 {
		t.Errorf("%d of 100 changes were handled:\n%s", got, p.Output())
	}
	if after := writes(); after != before {
		t.Errorf("%d writes went to the table", after-before)
	}
}

func TestQuickstart_says_what_is_missing(t *testing.T) {
	t.Parallel() // it mostly waits
	p := exampletest.Start(t, "", []string{"OTS_ENDPOINT=http://127.0.0.1:1", "OTS_TABLE=orders"})
	if status := p.WaitStatus(); status == 0 {
		t.Fatalf("it succeeded:\n%s", p.Output())
	}
	p.Want("OTS_INSTANCE", "OTS_ACCESS_KEY_ID", "OTS_ACCESS_KEY_SECRET", "OTS_TUNNEL")
	if strings.Contains(p.Output(), "goroutine") {
		t.Errorf("it panicked:\n%s", p.Output())
	}
	if n := strings.Count(strings.TrimSpace(p.Output()), "\n"); n > 0 {
		t.Errorf("the error has %d lines:\n%s", n+1, p.Output())
	}
}

func TestCount_has_plurals(t *testing.T) {
	for want, got := range map[string]string{
		"1 change": count(1, "change"), "0 changes": count(0, "change"), "2 batches": count(2, "batch"), "2 deliveries": count(2, "delivery"),
	} {
		if got != want {
			t.Errorf("got %q, want %q", got, want)
		}
	}
}

// A verdict that cannot be bad says nothing.
func TestVerdict_is_an_error_when_a_promise_is_broken(t *testing.T) {
	l, err := openLedger("")
	if err != nil {
		t.Fatal(err)
	}
	change := func(n int64) *ots.Record {
		return &ots.Record{Columns: []ots.Cell{{Name: "changes", Value: ots.IntegerValue(n)}}}
	}
	l.follow("a", change(1))
	l.follow("b", change(2))
	l.follow("a", change(2))
	if n := l.disorder(); n != 0 {
		t.Errorf("%d out of order, of changes in order", n)
	}
	l.follow("b", change(1))
	if n := l.disorder(); n != 1 {
		t.Errorf("%d out of order, want 1", n)
	}
	c, s := newConsole(io.Discard), &source{emulator: new(emulator.Emulator)}
	if err := c.verdict(s, 10, 10, 0, l.disorder(), false); err == nil {
		t.Error("disorder is no error")
	}
	if err := c.verdict(s, 10, 9, 0, 0, false); err == nil {
		t.Error("a lost change is no error")
	}
	if err := c.verdict(s, 10, 9, 0, 0, true); err != nil {
		t.Errorf("after an interrupt: %v", err)
	}
}
