package subscriber

import (
	"errors"
	"strings"
	"testing"
)

func TestTopic_is_table_slash_tunnel(t *testing.T) {
	for topic, want := range map[string]struct{ table, tunnel, fault string }{
		"orders/audit":      {"orders", "audit", ""},
		"O_1/t-2":           {"O_1", "t-2", ""},
		"":                  {fault: "no slash"},
		"orders":            {fault: "no slash"},
		"/audit":            {fault: "the table's name is empty"},
		"orders/":           {fault: "the tunnel's name is empty"},
		"/":                 {fault: "the table's name is empty"},
		"orders/audit/more": {fault: `"audit/more" is not the name of a tunnel`},
		"or ders/audit":     {fault: `"or ders" is not the name of a table`},
		"orders/审":          {fault: `"审" is not the name of a tunnel`},
		"1orders/audit":     {fault: `"1orders" is not the name of a table, which has up to 255 letters`},
		"orders/a\x00":      {fault: `"a\x00" is not the name of a tunnel`},
	} {
		table, tunnel, err := splitTopic(topic)
		if want.fault == "" {
			if err != nil || table != want.table || tunnel != want.tunnel {
				t.Errorf("%q: got %q, %q, %v", topic, table, tunnel, err)
			}
			continue
		}
		if !errors.Is(err, ErrTopic) || !strings.Contains(err.Error(), want.fault) || table != "" || tunnel != "" {
			t.Errorf("%q: got %q, %q, %v; want %q", topic, table, tunnel, err, want.fault)
		}
	}
}
