package formats

import (
	"bytes"
	"reflect"
	"testing"

	"github.com/fxamacker/cbor/v2"
	"pgregory.net/rapid"

	"github.com/watermill-ots/watermill-ots/ots"
	"github.com/watermill-ots/watermill-ots/subscriber"
)

// event is what a function for the Tablestore trigger decodes.
type event struct {
	Version string
	Records []struct {
		Type       string
		Info       struct{ Timestamp int64 }
		PrimaryKey []struct {
			ColumnName string
			Value      any
		}
		Columns []struct {
			Type       string
			ColumnName string
			Value      any
			Timestamp  int64
		}
	}
}

func TestFunctionCompute_any_record_decodes_from_CBOR_to_what_it_held(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) { // prints the seed of a failure
		key := rapid.SliceOfN(rapid.Byte(), 0, 300).Draw(t, "key")
		r := &ots.Record{Type: ots.Update, Sequence: ots.Sequence{Timestamp: rapid.Int64Range(0, 1<<60).Draw(t, "time")}, PrimaryKey: []ots.Column{{Name: "k", Value: ots.BinaryValue(key)}}}
		var want []any
		for range rapid.IntRange(0, 300).Draw(t, "columns") {
			var v ots.Value
			switch rapid.IntRange(0, 4).Draw(t, "kind") {
			case 0:
				v = ots.IntegerValue(rapid.Int64().Draw(t, "integer"))
			case 1:
				v = ots.DoubleValue(rapid.Float64().Draw(t, "double"))
			case 2:
				v = ots.BooleanValue(rapid.Bool().Draw(t, "boolean"))
			case 3:
				v = ots.StringValue(rapid.String().Draw(t, "string"))
			default:
				v = ots.BinaryValue(rapid.SliceOf(rapid.Byte()).Draw(t, "binary"))
			}
			want = append(want, v.Any())
			r.Columns = append(r.Columns, ots.Cell{Name: "c", Value: v, Timestamp: 1700000000000})
		}
		msg, err := subscriber.FunctionCompute{}.Unmarshal(r)
		if err != nil {
			t.Fatal(err)
		}
		mode, err := cbor.DecOptions{IntDec: cbor.IntDecConvertSignedOrFail}.DecMode()
		if err != nil {
			t.Fatal(err)
		}
		var e event
		if err := mode.Unmarshal(msg.Payload, &e); err != nil {
			t.Fatalf("%v: %x", err, msg.Payload)
		}
		if e.Version != "Sync-v1" || len(e.Records) != 1 || e.Records[0].Type != "UpdateRow" || e.Records[0].Info.Timestamp != r.Sequence.Timestamp {
			t.Fatalf("got %+v", e)
		}
		if got := e.Records[0].PrimaryKey; len(got) != 1 || got[0].ColumnName != "k" || !bytes.Equal(got[0].Value.([]byte), key) {
			t.Fatalf("the key is %+v", got)
		}
		var got []any
		for _, c := range e.Records[0].Columns {
			got = append(got, c.Value)
		}
		if !reflect.DeepEqual(got, want) {
			t.Fatalf("columns %v, want %v", got, want)
		}
	})
}
