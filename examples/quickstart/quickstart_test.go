package main

import (
	"bytes"
	"os"
	"os/exec"
	"regexp"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/aliyun/aliyun-tablestore-go-sdk/tunnel"

	"github.com/watermill-ots/watermill-ots/emulator"
)

// TestMain lets the test binary run as the quickstart.
func TestMain(m *testing.M) {
	if os.Getenv("QUICKSTART_RUN") != "" {
		main()
		os.Exit(0)
	}
	os.Exit(m.Run())
}

// quickstart starts the program in an empty directory.
func quickstart(t *testing.T, env []string, args ...string) (*exec.Cmd, *bytes.Buffer) {
	t.Helper()
	cmd := exec.Command(os.Args[0], args...)
	cmd.Dir = t.TempDir()
	cmd.Env = append(append(os.Environ(), "QUICKSTART_RUN=1"), env...)
	out := new(bytes.Buffer)
	cmd.Stdout, cmd.Stderr = out, out
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		_ = cmd.Process.Kill() // if the test failed half way
		files, err := os.ReadDir(cmd.Dir)
		if err != nil || len(files) > 0 {
			t.Errorf("the quickstart left files behind: %v %v", files, err)
		}
	})
	return cmd, out
}

func wait(t *testing.T, cmd *exec.Cmd, out *bytes.Buffer) {
	t.Helper()
	if err := cmd.Wait(); err != nil {
		t.Fatalf("the quickstart ended with %v:\n%s", err, out)
	}
}

// figure returns a number from the closing table.
func figure(t *testing.T, out *bytes.Buffer, row string) int {
	t.Helper()
	m := regexp.MustCompile(`(?m)^  ` + row + ` +(\d+)`).FindSubmatch(out.Bytes())
	if m == nil {
		t.Fatalf("no row %q in\n%s", row, out)
	}
	n, err := strconv.Atoi(string(m[1]))
	if err != nil {
		t.Fatal(err)
	}
	return n
}

func checkAllHandled(t *testing.T, out *bytes.Buffer) {
	t.Helper()
	written, handled := figure(t, out, "records written"), figure(t, out, "records handled")
	if written == 0 || written != handled {
		t.Errorf("%d records were written, %d handled:\n%s", written, handled, out)
	}
}

func TestQuickstart_handles_all_that_it_writes_and_ends_by_itself(t *testing.T) {
	cmd, out := quickstart(t, nil, "-duration", "3s")
	wait(t, cmd, out)
	checkAllHandled(t, out)
	for _, want := range []string{"ledger", "large", "forwarded", "committed position", "lag"} {
		if !strings.Contains(out.String(), want) {
			t.Errorf("the output does not say %q:\n%s", want, out)
		}
	}
}

func TestQuickstart_drains_at_an_interrupt(t *testing.T) {
	cmd, out := quickstart(t, nil, "-duration", "1m")
	time.Sleep(2 * time.Second) // somewhere in the middle
	if err := cmd.Process.Signal(os.Interrupt); err != nil {
		t.Fatal(err)
	}
	wait(t, cmd, out)
	if !strings.Contains(out.String(), "Interrupted") {
		t.Errorf("the output does not mention the interrupt:\n%s", out)
	}
	figure(t, out, "records handled")
}

func TestQuickstart_continues_after_kill_9_and_handles_every_order(t *testing.T) {
	dir := t.TempDir()
	cmd, out := quickstart(t, nil, "-data-dir", dir, "-duration", "1m")
	time.Sleep(3 * time.Second) // somewhere in the middle
	if err := cmd.Process.Kill(); err != nil {
		t.Fatal(err)
	}
	_ = cmd.Wait() // the error says that it was killed
	if !cmd.ProcessState.Sys().(syscall.WaitStatus).Signaled() {
		t.Fatalf("it ended before it was killed:\n%s", out)
	}
	cmd, out = quickstart(t, nil, "-data-dir", dir, "-duration", "1s")
	wait(t, cmd, out)
	checkAllHandled(t, out)
	if figure(t, out, "  by earlier runs") == 0 {
		t.Errorf("the first run handled nothing:\n%s", out)
	}
}

func TestQuickstart_consumes_a_real_tunnel_and_writes_nothing_to_its_table(t *testing.T) {
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
	before := writes()
	cmd, out := quickstart(t, []string{
		"OTS_ENDPOINT=" + src.endpoint, "OTS_INSTANCE=" + src.instance, "OTS_ACCESS_KEY_ID=" + src.keyID,
		"OTS_ACCESS_KEY_SECRET=" + src.keySecret, "OTS_TABLE=" + src.table, "OTS_TUNNEL=" + src.tunnel,
	})
	time.Sleep(3 * time.Second)
	if err := cmd.Process.Signal(os.Interrupt); err != nil {
		t.Fatal(err)
	}
	wait(t, cmd, out)
	if got := figure(t, out, "records handled"); got != 100 {
		t.Errorf("%d of 100 records were handled:\n%s", got, out)
	}
	if after := writes(); after != before {
		t.Errorf("%d writes went to the table", after-before)
	}
}

func TestQuickstart_says_what_is_missing(t *testing.T) {
	cmd, out := quickstart(t, []string{"OTS_ENDPOINT=http://127.0.0.1:1", "OTS_TABLE=orders"})
	if err := cmd.Wait(); err == nil {
		t.Fatalf("it succeeded:\n%s", out)
	}
	for _, want := range []string{"OTS_INSTANCE", "OTS_ACCESS_KEY_ID", "OTS_ACCESS_KEY_SECRET", "OTS_TUNNEL"} {
		if !strings.Contains(out.String(), want) {
			t.Errorf("the error does not name %s:\n%s", want, out)
		}
	}
	if strings.Contains(out.String(), "goroutine") {
		t.Errorf("it panicked:\n%s", out)
	}
	if n := strings.Count(strings.TrimSpace(out.String()), "\n"); n > 0 {
		t.Errorf("the error has %d lines:\n%s", n+1, out)
	}
}
