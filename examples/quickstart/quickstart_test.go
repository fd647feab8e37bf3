package main

import (
	"strings"
	"testing"
	"time"

	"github.com/aliyun/aliyun-tablestore-go-sdk/tunnel"

	"github.com/watermill-ots/watermill-ots/emulator"
	"github.com/watermill-ots/watermill-ots/examples/simple/exampletest"
)

func TestMain(m *testing.M) { exampletest.Main(m, main) }

// batches is found in the output once some batches have been handled.
const batches = `(?s)(ledger.*){2}`

func checkAllHandled(t *testing.T, p *exampletest.Program) {
	t.Helper()
	written, handled := p.Figure("records written"), p.Figure("records handled")
	if written == 0 || written != handled {
		t.Errorf("%d records were written, %d handled:\n%s", written, handled, p.Output())
	}
}

func TestQuickstart_handles_all_that_it_writes_and_ends_by_itself(t *testing.T) {
	t.Parallel() // it mostly waits
	p := exampletest.Start(t, "", nil, "-duration", "3s")
	p.Wait()
	checkAllHandled(t, p)
	p.Want("ledger", "large", "forwarded", "committed position", "lag")
}

func TestQuickstart_drains_at_an_interrupt(t *testing.T) {
	t.Parallel() // it mostly waits
	p := exampletest.Start(t, batches, nil, "-duration", "1m")
	p.Interrupt()
	p.Wait()
	p.Want("Interrupted")
	p.Figure("records handled")
}

func TestQuickstart_continues_after_kill_9_and_handles_every_order(t *testing.T) {
	t.Parallel() // it mostly waits
	dir := t.TempDir()
	p := exampletest.Start(t, batches, nil, "-data-dir", dir, "-duration", "1m")
	p.Kill()
	p = exampletest.Start(t, "", nil, "-data-dir", dir, "-duration", "1s")
	p.Wait()
	checkAllHandled(t, p)
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
	if got := p.Figure("records handled"); got != 100 {
		t.Errorf("%d of 100 records were handled:\n%s", got, p.Output())
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
