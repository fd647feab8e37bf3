package router_test

import (
	"strings"
	"testing"

	"github.com/watermill-ots/watermill-ots/router"
)

func TestParse_lookup_columns_that_cannot_be_read_are_refused(t *testing.T) {
	const file = `
instances: {main: {name: inst, endpoint: "http://127.0.0.1:1", access_key_id: id, access_key_secret: hush}}
tunnels: {orders: {instance: main, table_name: t, tunnel_name: u, KEYS}}`
	for keys, says := range map[string]string{
		`lookup_columns: "a, b"`:                    "tunnels.orders.lookup_columns: has no effect without lookup",
		`lookup: updates, lookup_columns: "a b, c"`: `"a b"`,
		`lookup: sometimes`:                         "always, none, updates",
	} {
		_, err := router.Parse("pipelines.yaml", []byte(strings.Replace(file, "KEYS", keys, 1)))
		if err == nil || !strings.Contains(err.Error(), says) {
			t.Errorf("%s: the error %v does not say %q", keys, err, says)
		}
	}
	if _, err := router.Parse("pipelines.yaml", []byte(strings.Replace(file, "KEYS", `lookup: always, lookup_columns: "a, b-c"`, 1))); err != nil {
		t.Error(err)
	}
}
