package main

import (
	"context"
	"os"
	"regexp"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/ThreeDotsLabs/watermill/message"
	"github.com/jackc/pgx/v5"

	"github.com/watermill-ots/watermill-ots/examples/simple/exampletest"
	"github.com/watermill-ots/watermill-ots/ots"
)

func TestMain(m *testing.M) { exampletest.Main(m, main) }

// usual is where a PostgreSQL for tests often is.
const usual = "postgres://postgres@127.0.0.1:5432/test"

// database connects to DATABASE_URL, or to the usual place.
func database(t *testing.T) (url string, conn *pgx.Conn) {
	t.Helper()
	url, given := os.LookupEnv("DATABASE_URL")
	if !given {
		url = usual
	}
	ctx, cancel := context.WithTimeout(t.Context(), 5*time.Second)
	defer cancel()
	conn, err := pgx.Connect(ctx, url)
	switch {
	case err != nil && given:
		t.Fatalf("the database of DATABASE_URL: %v", err)
	case err != nil:
		t.Skipf("no PostgreSQL: DATABASE_URL is not set, and at the usual place: %v", err)
	}
	t.Cleanup(func() {
		if err := conn.Close(context.Background()); err != nil {
			t.Error(err)
		}
	})
	return url, conn
}

// checkDropped checks that the schema of a run does not exist any more.
func checkDropped(t *testing.T, conn *pgx.Conn, p *exampletest.Program) {
	t.Helper()
	m := regexp.MustCompile(`schema (exactly_once_\w+)`).FindStringSubmatch(p.Output())
	if m == nil {
		t.Fatalf("no schema is named:\n%s", p.Output())
	}
	var there bool
	if err := conn.QueryRow(t.Context(), "select exists (select from pg_namespace where nspname = $1)", m[1]).Scan(&there); err != nil {
		t.Fatal(err)
	}
	if there {
		t.Errorf("schema %s is left behind", m[1])
	}
}

func TestExactlyOnce_sums_agree_whenever_the_consumer_is_killed(t *testing.T) {
	t.Parallel() // it mostly waits
	url, conn := database(t)
	p := exampletest.Start(t, "", []string{"DATABASE_URL=" + url}, "-kills", "3")
	p.Wait()
	p.Want("The sums of all 100 accounts agree", "is split", "Tablestore was stopped")
	written, delivered, suppressed := p.Figure("changes written"), p.Figure("delivered"), p.Figure("suppressed")
	if written == 0 || p.Figure("applied") != written || delivered-suppressed != written {
		t.Errorf("%d changes were written, %d delivered, %d suppressed:\n%s", written, delivered, suppressed, p.Output())
	}
	if suppressed == 0 || p.Figure("kills") != 3 {
		t.Errorf("no change was delivered twice, so the run tests nothing:\n%s", p.Output())
	}
	checkDropped(t, conn, p)
}

func TestExactlyOnce_cleans_up_at_an_interrupt(t *testing.T) {
	t.Parallel() // it mostly waits
	url, conn := database(t)
	p := exampletest.Start(t, "killed", []string{"DATABASE_URL=" + url}, "-kills", "1000")
	p.Interrupt()
	p.Wait()
	p.Want("Interrupted", "drained")
	checkDropped(t, conn, p)
}

func TestExactlyOnce_says_what_it_needs(t *testing.T) {
	for name, env := range map[string][]string{
		"DATABASE_URL is not set": nil,
		"does not answer":         {"DATABASE_URL=postgres://postgres@127.0.0.1:1/test"},
		"reading DATABASE_URL":    {"DATABASE_URL=postgres"},
	} {
		p := exampletest.Start(t, "", env)
		if status := p.WaitStatus(); status != 1 {
			t.Errorf("%s: exit status %d", name, status)
		}
		p.Want("exactly-once: ", name)
	}
}

// messageOf returns the message of a change.
func messageOf(account string, amount, number int64) *message.Message {
	msg := message.NewMessage(account+"/"+strconv.FormatInt(number, 10), nil)
	ots.WithRecord(msg, &ots.Record{
		PrimaryKey: []ots.Column{{Name: "account", Value: ots.StringValue(account)}},
		Columns: []ots.Cell{
			{Name: "amount", Value: ots.IntegerValue(amount)},
			{Name: "changes", Value: ots.IntegerValue(number)},
		},
	})
	return msg
}

func TestLedger(t *testing.T) {
	url, _ := database(t)
	t.Setenv("DATABASE_URL", url)
	ctx := t.Context()
	l, err := openLedger(ctx, "exactly_once_test_"+strconv.FormatInt(time.Now().UnixNano(), 36))
	if err != nil {
		t.Fatal(err)
	}
	defer l.close()
	if err := l.create(ctx); err != nil {
		t.Fatal(err)
	}
	defer func() {
		if err := l.drop(context.Background()); err != nil {
			t.Error(err)
		}
	}()
	a, b := accountName(1), accountName(2)
	one, two, other := messageOf(a, 10, 1), messageOf(a, -4, 2), messageOf(b, 7, 1)
	for _, test := range []struct {
		does     string
		messages []*message.Message
		a, b     balance // afterwards
		fault    string  // part of the error; empty: none
	}{
		{"a batch is added up", []*message.Message{one, two, other}, balance{6, 2}, balance{7, 1}, ""},
		{"a redelivered batch changes nothing", []*message.Message{one, two, other}, balance{6, 2}, balance{7, 1}, ""},
		{"of a partly redelivered batch the rest is added up", []*message.Message{two, messageOf(a, 1, 3)}, balance{7, 3}, balance{7, 1}, ""},
		{"a change that a batch contains twice counts once", []*message.Message{messageOf(a, 5, 4), messageOf(a, 5, 4)}, balance{12, 4}, balance{7, 1}, ""},
		{"a gap between two batches undoes the whole batch", []*message.Message{messageOf(b, 1, 2), messageOf(a, 1, 6)}, balance{12, 4}, balance{7, 1}, "change 6 does not follow"},
		{"a gap within a batch undoes the whole batch", []*message.Message{messageOf(b, 1, 2), messageOf(b, 1, 4)}, balance{12, 4}, balance{7, 1}, "change 4 does not follow"},
		{"what was undone is not in the inbox", []*message.Message{messageOf(b, 1, 2), messageOf(a, 1, 5)}, balance{13, 5}, balance{8, 2}, ""},
	} {
		err := l.apply(ctx, 1, test.messages)
		if test.fault == "" && err != nil || test.fault != "" && (err == nil || !strings.Contains(err.Error(), test.fault)) {
			t.Errorf("%s: the error is %v", test.does, err)
		}
		accounts, err := l.accounts(ctx)
		if err != nil {
			t.Fatal(err)
		}
		if accounts[a] != test.a || accounts[b] != test.b {
			t.Errorf("%s: the accounts are %v and %v, want %v and %v", test.does, accounts[a], accounts[b], test.a, test.b)
		}
	}
	if d, err := l.delivered(ctx, 1); err != nil || d != (delivery{batches: 5, changes: 12, again: 5}) {
		t.Errorf("delivered %+v, %v", d, err)
	}
}
