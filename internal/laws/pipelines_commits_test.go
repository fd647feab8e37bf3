package laws

import (
	"fmt"
	"maps"
	"slices"
	"strings"

	"github.com/watermill-ots/watermill-ots/ots"
)

// checkCommits checks L1 and L2 with the channels' checkpoints, sampled during
// the run: what was committed had been done, and is not redelivered. last are
// the entries of the pipeline's last door, all those of any door.
func checkCommits(samples map[string][]committed, last, all []entry, letters []letter, suspect func(entry) bool) error {
	records := make(map[string]map[string]*record) // by channel and sequence
	get := func(channel string, s ots.Sequence) *record {
		if records[channel] == nil {
			records[channel] = make(map[string]*record)
		}
		r := records[channel][s.String()]
		if r == nil {
			r = &record{sequence: s, first: 1 << 62}
			records[channel][s.String()] = r
		}
		return r
	}
	for _, x := range last {
		r := get(x.Channel, x.Sequence)
		r.first = min(r.first, x.at.UnixMicro())
	}
	for _, x := range all {
		if !suspect(x) {
			r := get(x.Channel, x.Sequence)
			r.last = max(r.last, x.at.UnixMicro())
		}
	}
	for _, l := range letters {
		r := get(l.channel, parseSequence(l.sequence))
		r.first = min(r.first, l.at.UnixMicro())
	}
	for _, channel := range slices.Sorted(maps.Keys(samples)) {
		var stream []*record
		for _, r := range records[channel] {
			if !r.sequence.IsZero() {
				stream = append(stream, r)
			}
		}
		if len(stream) == 0 {
			continue // base data, whose records have no order
		}
		slices.SortFunc(stream, func(a, b *record) int { return strings.Compare(a.sequence.String(), b.sequence.String()) })
		if err := checkCheckpoints(stream, samples[channel]); err != nil {
			return fmt.Errorf("channel %s: %w", channel, err)
		}
		if last := samples[channel][len(samples[channel])-1]; last.count != len(stream) {
			return fmt.Errorf("L7: channel %s: %d of %d records are committed after the drain", channel, last.count, len(stream))
		}
	}
	return nil
}

// parseSequence parses the output of ots.Sequence.String; an empty text gives
// the zero Sequence.
func parseSequence(text string) (s ots.Sequence) {
	_, _ = fmt.Sscanf(text, "%x:%x:%x", &s.Epoch, &s.Timestamp, &s.RowIndex) // an invalid sequence is detected by its letter's ident
	return s
}
