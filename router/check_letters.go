package router

import (
	"cmp"
	"unicode/utf8"

	"github.com/watermill-ots/watermill-ots/router/internal/keypath"
	"github.com/watermill-ots/watermill-ots/router/internal/letters"
)

// table identifies a table at the service.
type table struct{ instance, name string }

// letterWay is the way of a pipeline's dead letters: from the table whose changes it
// handles to another one.
type letterWay struct {
	pipeline string
	to       table
}

// letters checks that dead letters can be kept under the names of their pipelines,
// and that none go round: into a table whose changes are
// handled by a pipeline whose own letters come back, at once or by way of others.
// What goes straight into its own table is reported by failure.
func (c *checker) letters() {
	ways := make(map[table][]letterWay)
	for _, name := range names(c.cfg.Tunnels) {
		t := c.cfg.Tunnels[name]
		if dl := t.Failure.DeadLetter; dl != nil && dl.Table != "" {
			if len(name) > letters.MaxPipeline || !utf8.ValidString(name) {
				c.fault(keypath.Join("tunnels", name), "dead letters are kept under the pipeline's name, which has %d bytes; a key column of their table takes up to %d, in UTF-8", len(name), letters.MaxPipeline)
			}
			from := table{c.atService(t.Instance), t.TableName}
			to := table{c.atService(cmp.Or(dl.Instance, t.Instance)), dl.Table}
			if from != to {
				ways[from] = append(ways[from], letterWay{name, to})
			}
		}
	}
	for from, leading := range ways {
		for _, way := range leading {
			if by := back(ways, way.to, from, make(map[table]bool)); by != "" {
				c.fault(keypath.Join("tunnels", way.pipeline, "failure", "dead_letter", "table"), "is the table that %s handles, whose own dead letters lead back to the table handled here: they would go round for ever; take another one", keypath.Join("tunnels", by))
			}
		}
	}
}

// back returns the first pipeline on a way of letters from one table to another,
// "" if there is none.
func back(ways map[table][]letterWay, from, to table, seen map[table]bool) string {
	seen[from] = true
	for _, way := range ways[from] {
		if way.to == to || !seen[way.to] && back(ways, way.to, to, seen) != "" {
			return way.pipeline
		}
	}
	return ""
}
