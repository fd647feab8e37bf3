package plainbuffer

import (
	"encoding/binary"
	"errors"
	"reflect"
	"slices"
	"strings"
	"testing"
)

// sameRow compares rows by content, KeyBytes excepted; values by their bits.
func sameRow(a, b *Row) bool {
	return slices.Equal(a.PrimaryKey, b.PrimaryKey) && slices.Equal(a.Cells, b.Cells) &&
		a.Delete == b.Delete && a.HasSequence == b.HasSequence && a.Sequence == b.Sequence
}

func empty(r *Row) bool { return sameRow(r, &Row{}) && r.KeyBytes == "" }

func TestDecode(t *testing.T) {
	for _, ex := range workedExamples {
		t.Run("reads_the_worked_example/"+ex.name, func(t *testing.T) {
			buf := unhex(t, ex.wire)
			var row Row
			if err := Decode(buf, &row); err != nil {
				t.Fatal(err)
			}
			if !sameRow(&row, &ex.row) {
				t.Errorf("\n got %+v\nwant %+v", row, ex.row)
			}
			// Without the header, and with bytes after the row.
			n, err := DecodeRow(append(buf[headerSize:], 0x01), &row)
			if err != nil || n != len(buf)-headerSize || !sameRow(&row, &ex.row) {
				t.Errorf("DecodeRow: %d bytes of %d, %v, %+v", n, len(buf)-headerSize, err, row)
			}
		})
	}

	t.Run("key_bytes_are_the_key_cells_on_the_wire", func(t *testing.T) {
		var row Row
		if err := Decode(unhex(t, workedExamples[1].wire), &row); err != nil {
			t.Fatal(err)
		}
		if want := string(unhex(t, idIs7)); row.KeyBytes != want {
			t.Errorf("got %x, want %x", row.KeyBytes, want)
		}
	})

	t.Run("a_reused_row_keeps_nothing", func(t *testing.T) {
		var row Row
		if err := Decode(unhex(t, workedExamples[1].wire), &row); err != nil {
			t.Fatal(err)
		}
		if err := Decode(unhex(t, "75000000 01 09 00"), &row); err != nil {
			t.Fatal(err)
		}
		if !empty(&row) {
			t.Errorf("got %+v, want an empty row", row)
		}
		for _, c := range slices.Concat(row.PrimaryKey[:1], row.Cells[:1]) {
			if c != (Cell{}) {
				t.Errorf("an unused cell still refers to the last buffer: %+v", c)
			}
		}
	})

	t.Run("names_and_values_are_views_and_nothing_is_allocated", func(t *testing.T) {
		buf := AppendRow(AppendHeader(nil), benchmarkRow())
		var row Row
		allocs := testing.AllocsPerRun(100, func() {
			if err := Decode(buf, &row); err != nil {
				t.Fatal(err)
			}
		})
		// The first decode grew the row's slices; AllocsPerRun leaves it out.
		if allocs != 0 {
			t.Errorf("%v allocations", allocs)
		}
		copy(buf[strings.Index(string(buf), "aaaa"):], "XX")
		if got := row.Cells[0].Value.Str(); !strings.HasPrefix(got, "XXaa") {
			t.Errorf("a change of the buffer does not show: %q", got)
		}
	})
}

// TestDecode_is_as_lenient_as_the_sdks has input that our encoders do not write but that
// the service may send.
func TestDecode_is_as_lenient_as_the_sdks(t *testing.T) {
	one := Sequence{Epoch: 1, Timestamp: 2, RowIndex: 3}
	const sequence = "0c 13000000 0d 01000000 0e 0200000000000000 0f 03000000"
	for _, c := range []struct {
		name string
		wire string
		want Row
	}{
		{"old_image_without_a_primary_key_part", "02 03 04 01000000 61 0a 00 09 00",
			Row{Cells: []Cell{{Name: "a"}}}},
		{"row_of_nothing", "09 00", Row{}},
		{"data_part_without_cells", "01 02 09 00", Row{}},
		{"type_byte_of_a_put", "01 02 03 04 01000000 61 06 00 0a 00 09 00",
			Row{Cells: []Cell{{Name: "a"}}}},
		{"unknown_type_byte", "01 02 03 04 01000000 61 06 7f 0a 00 09 00",
			Row{Cells: []Cell{{Name: "a", Op: 0x7F}}}},
		{"true_that_is_not_1", "01 02 03 04 01000000 61 05 02000000 02 80 0a 00 09 00",
			Row{Cells: []Cell{put("a", BooleanValue(true))}}},
		{"extension_without_parts", "01 0b 00000000 09 00", Row{}},
		{"extension_with_unknown_parts_around_the_sequence",
			"01 0b 23000000 10 02000000 abcd" + sequence + "ff 00000000 09 00", Row{HasSequence: true, Sequence: one}},
		{"wrong_lengths_of_extension_and_sequence",
			"01 0b 63000000 0c 00000000" + strings.TrimPrefix(sequence, "0c 13000000") + "09 00", Row{HasSequence: true, Sequence: one}},
	} {
		t.Run(c.name, func(t *testing.T) {
			// The checksums above are placeholders.
			buf := repairChecksums(unhex(t, "75000000"+c.wire))
			var row Row
			if err := Decode(buf, &row); err != nil {
				t.Fatal(err)
			}
			if !sameRow(&row, &c.want) {
				t.Errorf("\n got %+v\nwant %+v", row, c.want)
			}
		})
	}
}

