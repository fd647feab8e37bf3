package chaos

import (
	"bufio"
	"fmt"
	"io"
	"net"
	"strings"
	"sync"
	"testing"
	"time"
)

// echo starts a server that answers each line with the same line, and sends it
// to the returned channel.
func echo(t *testing.T) (addr string, heard <-chan string) {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	lines := make(chan string, 10)
	var serving sync.WaitGroup
	serving.Go(func() { // ends with the listener
		for {
			conn, err := l.Accept()
			if err != nil {
				return
			}
			serving.Go(func() { // ends with the proxy's side
				defer conn.Close()
				for r := bufio.NewReader(conn); ; {
					line, err := r.ReadString('\n')
					if err != nil {
						return
					}
					lines <- line
					if _, err := io.WriteString(conn, line); err != nil {
						return
					}
				}
			})
		}
	})
	t.Cleanup(func() { l.Close(); serving.Wait() })
	return l.Addr().String(), lines
}

func TestProxy_acts_according_to_its_mode(t *testing.T) {
	server, heard := echo(t)
	p, err := NewProxy(server)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := p.Close(); err != nil {
			t.Error(err)
		}
	})
	dial := func() net.Conn {
		t.Helper()
		conn, err := net.Dial("tcp", p.Addr())
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { conn.Close() })
		return conn
	}
	turn := func(to Mode) {
		t.Helper()
		if err := p.Turn(to); err != nil {
			t.Fatal(err)
		}
	}
	say := func(conn net.Conn, text string) {
		t.Helper()
		if _, err := fmt.Fprintln(conn, text); err != nil {
			t.Fatal(err)
		}
	}
	// answer returns what arrives within a moment, and the error that ends it.
	answer := func(conn net.Conn) (string, error) {
		if err := conn.SetReadDeadline(time.Now().Add(200 * time.Millisecond)); err != nil {
			t.Fatal(err)
		}
		line, err := bufio.NewReader(conn).ReadString('\n')
		return strings.TrimSpace(line), err
	}
	isTimeout := func(err error) bool {
		e, ok := err.(net.Error)
		return ok && e.Timeout()
	}

	conn := dial()
	say(conn, "open")
	if got, err := answer(conn); got != "open" {
		t.Fatalf("open: %q, %v", got, err)
	}
	<-heard

	turn(Lose)
	say(conn, "lose")
	if got := <-heard; got != "lose\n" {
		t.Errorf("lose: the server received %q", got)
	}
	if got, err := answer(conn); !isTimeout(err) {
		t.Errorf("lose: the client received %q, %v", got, err)
	}
	turn(Open)
	if got, err := answer(conn); err == nil || isTimeout(err) {
		t.Errorf("open again: the connection is not cut: %q, %v", got, err)
	}

	conn = dial()
	turn(Hang)
	say(conn, "hang")
	if got, err := answer(conn); !isTimeout(err) {
		t.Errorf("hang: the client received %q, %v", got, err)
	}
	turn(Refuse)
	if got, err := answer(conn); err == nil || isTimeout(err) {
		t.Errorf("refuse: the connection is not cut: %q, %v", got, err)
	}
	if c, err := net.Dial("tcp", p.Addr()); err == nil {
		c.Close()
		t.Error("refuse: something listens")
	}
	turn(Open)
	conn = dial()
	say(conn, "after")
	if got := <-heard; got != "after\n" {
		t.Errorf("what was held back arrives: the server received %q", got)
	}
}

func TestCheckKey_finds_each_violation(t *testing.T) {
	all := make([]int, versions)
	for i := range all {
		all[i] = i + 1
	}
	with := func(change func(v []int) []int) []int { return change(append([]int(nil), all...)) }
	for _, tc := range []struct {
		name    string
		arrived []int
		ordered bool
		want    string
	}{
		{"in order", all, true, ""},
		{"with a repetition", with(func(v []int) []int { return append(v, 7, 8) }), true, ""},
		{"the last version is missing", all[:versions-1], true, "L1"},
		{"a version is missing", with(func(v []int) []int { return append(v[:4], v[5:]...) }), true, "L1"},
		{"two versions are swapped", with(func(v []int) []int { v[3], v[4] = v[4], v[3]; return v }), true, "L3"},
		{"and the sink has no order", with(func(v []int) []int { v[3], v[4] = v[4], v[3]; return v }), false, ""},
	} {
		if got := checkKey(tc.arrived, tc.ordered); got != tc.want && (tc.want == "" || !strings.HasPrefix(got, tc.want)) {
			t.Errorf("%s: found %q, want %q", tc.name, got, tc.want)
		}
	}
}
