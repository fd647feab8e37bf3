package main

import (
	"testing"

	"github.com/jackc/pgx/v5"

	"github.com/watermill-ots/watermill-ots/examples/forward/forwardtest"
	"github.com/watermill-ots/watermill-ots/examples/simple/exampletest"
)

func TestMain(m *testing.M) { exampletest.Main(m, main) }

func TestToPostgres_forwards_each_change_in_order(t *testing.T) {
	url := forwardtest.Server(t, "DATABASE_URL", "postgres://postgres@127.0.0.1:5432/postgres")
	name := forwardtest.Forwards(t, false, "DATABASE_URL="+url)
	conn, err := pgx.Connect(t.Context(), url)
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close(t.Context())
	var left int
	err = conn.QueryRow(t.Context(), "select count(*) from pg_tables where tablename like '%' || $1", name).Scan(&left)
	if err != nil || left > 0 {
		t.Errorf("%d tables of %s were not dropped, %v", left, name, err)
	}
}

func TestToPostgres_says_which_server_it_cannot_use(t *testing.T) {
	forwardtest.Refuses(t, "DATABASE_URL", "postgres://user:geheim@127.0.0.1:1/test")
	forwardtest.Refuses(t, "DATABASE_URL", "postgres://user:geheim@127.0.0.1:1x/test")
}