func TestDecodeAll(t *testing.T) {
	t.Run("reads_every_row", func(t *testing.T) {
		buf := AppendHeader(nil)
		for i := range workedExamples {
			buf = AppendRow(buf, &workedExamples[i].row)
		}
		rows, err := DecodeAll(buf)
		if err != nil {
			t.Fatal(err)
		}
		if len(rows) != len(workedExamples) {
			t.Fatalf("%d rows, want %d", len(rows), len(workedExamples))
		}
		for i := range rows {
			if !sameRow(&rows[i], &workedExamples[i].row) {
				t.Errorf("row %d: %+v", i, rows[i])
			}
		}
	})

	t.Run("a_header_alone_is_no_rows", func(t *testing.T) {
		if rows, err := DecodeAll(AppendHeader(nil)); len(rows) != 0 || err != nil {
			t.Errorf("%v, %v", rows, err)
		}
	})

	t.Run("an_error_in_a_later_row_counts_from_the_start_and_returns_no_rows", func(t *testing.T) {
		buf := append(unhex(t, workedExamples[0].wire), tagRowData)
		rows, err := DecodeAll(buf)
		var se *SyntaxError
		if rows != nil || !errors.As(err, &se) || se.Offset != len(buf) {
			t.Errorf("%v, %v; want an error at offset %d", rows, err, len(buf))
		}
	})
}

