package letters

import (
	"cmp"
	"slices"
	"strings"
	"unicode/utf8"
)

// exactText holds the texts of a letter that JSON and string columns cannot hold: those
// that are not UTF-8, and those that are too long for a column. The letter has a
// readable text in their place, and restore puts the exact ones back.
type exactText struct {
	Fields   map[string][]byte `json:"fields,omitempty"` // by the name in JSON
	Metadata []exactEntry      `json:"metadata,omitempty"`
}

type exactEntry struct {
	Key   []byte `json:"key"`
	Value []byte `json:"value"`
}

// texts returns the fields of l that are text, by their names in JSON. Error is
// not among them: it is only shown, and may be changed for that.
func (l *Letter) texts() map[string]*string {
	return map[string]*string{
		columnID: &l.ID, columnIdentity: &l.Identity, columnTable: &l.Table, columnTunnel: &l.Tunnel,
		columnChannel: &l.Channel, columnType: &l.Type, columnKey: &l.Key,
	}
}

// exactOf returns a copy of l whose texts are UTF-8 of at most limit bytes each,
// and the texts that the copy lacks: nil if it lacks none.
func exactOf(l *Letter, limit int) (readable *Letter, exact *exactText) {
	fields := *l
	x := exactText{Fields: make(map[string][]byte)}
	for name, text := range fields.texts() {
		if len(*text) > limit || !utf8.ValidString(*text) {
			x.Fields[name] = []byte(*text)
			*text = clip(*text, limit)
		}
	}
	if fields.Metadata, x.Metadata = splitMetadata(l.Metadata); len(x.Fields)+len(x.Metadata) == 0 {
		return &fields, nil
	}
	return &fields, &x
}

// splitMetadata separates the entries of m that are not UTF-8 from the others.
func splitMetadata(m map[string]string) (plain map[string]string, exact []exactEntry) {
	for k, v := range m {
		if !utf8.ValidString(k) || !utf8.ValidString(v) {
			exact = append(exact, exactEntry{[]byte(k), []byte(v)})
		}
	}
	if exact == nil {
		return m, nil
	}
	slices.SortFunc(exact, func(a, b exactEntry) int { return cmp.Compare(string(a.Key), string(b.Key)) })
	plain = make(map[string]string, len(m))
	for k, v := range m {
		if utf8.ValidString(k) && utf8.ValidString(v) {
			plain[k] = v
		}
	}
	return plain, exact
}

// restore puts the exact texts into l. It does nothing for nil.
func (x *exactText) restore(l *Letter) {
	if x == nil {
		return
	}
	for name, text := range l.texts() {
		if exact, ok := x.Fields[name]; ok {
			*text = string(exact)
		}
	}
	if len(x.Metadata) > 0 && l.Metadata == nil {
		l.Metadata = make(map[string]string, len(x.Metadata))
	}
	for _, e := range x.Metadata {
		l.Metadata[string(e.Key)] = string(e.Value)
	}
}

// clip shortens text to at most n bytes, between two characters, and turns it into
// UTF-8: the service takes no other strings.
func clip(text string, n int) string {
	text = strings.ToValidUTF8(text, "\uFFFD")
	if len(text) <= n {
		return text
	}
	for n > 0 && !utf8.RuneStart(text[n]) {
		n--
	}
	return text[:n]
}
