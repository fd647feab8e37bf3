package letters

import (
	"encoding/json"
	"fmt"
	"strconv"
	"unicode/utf8"

	"github.com/watermill-ots/watermill-ots/ots"
)

// storedRecord is the JSON form of a record in letters. Unlike the default payload
// it keeps everything: types, versions, deletions.
type storedRecord struct {
	Instance   string         `json:"instance"`
	Table      string         `json:"table"`
	Tunnel     string         `json:"tunnel"`
	Channel    string         `json:"channel"`
	UUID       string         `json:"uuid,omitempty"`
	Type       uint8          `json:"type"`
	Sequence   storedSequence `json:"sequence"`
	PrimaryKey []storedCell   `json:"primary_key"`
	Columns    []storedCell   `json:"columns,omitempty"`
	Origin     []storedCell   `json:"origin,omitempty"`
}

type storedSequence struct {
	Epoch     int32 `json:"epoch"`
	Timestamp int64 `json:"timestamp"`
	RowIndex  int32 `json:"row_index"`
}

type storedCell struct {
	Name      string      `json:"name"`
	Value     storedValue `json:"value"`
	Type      uint8       `json:"type,omitempty"`
	Timestamp int64       `json:"timestamp,omitempty"`
}

// storedValue is a value as text, or as bytes if it is binary or not UTF-8.
type storedValue struct {
	Kind  string `json:"kind"`
	Text  string `json:"text,omitempty"`
	Bytes []byte `json:"bytes,omitempty"`
}

// storeRecord returns the stored form of r, nil for nil.
func storeRecord(r *ots.Record) *storedRecord {
	if r == nil {
		return nil
	}
	s := &storedRecord{
		Instance: r.Instance, Table: r.Table, Tunnel: r.Tunnel, Channel: r.Channel,
		UUID:     r.UUID,
		Type:     uint8(r.Type),
		Sequence: storedSequence(r.Sequence),
		Columns:  storeCells(r.Columns),
		Origin:   storeCells(r.Origin),
	}
	for _, c := range r.PrimaryKey {
		s.PrimaryKey = append(s.PrimaryKey, storedCell{Name: c.Name, Value: storeValue(c.Value)})
	}
	return s
}

func storeCells(cells []ots.Cell) []storedCell {
	var out []storedCell
	for _, c := range cells {
		out = append(out, storedCell{Name: c.Name, Value: storeValue(c.Value), Type: uint8(c.Type), Timestamp: c.Timestamp})
	}
	return out
}

func storeValue(v ots.Value) storedValue {
	s := storedValue{Kind: v.Kind().String()}
	if text := v.String(); v.Kind() == ots.KindBinary || !utf8.ValidString(text) {
		s.Bytes = v.Bytes()
	} else {
		s.Text = text
	}
	return s
}

// restore returns the record that was stored, as of a first delivery. It returns nil for nil.
func (s *storedRecord) restore() (*ots.Record, error) {
	if s == nil {
		return nil, nil
	}
	r := &ots.Record{
		Instance: s.Instance, Table: s.Table, Tunnel: s.Tunnel, Channel: s.Channel,
		UUID:     s.UUID,
		Type:     ots.RecordType(s.Type),
		Sequence: ots.Sequence(s.Sequence),
		Attempt:  1,
	}
	key, err := restoreCells(s.PrimaryKey)
	if err != nil {
		return nil, err
	}
	for _, c := range key {
		r.PrimaryKey = append(r.PrimaryKey, ots.Column{Name: c.Name, Value: c.Value})
	}
	if r.Columns, err = restoreCells(s.Columns); err != nil {
		return nil, err
	}
	r.Origin, err = restoreCells(s.Origin)
	return r, err
}

func restoreCells(stored []storedCell) ([]ots.Cell, error) {
	var cells []ots.Cell
	for _, s := range stored {
		v, err := s.Value.restore()
		if err != nil {
			return nil, fmt.Errorf("reading column %q of a stored record: %w", s.Name, err)
		}
		cells = append(cells, ots.Cell{Name: s.Name, Value: v, Type: ots.CellType(s.Type), Timestamp: s.Timestamp})
	}
	return cells, nil
}

func (s storedValue) restore() (ots.Value, error) {
	switch s.Kind {
	case ots.KindNone.String():
		return ots.Value{}, nil
	case ots.KindInteger.String():
		n, err := strconv.ParseInt(s.Text, 10, 64)
		return ots.IntegerValue(n), err
	case ots.KindDouble.String():
		f, err := strconv.ParseFloat(s.Text, 64)
		return ots.DoubleValue(f), err
	case ots.KindBoolean.String():
		b, err := strconv.ParseBool(s.Text)
		return ots.BooleanValue(b), err
	case ots.KindString.String():
		if s.Bytes != nil {
			return ots.StringValue(string(s.Bytes)), nil
		}
		return ots.StringValue(s.Text), nil
	case ots.KindBinary.String():
		return ots.BinaryValue(s.Bytes), nil
	}
	return ots.Value{}, fmt.Errorf("unknown kind %q", s.Kind)
}

// EncodeRecord returns the JSON form of r, "" for nil.
func EncodeRecord(r *ots.Record) (string, error) {
	if r == nil {
		return "", nil
	}
	b, err := json.Marshal(storeRecord(r))
	return string(b), err
}

// DecodeRecord is the inverse of EncodeRecord.
func DecodeRecord(text string) (*ots.Record, error) {
	if text == "" {
		return nil, nil
	}
	s := new(storedRecord)
	if err := json.Unmarshal([]byte(text), s); err != nil {
		return nil, fmt.Errorf("reading a stored record: %w", err)
	}
	return s.restore()
}
