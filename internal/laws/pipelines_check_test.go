package laws

import (
	"cmp"
	"fmt"
	"slices"
	"strings"
	"time"
)

// evidence is what is known about one pipeline at one door after the end: what
// was written, what the sink did, and the letters. It is what a user would see.
type evidence struct {
	name    string
	base    map[string]written   // by key: the table's contents when the tunnel was created
	stream  map[string][]written // by key: the later changes, in order
	entries []entry              // of the door, in the sink's order
	suspect func(entry) bool     // whether the worker had, or may have, lost the channel
	letters []letter             // of the pipeline
	strict  bool                 // each letter occurs once, since it is in a table
	began   time.Time            // start of the first worker
}

// breach is a violation of a law.
type breach struct{ law, text string }

func (b breach) String() string { return b.law + ": " + b.text }

// check returns all violations.
func (e evidence) check() []breach {
	var found []breach
	report := func(law, format string, args ...any) {
		found = append(found, breach{law, e.name + ": " + fmt.Sprintf(format, args...)})
	}
	e.checkArrival(report)
	e.checkLetters(report)
	e.checkOrder(report)
	e.checkUUIDs(report)
	e.checkBaseFirst(report)
	return found
}

type report func(law, format string, args ...any)

// records returns, by key, what arrived or became a letter, in the order of the
// stream.
func (e evidence) records() map[string][]ident {
	seen := make(map[ident]bool)
	for _, entry := range e.entries {
		seen[entry.ident()] = true
	}
	for _, l := range e.letters {
		seen[l.ident] = true
	}
	keys := make(map[string][]ident)
	for id := range seen {
		keys[id.key] = append(keys[id.key], id)
	}
	for _, ids := range keys {
		slices.SortFunc(ids, func(a, b ident) int { return cmp.Compare(a.sequence, b.sequence) })
	}
	return keys
}

// badOnes returns the records that are bad, by what was written: the n-th
// record of a key in the stream is its n-th change. Of a row of base data only
// its states are known: it may have changed before it was read, and between two
// deliveries. So it may be bad if one of its states was, and must be bad if all
// of them were.
func (e evidence) badOnes() (may, must map[ident]bool) {
	may, must = make(map[ident]bool), make(map[ident]bool)
	for key, ids := range e.records() {
		if ids[0].sequence == "" {
			changes := e.stream[key]
			isBad := func(w written) bool { return w.bad != good }
			may[ids[0]] = isBad(e.base[key]) || slices.ContainsFunc(changes, isBad)
			must[ids[0]] = isBad(e.base[key]) && len(changes) == 0
			ids = ids[1:]
		}
		for n, id := range ids {
			if n < len(e.stream[key]) && e.stream[key][n].bad != good {
				may[id], must[id] = true, true
			}
		}
	}
	return may, must
}

// checkArrival checks L1: every change is at the sink or a letter, with its
// content.
func (e evidence) checkArrival(report report) {
	records := e.records()
	rows := make(map[ident]row)
	for _, entry := range e.entries {
		rows[entry.ident()] = entry.row
	}
	for key, changes := range e.stream {
		ids := records[key]
		if len(ids) > 0 && ids[0].sequence == "" {
			ids = ids[1:]
		}
		if len(ids) != len(changes) {
			report("L1", "key %s changed %d times, %d changes arrived or are letters", key, len(changes), len(ids))
			continue
		}
		for n, id := range ids {
			if r, arrived := rows[id]; arrived && (r.Type != changes[n].typ || r.Version != changes[n].version) {
				report("L1", "change %d of key %s, a %s of version %d, arrived as a %s of version %d", n, key, changes[n].typ, changes[n].version, r.Type, r.Version)
			}
		}
	}
	for key, w := range e.base {
		ids := records[key]
		switch arrived := len(ids) > 0 && ids[0].sequence == ""; {
		case len(e.stream[key]) > 0 && arrived: // it may have changed before it was read
			if r, ok := rows[ids[0]]; ok && r.Version < w.version {
				report("L1", "row %s arrived in version %d, it had version %d from the start", key, r.Version, w.version)
			}
		case len(e.stream[key]) > 0: // it may have been deleted before it was read
			if !slices.ContainsFunc(e.stream[key], func(w written) bool { return w.typ == "delete" }) {
				report("L1", "row %s of the base data never arrived", key)
			}
		case !arrived:
			report("L1", "row %s of the base data never arrived", key)
		case rows[ids[0]].Version != w.version && rows[ids[0]] != (row{}):
			report("L1", "row %s of the base data arrived in version %d of %d", key, rows[ids[0]].Version, w.version)
		}
	}
}

// checkLetters checks L8 and L9: letters are bad rows, and each bad row is one.
func (e evidence) checkLetters(report report) {
	mayBeBad, bad := e.badOnes()
	letters := make(map[ident]int)
	for _, l := range e.letters {
		letters[l.ident]++
		tooLong := l.at.Sub(e.began) >= workerGiveUpAfter() // on such a busy machine L9 allows the letter
		if !mayBeBad[l.ident] && !tooLong {
			report("L8, L9", "%s %s is a letter since %s, after %d attempts, although it is not bad: %.200s", l.key, l.sequence, l.at.Format("15:04:05.000"), l.attempts, l.text)
		}
		if l.attempts < workerAttempts && !tooLong {
			report("L9", "%s %s is a letter after %d of %d attempts", l.key, l.sequence, l.attempts, workerAttempts)
		}
	}
	for id, n := range letters {
		if n > 1 && e.strict {
			report("L8", "%s %s is %d letters", id.key, id.sequence, n)
		}
	}
	for _, entry := range e.entries {
		if entry.Bad != good {
			report("L8", "%s %s is bad, and the sink accepted it", entry.Key, entry.Sequence)
		}
	}
	for id, isBad := range bad {
		if isBad && letters[id] == 0 {
			report("L8", "%s %s is bad, and not a letter", id.key, id.sequence)
		}
	}
}

