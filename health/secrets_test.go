package health_test

import (
	"context"
	"encoding/base64"
	"errors"
	"fmt"
	"net/url"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/ThreeDotsLabs/watermill"
	"github.com/ThreeDotsLabs/watermill/message"
	"github.com/aliyun/aliyun-tablestore-go-sdk/tunnel"
	"github.com/cenkalti/backoff/v4"

	"github.com/watermill-ots/watermill-ots/batching"
	"github.com/watermill-ots/watermill-ots/emulator"
	"github.com/watermill-ots/watermill-ots/internal/testbed"
	"github.com/watermill-ots/watermill-ots/router"
	"github.com/watermill-ots/watermill-ots/subscriber"
)

// everything is a logger that keeps all lines, at every level.
type everything struct {
	all  *told
	with watermill.LogFields
}

type told struct {
	mu     sync.Mutex
	text   strings.Builder
	levels map[string]int
}

func (e everything) add(level, msg string, err error, f watermill.LogFields) {
	e.all.mu.Lock()
	defer e.all.mu.Unlock()
	e.all.levels[level]++
	fmt.Fprintf(&e.all.text, "%s %s %+v %#v %+v\n", level, msg, err, err, e.with.Add(f))
}

func (e everything) Error(msg string, err error, f watermill.LogFields) { e.add("error", msg, err, f) }
func (e everything) Info(msg string, f watermill.LogFields)             { e.add("info", msg, nil, f) }
func (e everything) Debug(msg string, f watermill.LogFields)            { e.add("debug", msg, nil, f) }
func (e everything) Trace(msg string, f watermill.LogFields)            { e.add("trace", msg, nil, f) }
func (e everything) With(f watermill.LogFields) watermill.LoggerAdapter {
	return everything{e.all, e.with.Add(f)}
}

func (e everything) get() (text string, levels map[string]int) {
	e.all.mu.Lock()
	defer e.all.mu.Unlock()
	return e.all.text.String(), e.all.levels
}

const (
	stsToken = "sts+token/that?is=secret"
	wrongKey = "wrong+secret/that?is=secret"
)

// checkSecrets asserts that text has no secret, neither as it is nor in a form in which it
// could have been sent.
func checkSecrets(t *testing.T, where, text string) {
	t.Helper()
	for _, secret := range []string{testbed.KeySecret, stsToken, wrongKey} {
		for _, form := range []string{secret, url.QueryEscape(secret), base64.StdEncoding.EncodeToString([]byte(secret))} {
			if i := strings.Index(text, form); i >= 0 {
				t.Errorf("%s: %q is in ...%s", where, form, text[max(0, i-200):i+len(form)])
			}
		}
	}
}

// TestSecrets_are_in_no_log_and_no_status causes failures of many kinds, with all logs
// enabled.
func TestSecrets_are_in_no_log_and_no_status(t *testing.T) {
	log := everything{all: &told{levels: make(map[string]int)}}
	b := testbed.New(t, emulator.Options{})
	b.CreateTunnel(tunnel.TunnelTypeStream)
	yaml := fmt.Sprintf(`
instances:
  main: {name: %s, endpoint: "%s", access_key_id: %s, access_key_secret: %s, security_token: "%s", debug: true}
tunnels:
  changes:
    instance: main
    table_name: %s
    tunnel_name: %s
    heartbeat_interval: 300ms
    heartbeat_timeout: 20s
    checkpoint_interval: 20ms
    max_poll_interval: 20ms
    failure: {attempts: 2, backoff_initial: 10ms, dead_letter: {table: dead}}
    batchers: {default: {batch_size: 2, batch_timeout: 20ms}}
`, testbed.Instance, b.Emulator.Endpoint(), testbed.KeyID, testbed.KeySecret, stsToken, testbed.Table, testbed.Tunnel)

	t.Run("router", func(t *testing.T) {
		r := routerOf(t, yaml, log)
		stopped := make(chan error, 1)
		go func() { stopped <- r.Run(context.Background()) }() // ends with Close below
		<-r.Running()
		for _, operation := range []string{"tunnel/readrecords", "tunnel/checkpoint", "tunnel/heartbeat"} {
			b.Emulator.Inject(emulator.Fault{Operation: operation, Code: "OTSAuthFailed"})
			b.Emulator.Inject(emulator.Fault{Operation: operation, Break: emulator.BeforeRequest, After: 1})
		}
		b.Emulator.Inject(emulator.Fault{Operation: "tunnel/readrecords", Corrupt: true, After: 4})
		for i := range 4 {
			if err := b.Put(testbed.Key(i), 1); err != nil {
				t.Fatal(err)
			}
		}
		testbed.Eventually(t, 20*time.Second, "messages failed, panicked and became dead letters", func() bool {
			text, _ := log.get()
			return strings.Contains(text, "dead letter") && strings.Contains(text, "panicked") && strings.Contains(text, "Read failed")
		})
		if err := errors.Join(r.Close(), <-stopped); err != nil {
			t.Error(err)
		}
	})

	t.Run("router with a wrong key", func(t *testing.T) {
		r := routerOf(t, strings.Replace(yaml, "access_key_secret: "+testbed.KeySecret, `access_key_secret: "`+wrongKey+`"`, 1), log)
		err := r.Run(context.Background())
		if err == nil || !strings.Contains(err.Error(), "OTSAuthFailed") {
			t.Errorf("Run: %v", err)
		}
		checkSecrets(t, "the error of Run", fmt.Sprintf("%+v %#v", err, err))
	})

	t.Run("subscriber and its status", func(t *testing.T) {
		cfg := testbed.Config(b.Emulator.Endpoint())
		cfg.SecurityToken = stsToken
		sub, err := subscriber.New(cfg, log)
		if err != nil {
			t.Fatal(err)
		}
		defer sub.Close()
		b.Emulator.Inject(emulator.Fault{Operation: "tunnel/readrecords", Code: "OTSAuthFailed"})
		messages, err := sub.Subscribe(t.Context(), testbed.Topic)
		if err != nil {
			t.Fatal(err)
		}
		if err := b.Put("again", 1); err != nil {
			t.Fatal(err)
		}
		(<-messages).Nack()
		h := newHealth(t, sub)
		testbed.Eventually(t, 20*time.Second, "the status has errors to show", func() bool {
			s := snapshot(t, h).Subscribers[0].Subscriptions[0]
			return s.LastError != nil && len(s.Failing) > 0
		})
		for _, path := range []string{"/status.json", "/readyz", "/livez"} {
			checkSecrets(t, path, get(h, path).Body.String())
		}
	})

	text, levels := log.get()
	for _, level := range []string{"error", "info", "debug", "trace"} {
		if levels[level] == 0 {
			t.Errorf("nothing was logged at level %s", level)
		}
	}
	checkSecrets(t, "the log", text)
}

// routerOf returns a router whose messages fail in every way.
func routerOf(t *testing.T, yaml string, log watermill.LoggerAdapter) *router.Router {
	t.Helper()
	cfg, err := router.Parse("test.yaml", []byte(yaml))
	if err != nil {
		t.Fatal(err)
	}
	r, err := router.New(cfg, log)
	if err != nil {
		t.Fatal(err)
	}
	err = r.Handle("changes", router.Handlers{
		Process: func(msg *message.Message) error {
			if strings.Contains(string(msg.Payload), testbed.Key(0)) {
				panic("no")
			}
			return nil
		},
		Batches: map[string]batching.HandlerFunc{"default": func(context.Context, *batching.Batch) error {
			return backoff.Permanent(errors.New("the warehouse is closed"))
		}},
	})
	if err != nil {
		t.Fatal(err)
	}
	return r
}