func TestDecode_refuses(t *testing.T) {
	const pkOK = "75000000 01" + idIs7
	for _, c := range []struct {
		name   string
		wire   string
		offset int
		msg    string
	}{
		{"nothing", "", 0, "no header"},
		{"a_short_header", "750000", 0, "no header"},
		{"another_header", "76000000 01 09 00", 0, "no header"},
		{"a_header_alone", "75000000", 4, "no row checksum"},
		{"an_unknown_tag", "75000000 42", 4, "no row checksum"},
		{"parts_out_of_order", "75000000 02 01 09 00", 5, "no row checksum"},
		{"a_row_without_checksum", "75000000 01 09", 5, "no row checksum"},
		{"bytes_after_the_row", "75000000 01 09 00 01", 7, "data after the only row"},
		{"a_second_row", "75000000 01 09 00 01 09 00", 7, "data after the only row"},
		{"a_cell_that_is_only_a_tag", "75000000 01 03", 6, "no cell name"},
		{"a_cell_that_begins_with_its_value", "75000000 01 03 05", 6, "no cell name"},
		{"a_short_name_length", "75000000 01 03 04 020000", 7, "length cut short"},
		{"a_short_name", "75000000 01 03 04 03000000 6964", 7, "length 3 exceeds the buffer"},
		{"a_huge_name", "75000000 01 03 04 ffffffff 6964", 7, "length 4294967295 exceeds the buffer"},
		{"a_cell_without_checksum", "75000000 01 03 04 02000000 6964", 13, "no cell checksum"},
		{"a_cell_with_half_a_checksum", "75000000 01 03 04 02000000 6964 0a", 13, "no cell checksum"},
		{"a_key_column_without_value", "75000000 01 03 04 02000000 6964 0a 73 09 5e", 5, "primary key column 0 without a value"},
		{"a_value_without_total", "75000000 01 03 04 02000000 6964 05 0900", 14, "value cut short"},
		{"a_value_without_type", "75000000 01 03 04 02000000 6964 05 09000000", 18, "no value type"},
		{"an_unknown_value_type", "75000000 01 03 04 02000000 6964 05 01000000 04", 18, "unknown value type 0x04"},
		{"a_short_integer", "75000000 01 03 04 02000000 6964 05 09000000 00 07000000000000", 19, "number cut short"},
		{"a_short_double", "75000000 01 03 04 02000000 6964 05 09000000 01 07", 19, "number cut short"},
		{"a_short_boolean", "75000000 01 03 04 02000000 6964 05 02000000 02", 19, "boolean cut short"},
		{"a_short_string_length", "75000000 01 03 04 02000000 6964 05 02000000 03 02", 19, "length cut short"},
		{"a_short_string", "75000000 01 03 04 02000000 6964 05 02000000 03 02000000 68", 19, "length 2 exceeds the buffer"},
		{"a_short_binary", "75000000 01 03 04 02000000 6964 05 02000000 07 02000000 68", 19, "length 2 exceeds the buffer"},
		{"a_total_that_is_too_small", "75000000 01 03 04 02000000 6964 05 08000000 00 0700000000000000 0a 60 09 93", 14, "total length does not match"},
		{"a_total_that_is_too_large", "75000000 01 03 04 02000000 6964 05 08000000 03 02000000 6869 0a 60 09 93", 14, "total length does not match"},
		{"a_short_cell_type", pkOK + "02 03 04 01000000 62 06", 38, "cell type cut short"},
		{"a_short_timestamp", pkOK + "02 03 04 01000000 62 07 00000000000000", 38, "timestamp cut short"},
		{"a_timestamp_before_the_type", pkOK + "02 03 04 01000000 62 07 0000000000000000 06 01", 46, "no cell checksum"},
		{"a_delete_marker_after_the_extension", "75000000 01 0b 00000000 08", 10, "no row checksum"},
		{"a_short_extension_length", "75000000 01 0b 180000", 6, "length cut short"},
		{"a_short_sequence", "75000000 01 0b 18000000 0c 13000000 0d 01000000 0e 0200000000000000 0f 030000", 10, "sequence cut short"},
		{"a_sequence_out_of_order", "75000000 01 0b 18000000 0c 13000000 0e 0200000000000000 0d 01000000 0f 03000000 09 00", 15, "sequence with other tags"},
		{"two_sequences", "75000000 01 0b 30000000" + strings.Repeat("0c 13000000 0d 01000000 0e 0200000000000000 0f 03000000", 2) + "09 00", 34, "no row checksum"},
		{"a_short_unknown_part", "75000000 01 0b 18000000 10 05000000 00 09 00", 11, "length 5 exceeds the buffer"},
	} {
		t.Run(c.name, func(t *testing.T) {
			row := Row{PrimaryKey: []Cell{{Name: "left over"}}, Delete: true}
			err := Decode(unhex(t, c.wire), &row)
			var se *SyntaxError
			if !errors.As(err, &se) {
				t.Fatalf("got %v, want a *SyntaxError", err)
			}
			if se.Offset != c.offset || !strings.HasPrefix(se.Msg, c.msg) {
				t.Errorf("got %q at %d, want %q at %d", se.Msg, se.Offset, c.msg, c.offset)
			}
			if errors.Is(err, ErrChecksum) {
				t.Error("matches ErrChecksum too")
			}
			if !empty(&row) {
				t.Errorf("the row is not empty: %+v", row)
			}
		})
	}

	t.Run("a_wrong_checksum", func(t *testing.T) {
		buf := unhex(t, workedExamples[0].wire)
		for _, c := range []struct {
			offset int
			part   string
			stored byte
		}{{28, "cell", 0x60}, {len(buf) - 3, "cell", 0xE1}, {len(buf) - 1, "row", 0x93}} {
			bad := slices.Clone(buf)
			bad[c.offset] ^= 0xFF
			var row Row
			err := Decode(bad, &row)
			var ce *ChecksumError
			if !errors.Is(err, ErrChecksum) || !errors.As(err, &ce) {
				t.Fatalf("offset %d: got %v", c.offset, err)
			}
			if want := (ChecksumError{Offset: c.offset, Part: c.part, Stored: c.stored ^ 0xFF, Computed: c.stored}); *ce != want {
				t.Errorf("got %+v, want %+v", *ce, want)
			}
			if !empty(&row) {
				t.Errorf("the row is not empty: %+v", row)
			}
		}
	})

	t.Run("every_cut", func(t *testing.T) {
		for _, ex := range workedExamples {
			buf := unhex(t, ex.wire)
			for n := range buf {
				// Clip the capacity, so that reading past the cut panics.
				var row Row
				err := Decode(slices.Clip(slices.Clone(buf[:n])), &row)
				var se *SyntaxError
				if !errors.As(err, &se) || se.Offset > n {
					t.Errorf("%s cut to %d bytes: %v", ex.name, n, err)
				}
			}
		}
	})

	// CRC-8 finds every error of up to eight bits in a row, so a changed byte
	// shows wherever it is covered; the extension is not.
	t.Run("every_changed_byte_before_the_extension", func(t *testing.T) {
		buf := unhex(t, workedExamples[1].wire)
		end := strings.IndexByte(string(buf), tagExtension)
		for i := range end {
			for x := 1; x < 256; x++ {
				bad := slices.Clone(buf)
				bad[i] ^= byte(x)
				var row Row
				if err := Decode(bad, &row); err == nil {
					t.Errorf("byte %d changed from %02x to %02x was not noticed", i, buf[i], bad[i])
				}
			}
		}
	})

	t.Run("with_a_text_that_tells_what_and_where", func(t *testing.T) {
		var row Row
		if err := Decode(unhex(t, "75000000 01 09 00 01"), &row); err.Error() != "plainbuffer: data after the only row at offset 7" {
			t.Error(err)
		}
		if err := Decode(unhex(t, "75000000 01 09 01"), &row); err.Error() != "plainbuffer: checksum mismatch of a row at offset 6: stored 0x01, computed 0x00" {
			t.Error(err)
		}
	})
}

