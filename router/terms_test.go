package router_test

import (
	"context"
	"fmt"
	"log/slog"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/ThreeDotsLabs/watermill"
	"github.com/ThreeDotsLabs/watermill/message"

	"github.com/watermill-ots/watermill-ots/emulator"
	"github.com/watermill-ots/watermill-ots/router"
)

// text collects a log.
type text struct {
	mu sync.Mutex
	strings.Builder
}

func (l *text) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.Builder.Write(p)
}

// Who has written a file knows its keys, and nothing of the fields of a Config in Go.
func TestRun_advises_in_the_terms_of_the_file(t *testing.T) {
	e, err := emulator.Start(emulator.Options{Instance: "shop", AccessKeyID: "id", AccessKeySecret: "right"})
	if err != nil {
		t.Fatal(err)
	}
	defer e.Close()
	if err := e.CreateTable("orders", emulator.Key("id", emulator.Integer)); err != nil {
		t.Fatal(err)
	}
	for _, tc := range []struct {
		name, endpoint, secret, table, create string
		want                                  []string
	}{
		{name: "cannot be reached", endpoint: "http://127.0.0.1:1", secret: "right", table: "orders", want: []string{"check instances.main.endpoint (http://127.0.0.1:1)"}},
		{name: "wrong secret", endpoint: e.Endpoint(), secret: "wrong", table: "orders", want: []string{"check access_key_id, access_key_secret and security_token (or credentials) of instances.main"}},
		{name: "no tunnel", endpoint: e.Endpoint(), secret: "right", table: "orders", want: []string{`table \"orders\" exists and the tunnel does not`, "tunnel: {create: true} in tunnels.sync"}},
		{name: "no table", endpoint: e.Endpoint(), secret: "right", table: "absent", want: []string{`instance \"shop\" has no table \"absent\": check tunnels.sync.table_name`}},
		{name: "no table, and the tunnel is to be created", endpoint: e.Endpoint(), secret: "right", table: "absent", create: ", tunnel: {create: true}", want: []string{`the table must exist, with a stream, in instance \"shop\"`}},
	} {
		t.Run(tc.name, func(t *testing.T) {
			cfg, err := router.Parse("pipelines.yaml", fmt.Appendf(nil, `
instances:
  main: {name: shop, endpoint: %q, access_key_id: id, access_key_secret: %s}
tunnels:
  sync: {instance: main, table_name: %s, tunnel_name: to-warehouse%s}
`, tc.endpoint, tc.secret, tc.table, tc.create))
			if err != nil {
				t.Fatal(err)
			}
			log := new(text)
			r, err := router.New(cfg, watermill.NewSlogLogger(slog.New(slog.NewTextHandler(log, nil))))
			if err != nil {
				t.Fatal(err)
			}
			if err := r.Handle("sync", router.Handlers{Process: func(*message.Message) error { return nil }}); err != nil {
				t.Fatal(err)
			}
			ctx, stop := context.WithTimeout(t.Context(), time.Second)
			defer stop()
			err = r.Run(ctx)
			said := log.String() + strings.ReplaceAll(fmt.Sprint(err), `"`, `\"`)
			for _, want := range tc.want {
				if !strings.Contains(strings.ReplaceAll(said, `\\\"`, `\"`), want) {
					t.Errorf("neither the log nor the error says %s:\n%s", want, said)
				}
			}
			for _, foreign := range []string{"Config.", "SubscribeInitialize"} {
				if strings.Contains(said, foreign) {
					t.Errorf("it says %s:\n%s", foreign, said)
				}
			}
		})
	}
}