// checkOrder checks L3, key by key: a record is first done only after all
// earlier ones, and after a repetition everything after it is repeated in
// order. Letters are excluded.
//
// Effects of a worker that had lost the channel can excuse later ones, but are
// not violations themselves, except for first effects.
func (e evidence) checkOrder(report report) {
	done := make(map[ident]bool)
	for _, x := range e.entries {
		done[x.ident()] = true
	}
	rank := make(map[ident]int)
	order := make(map[string][]ident) // by key
	for key, ids := range e.records() {
		for _, id := range ids {
			if done[id] {
				rank[id] = len(order[key])
				order[key] = append(order[key], id)
			}
		}
	}
	// A record that was done and also became a letter is a separate violation;
	// it need not be repeated.
	letters := make(map[ident]bool)
	for _, l := range e.letters {
		letters[l.ident] = true
	}
	behind := func(key string, n int) int {
		for n < len(order[key]) && letters[order[key][n]] {
			n++
		}
		return n
	}
	first, reach := make(map[string]int), make(map[string]int) // by key: how many were done first, and which rank may be next
	broken := make(map[string]bool)
	for key := range order {
		first[key], reach[key] = behind(key, 0), behind(key, 0)
	}
	for n, x := range e.entries {
		r := rank[x.ident()]
		suspect := e.suspect(x)
		switch {
		case broken[x.Key]: // one violation per key
		case r > first[x.Key]:
			report("L3", "%s: its record %d (version %d, %s) has its first effect (%d, process %d) before its record %d%s", x.Key, r, x.Version, x.Sequence, n, x.process, first[x.Key], e.history(x.Key, rank))
			broken[x.Key] = true
		case r > reach[x.Key] && !suspect:
			report("L3", "%s: its record %d (version %d, %s) is repeated (%d, process %d) before its record %d, which follows an earlier repetition%s", x.Key, r, x.Version, x.Sequence, n, x.process, reach[x.Key], e.history(x.Key, rank))
			broken[x.Key] = true
		}
		next := behind(x.Key, r+1)
		first[x.Key] = max(first[x.Key], next)
		if suspect {
			reach[x.Key] = max(reach[x.Key], next)
		} else {
			reach[x.Key] = next
		}
	}
	for key, n := range reach {
		if n != len(order[key]) && !broken[key] {
			report("L3", "%s: its record %d is the last one that was repeated, of %d", key, n-1, len(order[key]))
		}
	}
}

// history lists the effects and letters of a key, to show how a violation came about.
func (e evidence) history(key string, rank map[ident]int) string {
	var text strings.Builder
	for n, x := range e.entries {
		if x.Key == key {
			fmt.Fprintf(&text, "\n\t%s effect %d: record %d (version %d, %s, %s) by process %d, suspect %v",
				x.at.Format("15:04:05.000"), n, rank[x.ident()], x.Version, x.Type, x.Channel, x.process, e.suspect(x))
		}
	}
	for _, l := range e.letters {
		if l.key == key {
			fmt.Fprintf(&text, "\n\t%s letter: %s after %d attempts", l.at.Format("15:04:05.000"), l.sequence, l.attempts)
		}
	}
	return text.String()
}

// checkUUIDs checks L2: a record has one UUID, and a UUID one record.
func (e evidence) checkUUIDs(report report) {
	uuids, ids := make(map[ident]string), make(map[string]ident)
	see := func(id ident, uuid string) {
		if was, ok := uuids[id]; ok && was != uuid {
			report("L2", "%v has the UUIDs %s and %s", id, was, uuid)
		}
		if was, ok := ids[uuid]; ok && was != id {
			report("L2", "%v and %v have the same UUID %s", was, id, uuid)
		}
		uuids[id], ids[uuid] = uuid, id
	}
	for _, x := range e.entries {
		see(x.ident(), x.UUID)
	}
	for _, l := range e.letters {
		see(l.ident, l.uuid)
	}
}

// checkBaseFirst checks L5: the stream begins when the base data is done.
func (e evidence) checkBaseFirst(report report) {
	begun, began := -1, time.Time{}
	done := make(map[ident]bool)
	for n, x := range e.entries {
		switch id := x.ident(); {
		case id.sequence != "" && begun < 0:
			begun, began = n, x.at
		case id.sequence == "" && begun >= 0 && !done[id]:
			report("L5", "row %s of the base data has its first effect (%d) after the stream's (%d)", x.Key, n, begun)
		case id.sequence == "":
			done[id] = true
		}
	}
	for _, l := range e.letters {
		if l.sequence == "" && begun >= 0 && l.at.After(began) {
			report("L5", "row %s of the base data becomes a letter %v after the stream's first effect", l.key, l.at.Sub(began))
		}
	}
}
