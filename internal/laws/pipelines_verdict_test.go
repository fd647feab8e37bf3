package laws

import (
	"errors"
	"fmt"
	"maps"
	"slices"
	"time"

	"github.com/aliyun/aliyun-tablestore-go-sdk/tablestore"
	"github.com/aliyun/aliyun-tablestore-go-sdk/tunnel"
)

// settled reports whether everything that was written has arrived at each door or is a letter.
func (w *pipelinesWorld) settled(withTicks bool) (done bool, missing int) {
	for _, p := range pipes {
		letters := w.letters(p)
		want := w.tables[p.table].written()
		if !withTicks {
			want -= w.tables[p.table].ticks()
		}
		for _, name := range p.doors {
			missing += max(0, want-w.sink.arrived(name, letters, withTicks))
		}
	}
	return missing == 0, missing
}

// letters returns the letters of a pipeline.
func (w *pipelinesWorld) letters(p pipe) []letter {
	w.Helper()
	if p.lettersByTopic {
		return w.sink.lettersOf(p.name)
	}
	letters, err := readLetters(w.client, p.name)
	w.must(err)
	return letters
}

// sample requests the checkpoints from the service.
func (w *pipelinesWorld) sample() {
	for _, p := range pipes {
		resp, err := w.tunnels.GetRpoByOffset(&tunnel.GetRpoRequest{TunnelId: w.ids[p.name]})
		if err != nil {
			w.tell("no sample: %v", err)
			continue
		}
		at := time.Now().UnixMicro()
		for _, channels := range resp.RpoInfos {
			for id, info := range channels {
				seen := w.samples[p.name][id]
				if n := len(seen); info.TotalCount > 0 && (n == 0 || int(info.TotalCount) > seen[n-1].count) {
					w.samples[p.name][id] = append(seen, committed{int(info.TotalCount), at})
				}
			}
		}
	}
}

// suspect returns a function that reports whether an effect came from a worker
// that had, or may have, lost the channel.
func (w *pipelinesWorld) suspect() func(entry) bool {
	type delivery struct {
		process int
		uuid    string
	}
	fenced := make(map[delivery][]fencing)
	for _, f := range w.sink.fencings() {
		at := delivery{f.Process, f.UUID}
		fenced[at] = append(fenced[at], f)
	}
	return func(x entry) bool {
		for _, f := range fenced[delivery{x.process, x.UUID}] {
			if !x.at.Before(f.From) && !x.at.After(f.To) {
				return true
			}
		}
		return slices.ContainsFunc(w.unsure, func(u unsure) bool {
			switch {
			case u.isProcess && u.process != x.process, u.channel != "" && u.channel != x.Channel:
				return false
			}
			return x.at.After(u.from.Add(-zombieBefore)) && x.at.Before(u.to.Add(zombieAfter))
		})
	}
}

// check checks the laws.
func (w *pipelinesWorld) check() {
	w.Helper()
	suspect := w.suspect()
	breaches := make(map[string]int) // violations by law and door
	for _, p := range pipes {
		letters := w.letters(p)
		if len(letters) == 0 {
			w.Errorf("%s has no letters: the seed says nothing about L8", p.name)
		}
		var all []entry
		for _, name := range p.doors {
			entries := w.sink.log(name)
			all = append(all, entries...)
			e := evidence{
				began: w.began,
				name:  name, base: w.tables[p.table].base, stream: w.tables[p.table].stream,
				entries: entries, suspect: suspect, letters: letters, strict: !p.lettersByTopic,
			}
			for _, b := range e.check() {
				at := b.law + " at " + name
				if breaches[at]++; breaches[at] <= shownBreaches {
					w.Error(b)
				}
			}
		}
		if err := checkCommits(w.samples[p.name], w.sink.log(p.doors[len(p.doors)-1]), all, letters, suspect); err != nil {
			w.Errorf("%s: %v", p.name, err)
		}
		w.Logf("%s: %d letters, %d checkpoints of %d channels", p.name, len(letters), len(slices.Concat(slices.Collect(maps.Values(w.samples[p.name]))...)), len(w.samples[p.name]))
	}
	if len(breaches) > 0 {
		w.Errorf("breaches: %v", breaches)
	}
	w.Logf("seed %d: %d and %d changes, %v; %d processes in %v", w.seed, w.tables[ordersTable].written(), w.tables[stockTable].written(), w.sink, w.next, time.Since(w.began).Round(time.Millisecond))
}

// shownBreaches is how many violations of a law are shown per door.
const shownBreaches = 3

// readLetters reads the letters of a pipeline from the table.
func readLetters(client *tablestore.TableStoreClient, pipeline string) ([]letter, error) {
	from, to := new(tablestore.PrimaryKey), new(tablestore.PrimaryKey)
	from.AddPrimaryKeyColumn("pipeline", pipeline)
	from.AddPrimaryKeyColumnWithMinValue("sequence")
	from.AddPrimaryKeyColumnWithMinValue("id")
	to.AddPrimaryKeyColumn("pipeline", pipeline)
	to.AddPrimaryKeyColumnWithMaxValue("sequence")
	to.AddPrimaryKeyColumnWithMaxValue("id")
	var letters []letter
	for from != nil {
		resp, err := client.GetRange(&tablestore.GetRangeRequest{RangeRowQueryCriteria: &tablestore.RangeRowQueryCriteria{
			TableName: lettersTable, StartPrimaryKey: from, EndPrimaryKey: to, Direction: tablestore.FORWARD, MaxVersion: 1, Limit: 1000,
		}})
		var service *tablestore.OtsError
		if errors.As(err, &service) && service.Code == "OTSObjectNotExist" {
			return nil, nil // no worker has started yet
		}
		if err != nil {
			return nil, fmt.Errorf("reading the letters of %s: %w", pipeline, err)
		}
		for _, row := range resp.Rows {
			letters = append(letters, letterOfRow(row))
		}
		from = resp.NextStartPrimaryKey
	}
	return letters, nil
}

func letterOfRow(row *tablestore.Row) letter {
	text, numbers := make(map[string]string), make(map[string]int64)
	for _, c := range row.PrimaryKey.PrimaryKeys {
		text[c.ColumnName], _ = c.Value.(string)
	}
	for _, c := range row.Columns {
		switch v := c.Value.(type) {
		case string:
			text[c.ColumnName] = v
		case int64:
			numbers[c.ColumnName] = v
		}
	}
	return letter{
		ident: ident{text["key"], text["sequence"]}, pipeline: text["pipeline"], channel: text["channel"], uuid: text["id"],
		text: text["error"], attempts: int(numbers["attempts"]), at: time.UnixMilli(numbers["failed_at"]),
	}
}
