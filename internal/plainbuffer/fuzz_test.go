package plainbuffer

import (
	"bytes"
	"errors"
	"math"
	"slices"
	"testing"
)

// addSeeds gives the fuzzer every tag, kind and cell type to start from.
func addSeeds(f *testing.F) {
	all := AppendHeader(nil)
	for i := range workedExamples {
		f.Add(unhex(f, workedExamples[i].wire))
		all = AppendRow(all, &workedExamples[i].row)
	}
	f.Add(all)
	every := Row{HasSequence: true, Sequence: Sequence{Epoch: -1, Timestamp: math.MaxInt64, RowIndex: 7}}
	for _, v := range ascending {
		every.Cells = append(every.Cells, putAt("c", v, 1))
	}
	f.Add(AppendRow(AppendHeader(nil), &every))
	f.Add(AppendRow(AppendHeader(nil), benchmarkRow()))
	f.Add(unhex(f, "75000000"))
	f.Add(unhex(f, "75000000 02 03 04 01000000 61 0a 20 09 00"))
	f.Add(unhex(f, "75000000 01 02 09 00"))
	f.Add(unhex(f, "75000000 01 0b 07000000 10 02000000 abcd 09 00"))
}

// FuzzRoundTrip checks that what can be decoded can be encoded, and that the
// encoding means the same and is stable.
func FuzzRoundTrip(f *testing.F) {
	addSeeds(f)
	f.Fuzz(func(t *testing.T, data []byte) {
		buf := slices.Clip(repairChecksums(data))
		rows, err := DecodeAll(buf)
		if err != nil {
			var se *SyntaxError
			if !errors.As(err, &se) || se.Offset < 0 || se.Offset > len(buf) {
				t.Fatalf("not a syntax error in the buffer: %v", err)
			}
			return
		}
		if len(rows) == 1 {
			wantWalk(t, buf, &rows[0])
		}
		again := AppendHeader(nil)
		for i := range rows {
			again = AppendRow(again, &rows[i])
		}
		decoded, err := DecodeAll(again)
		if err != nil {
			t.Fatalf("our own encoding %x of %x: %v", again, buf, err)
		}
		third := AppendHeader(nil)
		for i := range decoded {
			if !sameRow(&rows[i], &decoded[i]) {
				t.Fatalf("row %d\n was %+v\n is  %+v", i, rows[i], decoded[i])
			}
			third = AppendRow(third, &decoded[i])
		}
		if len(decoded) != len(rows) || !bytes.Equal(again, third) {
			t.Fatalf("encoding is not stable:\n%x\n%x", again, third)
		}

		// The reusing decoders agree with DecodeAll.
		var row Row
		for p, i := headerSize, 0; p < len(buf); i++ {
			n, err := DecodeRow(buf[p:], &row)
			if err != nil || !sameRow(&row, &rows[i]) || row.KeyBytes != rows[i].KeyBytes {
				t.Fatalf("DecodeRow of row %d: %v, %+v, want %+v", i, err, row, rows[i])
			}
			p += n
		}
		if err := Decode(buf, &row); (err == nil) != (len(rows) == 1) {
			t.Fatalf("Decode of %d rows: %v", len(rows), err)
		}
	})
}

// FuzzDecodeAgainstSDK checks that the official SDK's decoder, which verifies no
// checksum, and ours read the same from the same bytes, and that one refuses what
// the other reads only in the ways listed at onlyWeRefuse and onlyTheSDKRefuses.
func FuzzDecodeAgainstSDK(f *testing.F) {
	addSeeds(f)
	f.Fuzz(func(t *testing.T, data []byte) {
		compareWithSDK(t, repairChecksums(data))
	})
}