func TestDecodeVariant(t *testing.T) {
	for _, v := range variants {
		if got, err := DecodeVariant(unhex(t, v.wire)); err != nil || got != v.value {
			t.Errorf("%s: got %+v, %v; want %+v", v.wire, got, err, v.value)
		}
	}
	for wire, want := range map[string]SyntaxError{
		"":               {0, "no value type"},
		"05":             {0, "unknown value type 0x05"},
		"00 01":          {1, "number cut short"},
		"03 02000000 68": {1, "length 2 exceeds the buffer"},
		"09 00":          {1, "data after the value"},
	} {
		v, err := DecodeVariant(unhex(t, wire))
		var se *SyntaxError
		if !errors.As(err, &se) || *se != want || v != (Value{}) {
			t.Errorf("%q: got %+v, %v; want %v", wire, v, err, &want)
		}
	}
}

// repairChecksums returns buf with the checksums that its contents call for, as
// far as it can be decoded.
func repairChecksums(buf []byte) []byte {
	buf = slices.Clone(buf)
	for {
		_, err := DecodeAll(buf)
		var ce *ChecksumError
		if !errors.As(err, &ce) {
			return buf
		}
		buf[ce.Offset] = ce.Computed
	}
}

// TestRepairChecksums checks the other tests' tool against the definition.
func TestRepairChecksums(t *testing.T) {
	buf := repairChecksums(unhex(t, "75000000 01 02 03 04 01000000 61 05 02000000 02 80 07 0500000000000000 06 03 0a 00 09 00"))
	if _, err := DecodeAll(buf); err == nil {
		t.Fatal("a timestamp before the type was accepted")
	}
	buf = repairChecksums(unhex(t, "75000000 01 02 03 04 01000000 61 05 02000000 02 80 06 03 07 0500000000000000 0a 00 08 09 00"))
	covered := binary.LittleEndian.AppendUint64([]byte{'a', 0x02, 0x80}, 5)
	cell := referenceCRC(append(covered, 0x03))
	if got := buf[len(buf)-4]; got != cell {
		t.Errorf("cell checksum 0x%02x, want 0x%02x", got, cell)
	}
	if got, want := buf[len(buf)-1], referenceCRC([]byte{cell, 1}); got != want {
		t.Errorf("row checksum 0x%02x, want 0x%02x", got, want)
	}
}

func TestDecodeAgain_reads_what_Decode_accepts_and_computes_no_checksum(t *testing.T) {
	want := Row{
		PrimaryKey:  []Cell{{Name: "id", HasValue: true, Value: IntegerValue(7)}},
		Cells:       []Cell{{Name: "a", HasValue: true, Value: StringValue("x"), HasTimestamp: true, Timestamp: 3}, {Name: "b", Op: DeleteAllVersion}},
		HasSequence: true, Sequence: Sequence{Epoch: 1, Timestamp: 2, RowIndex: 3},
	}
	buf := AppendRow(AppendHeader(nil), &want)
	var first, again Row
	if err := Decode(buf, &first); err != nil {
		t.Fatal(err)
	}
	if err := DecodeAgain(buf, &again); err != nil || !reflect.DeepEqual(first, again) {
		t.Errorf("decoded again: %v\n%+v\nwant\n%+v", err, again, first)
	}
	buf[len(buf)-1] ^= 0xff // the row's checksum
	if err := Decode(buf, &first); err == nil {
		t.Error("Decode accepted a wrong checksum")
	}
	if err := DecodeAgain(buf, &again); err != nil {
		t.Errorf("DecodeAgain verified a checksum: %v", err)
	}
	if err := DecodeAgain(buf[:len(buf)-2], &again); err == nil {
		t.Error("DecodeAgain accepted a row that is cut short")
	}
}
