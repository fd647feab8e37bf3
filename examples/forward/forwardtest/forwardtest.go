// Package forwardtest runs the examples that forward to a broker, for their
// tests.
package forwardtest

import (
	"net"
	"net/url"
	"os"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/watermill-ots/watermill-ots/examples/simple/exampletest"
)

// Server returns the value of an environment variable, or local if that is
// empty and a server answers at that URL's host and port. Otherwise it skips
// the test.
func Server(t *testing.T, variable, local string) string {
	t.Helper()
	if v := os.Getenv(variable); v != "" {
		return v
	}
	u, err := url.Parse(local)
	if err != nil {
		t.Fatal(err)
	}
	conn, err := net.DialTimeout("tcp", u.Host, time.Second)
	if err != nil {
		t.Skipf("%s is not set, and no server answers at %s: %v", variable, u.Host, err)
	}
	conn.Close()
	return local
}

// Forwards runs the example with env. It fails unless each change arrives and
// each repetition is a duplicate, or there are none if the server drops them.
// It returns the name of what the example created on the server, and deleted.
func Forwards(t *testing.T, dropsDuplicates bool, env ...string) (name string) {
	t.Helper()
	const orders, changes = 40, 10
	p := exampletest.Start(t, "", env, "-orders", "40", "-changes", "10")
	p.Wait()
	p.Want("arrived in order")
	lost := p.Figure("responses lost")
	if lost == 0 {
		t.Errorf("no response was lost:\n%s", p.Output())
	}
	duplicates := lost
	if dropsDuplicates {
		duplicates = 0
	}
	for row, want := range map[string]int{
		"changes written": orders * changes, "forwarded": orders * changes, "left in the tunnel": 0,
		"duplicates": duplicates, "read back": orders*changes + duplicates,
	} {
		if got := p.Figure(row); got != want {
			t.Errorf("%s: %d, want %d:\n%s", row, got, want, p.Output())
		}
	}
	name = regexp.MustCompile(`orders-[0-9a-f]{8}`).FindString(p.Output())
	if name == "" {
		t.Errorf("the example does not print the name of what it created:\n%s", p.Output())
	}
	return name
}

// Refuses runs the example with a server that cannot be used, and fails unless
// it prints one line that names the variable and not the password, which is
// "geheim".
func Refuses(t *testing.T, variable, value string, env ...string) {
	t.Helper()
	p := exampletest.Start(t, "", append(env, variable+"="+value))
	if status := p.WaitStatus(); status != 1 {
		t.Errorf("exit status %d", status)
	}
	p.Want(variable)
	if strings.Contains(p.Output(), "geheim") || strings.Count(p.Output(), "\n") != 1 {
		t.Errorf("with %s: not one line without the password:\n%s", variable, p.Output())
	}
}

// ReconnectsRabbitMQ is called by tests that cut the connections to RabbitMQ.
// It skips them under the race detector: the run without it covers our own
// code.
func ReconnectsRabbitMQ(t *testing.T) {
	t.Helper()
	if raceEnabled {
		t.Skip("watermill-amqp v3.0.2 itself has a race: Publish reads a field (IsConnected) that its reconnecting sets, without a lock")
	}
}
