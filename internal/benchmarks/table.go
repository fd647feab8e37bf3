package main

import (
	"cmp"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"text/tabwriter"
	"time"
)

// table collects the results of a group.
type table struct {
	group     group
	consumers []consumer
	results   map[string][]result // by load and consumer
}

func newTable(g group, list []consumer) *table {
	return &table{group: g, consumers: list, results: make(map[string][]result)}
}

func key(l load, c consumer) string { return l.String() + "/" + c.name }

func (t *table) add(l load, c consumer, r result) {
	k := key(l, c)
	t.results[k] = append(t.results[k], r)
}

// of returns the median of one figure over the runs, and the lowest and highest
// value.
func of[N cmp.Ordered](results []result, figure func(result) N) (median, low, high N) {
	all := make([]N, len(results))
	for i, r := range results {
		all[i] = figure(r)
	}
	slices.Sort(all)
	return all[len(all)/2], all[0], all[len(all)-1]
}

// column is one figure in a table.
type column struct {
	title string
	text  func([]result) string
}

var throughputColumns = []column{
	{"records/s", func(rs []result) string { m, _, _ := of(rs, result.rate); return rateText(m) }},
	{"spread", func(rs []result) string {
		m, low, high := of(rs, result.rate)
		return fmt.Sprintf("±%.0f %%", (high-low)/2/m*100)
	}},
	{"CPU-s/M", func(rs []result) string { m, _, _ := of(rs, result.cpuPerMillion); return fmt.Sprintf("%.2f", m) }},
	{"allocs/record", func(rs []result) string { m, _, _ := of(rs, result.allocsPerRecord); return fmt.Sprintf("%.2f", m) }},
	{"RSS MiB", func(rs []result) string {
		m, _, _ := of(rs, func(r result) int64 { return r.RSS })
		return fmt.Sprint(m >> 20)
	}},
	{"connections", func(rs []result) string {
		m, _, _ := of(rs, func(r result) int64 { return r.Connections })
		return fmt.Sprint(m)
	}},
	{"reads/s", func(rs []result) string { m, _, _ := of(rs, result.readRate); return fmt.Sprintf("%.1f", m) }},
}

var latencyColumns = []column{
	{"p50", func(rs []result) string {
		m, _, _ := of(rs, func(r result) time.Duration { return r.P50 })
		return m.Round(time.Millisecond / 10).String()
	}},
	{"p99", func(rs []result) string {
		m, _, _ := of(rs, func(r result) time.Duration { return r.P99 })
		return m.Round(time.Millisecond / 10).String()
	}},
	{"records", func(rs []result) string {
		m, _, _ := of(rs, func(r result) int { return r.Latencies })
		return fmt.Sprint(m)
	}},
}

// report prints the table, and writes it and its plot into dir.
func (t *table) report(dir string) error {
	fmt.Printf("\n%s\n\n", t.group.title)
	w := tabwriter.NewWriter(os.Stdout, 0, 0, 2, ' ', 0)
	t.write(w, "", "\t", "\n")
	if err := w.Flush(); err != nil {
		return err
	}
	if dir == "" {
		return nil
	}
	var b strings.Builder
	t.write(&b, "| ", " | ", " |\n")
	if err := os.WriteFile(filepath.Join(dir, t.group.name+".md"), []byte(b.String()), 0o666); err != nil {
		return err
	}
	if t.group.idle {
		return nil
	}
	return t.plot(filepath.Join(dir, t.group.name+".svg"))
}

// write writes the rows, with a Markdown rule after the head if lines begin
// with a bar.
func (t *table) write(w io.Writer, begin, between, end string) {
	columns := throughputColumns
	if t.group.idle {
		columns = throughputColumns[4:]
	}
	if t.group.latencies {
		columns = append(slices.Clone(latencyColumns), columns...)
	}
	head := []string{"load", "consumer"}
	for _, c := range columns {
		head = append(head, c.title)
	}
	base := t.consumers[0]
	ratios := len(t.consumers) > 1 && !t.group.idle
	if ratios {
		head = append(head, "× "+base.name)
	}
	fmt.Fprint(w, begin, strings.Join(head, between), end)
	if begin != "" {
		fmt.Fprint(w, begin, strings.Join(slices.Repeat([]string{"---"}, len(head)), between), end)
	}
	for _, l := range t.group.loads {
		reference, _, _ := of(t.results[key(l, base)], result.rate)
		for _, c := range t.consumers {
			rs := t.results[key(l, c)]
			row := []string{l.String(), c.name}
			for _, col := range columns {
				row = append(row, col.text(rs))
			}
			if ratios {
				m, _, _ := of(rs, result.rate)
				row = append(row, fmt.Sprintf("%.2f", m/reference))
			}
			fmt.Fprint(w, begin, strings.Join(row, between), end)
		}
	}
}

// rateText formats a rate for people.
func rateText(r float64) string {
	switch {
	case r >= 1e6:
		return fmt.Sprintf("%.2f M", r/1e6)
	case r >= 1e4:
		return fmt.Sprintf("%.0f k", r/1e3)
	}
	return fmt.Sprintf("%.0f", r)
}
