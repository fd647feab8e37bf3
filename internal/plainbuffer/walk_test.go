package plainbuffer

import (
	"testing"

	"pgregory.net/rapid"
)

// walked is the part of a row that a Walk reads.
func walked(buf []byte) Row {
	var row Row
	w := WalkAgain(buf)
	for c := (Cell{Name: "left over", HasValue: true}); w.Next(&c); {
		row.PrimaryKey = append(row.PrimaryKey, c)
	}
	w.Columns()
	for c := (Cell{Name: "left over", HasTimestamp: true}); w.Next(&c); {
		row.Cells = append(row.Cells, c)
	}
	row.Sequence = w.Sequence()
	return row
}

// wantWalk checks that a Walk reads what Decode has read of the buffer.
func wantWalk(t rapid.TB, buf []byte, decoded *Row) {
	t.Helper()
	got := walked(buf)
	// A Walk does not return these.
	got.Delete, got.HasSequence = decoded.Delete, decoded.HasSequence
	if !sameRow(&got, decoded) {
		t.Fatalf("%x\nwalked  %+v\ndecoded %+v", buf, got, *decoded)
	}
}

func TestWalk(t *testing.T) {
	for _, ex := range workedExamples {
		t.Run("reads_the_worked_example/"+ex.name, func(t *testing.T) { wantWalk(t, unhex(t, ex.wire), &ex.row) })
	}
	t.Run("reads_what_was_encoded", rapid.MakeCheck(func(t *rapid.T) {
		row := drawRow().Draw(t, "row")
		wantWalk(t, AppendRow(AppendHeader(nil), &row), &row)
	}))
}
