package router

import (
	"cmp"
	"unicode/utf8"

	"github.com/watermill-ots/watermill-ots/internal/letters"
	"github.com/watermill-ots/watermill-ots/router/internal/keypath"
)

// table identifies a table at the service.
type table struct{ instance, name string }

// letterRoute is the route of a pipeline's dead letters, from the table whose changes it
// handles to another one.
type letterRoute struct {
	pipeline string
	to       table
}

// letters checks that dead letters can be kept under the names of their pipelines, and
// that none go in a circle: into a table whose changes are handled by a pipeline whose own
// letters lead back, directly or through others. Letters that go directly into the table
// whose changes are handled are reported by failure.
func (c *checker) letters() {
	routes := make(map[table][]letterRoute)
	for _, name := range names(c.cfg.Tunnels) {
		t := c.cfg.Tunnels[name]
		if dl := t.Failure.DeadLetter; dl != nil && dl.Table != "" {
			if len(name) > letters.MaxPipeline || !utf8.ValidString(name) {
				c.fault(keypath.Join("tunnels", name), "dead letters are kept under the pipeline's name, which has %d bytes; a key column of their table takes up to %d, in UTF-8", len(name), letters.MaxPipeline)
			}
			from := table{c.atService(t.Instance), t.TableName}
			to := table{c.atService(cmp.Or(dl.Instance, t.Instance)), dl.Table}
			if from != to {
				routes[from] = append(routes[from], letterRoute{name, to})
			}
		}
	}
	for from, leading := range routes {
		for _, route := range leading {
			if by := back(routes, route.to, from, make(map[table]bool)); by != "" {
				c.fault(keypath.Join("tunnels", route.pipeline, "failure", "dead_letter", "table"), "is the table that %s handles, whose own dead letters lead back to the table handled here: they would go in circles for ever; use another one", keypath.Join("tunnels", by))
			}
		}
	}
}

// back returns the first pipeline on a route of letters from one table to another, "" if
// there is no route.
func back(routes map[table][]letterRoute, from, to table, seen map[table]bool) string {
	seen[from] = true
	for _, route := range routes[from] {
		if route.to == to || !seen[route.to] && back(routes, route.to, to, seen) != "" {
			return route.pipeline
		}
	}
	return ""
}
