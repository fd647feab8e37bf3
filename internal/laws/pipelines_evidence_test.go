package laws

import (
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/watermill-ots/watermill-ots/ots"
)

// TestEvidence_finds_each_breach checks that the checks of the pipelines' chaos
// test find each violation.
func TestEvidence_finds_each_breach(t *testing.T) {
	const key = `["k"]`
	// A key with a row of base data, version 1, and three changes: 2, 3 and 4.
	// Its change 3 is bad.
	sequence := func(version int) ots.Sequence {
		if version == 1 {
			return ots.Sequence{} // base data
		}
		return ots.Sequence{Epoch: 1, Timestamp: int64(version)}
	}
	at := func(version int) entry {
		typ := "update"
		if version == 1 {
			typ = "put"
		}
		return entry{row: row{UUID: string(rune('a' + version)), Channel: "c", Sequence: sequence(version), Key: key, Type: typ, Version: version}}
	}
	fenced := func(version int) entry {
		x := at(version)
		x.process = 9 // the test treats it as a worker without the channel
		return x
	}
	letterOf := func(version int) letter {
		x := at(version)
		return letter{ident: x.ident(), uuid: x.UUID, channel: "c", attempts: workerAttempts, text: "simulated"}
	}
	whole := func() evidence {
		return evidence{
			name: "door", strict: true,
			base:    map[string]written{key: {typ: "put", version: 1}},
			stream:  map[string][]written{key: {{typ: "update", version: 2}, {typ: "update", version: 3, bad: badAtSink}, {typ: "update", version: 4}}},
			entries: []entry{at(1), at(2), at(4)},
			letters: []letter{letterOf(3)},
			suspect: func(x entry) bool { return x.process == 9 },
		}
	}
	for _, tc := range []struct {
		name string
		do   func(*evidence)
		want string // the violated law; empty: none
	}{
		{"everything arrives in order", func(*evidence) {}, ""},
		{"the rest of a key is repeated", func(e *evidence) { e.entries = append(e.entries, at(2), at(2), at(4)) }, ""},
		{"a worker without the channel repeats something", func(e *evidence) { e.entries = append(e.entries, fenced(2)) }, ""},
		{"a worker without the channel may be the owner", func(e *evidence) { e.entries = append(e.entries, at(2), fenced(4)) }, ""},
		{"the last change never arrives", func(e *evidence) { e.entries = e.entries[:2] }, "L1"},
		{"a change in the middle never arrives", func(e *evidence) { e.entries = []entry{at(1), at(4)} }, "L1"},
		{"a row of base data never arrives", func(e *evidence) { e.entries = e.entries[1:] }, "L1"},
		{"a change arrives with the content of another one", func(e *evidence) { e.entries[2].Version = 3 }, "L1"},
		{"the bad row is not a letter", func(e *evidence) { e.letters = nil }, "L1"},
		{"a record has two UUIDs", func(e *evidence) { e.entries = append(e.entries, at(4)); e.entries[3].UUID = "other" }, "L2"},
		{"two records have one UUID", func(e *evidence) { e.entries[2].UUID = e.entries[1].UUID }, "L2"},
		{"the last change is done first", func(e *evidence) { e.entries = []entry{at(1), at(4), at(2)} }, "L3"},
		{"a worker without the channel does the last change first", func(e *evidence) { e.entries = []entry{at(1), fenced(4), at(2), at(4)} }, "L3"},
		{"a change is repeated, but not those after it", func(e *evidence) { e.entries = append(e.entries, at(2)) }, "L3"},
		{"a repetition leaves a change out", func(e *evidence) { e.entries = append(e.entries, at(1), at(4)) }, "L3"},
		{"the stream begins before the base data is done", func(e *evidence) { e.entries = []entry{at(2), at(1), at(4)} }, "L5"},
		{"a good row is a letter", func(e *evidence) { e.letters = append(e.letters, letterOf(2)) }, "L8, L9"},
		{"a good row is a letter instead of arriving", func(e *evidence) {
			e.entries = []entry{at(1), at(4)}
			e.letters = append(e.letters, letterOf(2))
		}, "L8, L9"},
		{"a bad row is two letters", func(e *evidence) { e.letters = append(e.letters, letterOf(3)) }, "L8"},
		{"a bad row is given up too early", func(e *evidence) { e.letters[0].attempts = 1 }, "L9"},
		{"the bad row arrives, and is not a letter", func(e *evidence) {
			e.letters, e.entries = nil, []entry{at(1), at(2), at(3), at(4)}
			e.entries[2].Bad = badAtSink
		}, "L8"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			e := whole()
			tc.do(&e)
			found := e.check()
			if tc.want == "" && len(found) > 0 || tc.want != "" && !slices.ContainsFunc(found, func(b breach) bool { return b.law == tc.want }) {
				t.Errorf("found %v, want %q", found, tc.want)
			}
		})
	}
}

func TestCommits_find_each_breach(t *testing.T) {
	at := func(version, ms int) entry {
		return entry{row: row{Channel: "c", Sequence: ots.Sequence{Epoch: 1, Timestamp: int64(version)}}, at: time.UnixMilli(int64(ms))}
	}
	point := func(count, ms int) committed { return committed{count, time.UnixMilli(int64(ms)).UnixMicro()} }
	for _, tc := range []struct {
		name    string
		entries []entry
		letters []letter
		samples []committed
		want    string // in the error; empty: none
	}{
		{"what was done is committed", []entry{at(1, 10), at(2, 20), at(2, 40)}, nil, []committed{point(1, 30), point(2, 50)}, ""},
		{"a letter counts as done", []entry{at(1, 10)}, []letter{{ident: ident{"k", at(2, 0).Sequence.String()}, channel: "c", at: time.UnixMilli(20)}}, []committed{point(2, 50)}, ""},
		{"what is committed is done later", []entry{at(1, 10), at(2, 40)}, nil, []committed{point(2, 30)}, "L1"},
		{"what is committed is never done", []entry{at(1, 10)}, nil, []committed{point(2, 30)}, "L1"},
		{"what is committed is done again", []entry{at(1, 10), at(2, 20), at(1, 60)}, nil, []committed{point(2, 50)}, "L2"},
		{"something is not committed in the end", []entry{at(1, 10), at(2, 20)}, nil, []committed{point(1, 50)}, "L7"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			err := checkCommits(map[string][]committed{"c": tc.samples}, tc.entries, tc.entries, tc.letters, func(entry) bool { return false })
			if tc.want == "" && err != nil || tc.want != "" && (err == nil || !strings.HasPrefix(err.Error(), tc.want) && !strings.Contains(err.Error(), " "+tc.want)) {
				t.Errorf("found %v, want %q", err, tc.want)
			}
		})
	}
}
