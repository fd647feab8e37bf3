package otscontainer_test

import (
	"errors"
	"io"
	"net/http"
	"strings"
	"testing"

	"github.com/aliyun/aliyun-tablestore-go-sdk/tablestore"

	"github.com/watermill-ots/watermill-ots/emulator"
	"github.com/watermill-ots/watermill-ots/otscontainer"
)

const seed = "tables:\n  orders:\n    key: {id: integer}\n    rows: [{id: 7, amount: 250}]\n"

func TestEmulator_is_the_same_in_every_place(t *testing.T) {
	for name, place := range map[string]otscontainer.Place{"in this process": otscontainer.InProcess, "in a container": otscontainer.InContainer} {
		t.Run(name, func(t *testing.T) {
			e, err := otscontainer.Start(t.Context(), otscontainer.Config{
				Place: place, Instance: "test", AccessKeyID: "id", AccessKeySecret: "secret", Seed: []byte(seed),
			})
			if errors.Is(err, otscontainer.ErrNoEngine) {
				t.Skip(err)
			}
			if err != nil {
				t.Fatal(err)
			}
			defer func() {
				if err := e.Close(); err != nil {
					t.Error(err)
				}
			}()
			if got, want := e.Container() != nil, place == otscontainer.InContainer; got != want {
				t.Errorf("in a container: %t", got)
			}
			get := &tablestore.SingleRowQueryCriteria{TableName: "orders", PrimaryKey: new(tablestore.PrimaryKey), MaxVersion: 1}
			get.PrimaryKey.AddPrimaryKeyColumn("id", int64(7))
			row, err := tablestore.NewClient(e.Endpoint(), "test", "id", "secret").GetRow(&tablestore.GetRowRequest{SingleRowQueryCriteria: get})
			if err != nil || len(row.Columns) != 1 || row.Columns[0].Value != int64(250) {
				t.Errorf("the row of the seed is %v, %v", row, err)
			}
			for token, want := range map[string]int{e.AdminToken(): 200, "another": 403} {
				req, err := http.NewRequestWithContext(t.Context(), "GET", e.AdminEndpoint()+"/stats", nil)
				if err != nil {
					t.Fatal(err)
				}
				req.Header.Set("Authorization", "Bearer "+token)
				resp, err := http.DefaultClient.Do(req)
				if err != nil {
					t.Fatal(err)
				}
				io.Copy(io.Discard, resp.Body)
				resp.Body.Close()
				if resp.StatusCode != want {
					t.Errorf("the admin API answers %s, not %d", resp.Status, want)
				}
			}
		})
	}
}

func TestStart_uses_this_process_without_an_engine(t *testing.T) {
	t.Setenv("DOCKER_HOST", "tcp://127.0.0.1:1")
	t.Setenv("TESTCONTAINERS_RYUK_DISABLED", "true")
	e, err := otscontainer.Start(t.Context(), otscontainer.Config{})
	if err != nil {
		t.Fatal(err)
	}
	defer e.Close()
	if e.Container() != nil {
		t.Skip("a container engine answers nevertheless")
	}
	resp, err := http.Post(e.Endpoint()+"/ListTable", "", nil)
	if err != nil {
		t.Fatal(err)
	}
	resp.Body.Close()
}

func TestStart_says_what_is_wrong_with_a_seed(t *testing.T) {
	_, err := otscontainer.Start(t.Context(), otscontainer.Config{Place: otscontainer.InProcess, Seed: []byte("table: {}")})
	if !errors.Is(err, emulator.ErrInvalidSeed) || !strings.Contains(err.Error(), "seed:1: table: unknown key") {
		t.Errorf("the error is %v", err)
	}
}
