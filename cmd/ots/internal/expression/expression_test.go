package expression

import (
	"strings"
	"testing"

	"github.com/watermill-ots/watermill-ots/ots"
)

func record() *ots.Record {
	return &ots.Record{
		Table: "orders", Type: ots.Update, Sequence: ots.Sequence{Timestamp: 1_700_000_000_000_000},
		PrimaryKey: []ots.Column{{Name: "id", Value: ots.IntegerValue(7)}},
		Columns: []ots.Cell{
			{Name: "amount", Value: ots.DoubleValue(12.5)}, {Name: "status", Value: ots.StringValue("paid")},
			{Name: "note", Type: ots.CellDeleteAllVersions},
		},
		Origin: []ots.Cell{{Name: "amount", Value: ots.DoubleValue(11)}},
	}
}

func TestFilter_sees_the_whole_record(t *testing.T) {
	for text, want := range map[string]bool{
		`type == "update" && key.id == 7`:         true,
		`row.id == 7 && row.amount > 12`:          true,
		`row.status in ["new", "paid"]`:           true,
		`"note" in deleted`:                       true,
		`row.amount - old.amount > 2`:             false,
		`row.missing == nil`:                      true,
		`time.Year() == 2023 && !base`:            true,
		`table == "orders" && sequence != ""`:     true,
		`row.status startsWith "x" || key.id < 3`: false,
	} {
		f, err := CompileFilter(text)
		if err != nil {
			t.Errorf("%s: %v", text, err)
			continue
		}
		if got, err := f.Match(record()); err != nil || got != want {
			t.Errorf("%s is %v, %v", text, got, err)
		}
	}
}

func TestFilter_faults_are_found_when_it_is_compiled(t *testing.T) {
	for text, want := range map[string]string{
		`colour == "red"`: "there are type, key",
		`type == 7`:       "mismatched types",
		`key`:             "bool",
		`type ==`:         "unexpected",
		`time > "x"`:      "time.Time",
	} {
		if _, err := CompileFilter(text); err == nil || !strings.Contains(err.Error(), want) || strings.Contains(err.Error(), "\n") {
			t.Errorf("%s: %v, want %q on one line", text, err, want)
		}
	}
}

func TestFilter_that_fails_on_a_record_says_why(t *testing.T) {
	for _, text := range []string{`row.status > 3`, `row.status`} {
		f, err := CompileFilter(text)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := f.Match(record()); err == nil {
			t.Errorf("%s is true or false", text)
		}
	}
}
