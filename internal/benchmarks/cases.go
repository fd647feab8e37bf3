package main

import (
	"context"
	"fmt"
	"os"
	"slices"
	"strings"
	"time"
)

// group is a table of results: several consumers on several loads.
type group struct {
	name, title string
	consumers   []string
	loads       []load
	warmup      time.Duration // if longer than usual
	measure     time.Duration // instead of the usual duration
	latencies   bool
	idle        bool // nothing is consumed: only the cost of idling is measured
}

var everybody = []string{"sdk", "glue", "json", "raw", "lazy", "batch", "handle", "pipeline", "batches", "waiting", "bare", "limit"}

var groups = []group{
	{
		name: "stream", title: "Stream, full pages (1000 records)", consumers: everybody,
		loads: []load{{Channels: 1, Page: 1000}, {Channels: 4, Page: 1000}, {Channels: 16, Page: 1000}, {Channels: 64, Page: 1000}},
	},
	{
		name: "base", title: "Base data, full pages (1000 records)", consumers: everybody,
		loads: []load{
			{Channels: 1, Page: 1000, Base: true}, {Channels: 4, Page: 1000, Base: true},
			{Channels: 16, Page: 1000, Base: true}, {Channels: 64, Page: 1000, Base: true},
		},
	},
	{
		name: "half", title: "Stream, pages of 500 records, the service does not say whether there are more", consumers: []string{"sdk", "glue", "json", "bare"},
		loads: []load{
			{Channels: 1, Page: 500, Silent: true}, {Channels: 4, Page: 500, Silent: true},
			{Channels: 16, Page: 500, Silent: true}, {Channels: 64, Page: 500, Silent: true},
		}, measure: 10 * time.Second,
	},
	{
		name: "far", title: "Stream, a service 5 ms away", consumers: []string{"sdk", "glue", "json", "batch", "pipeline", "bare"},
		loads: []load{
			{Channels: 1, Page: 1000, Latency: 5 * time.Millisecond}, {Channels: 4, Page: 1000, Latency: 5 * time.Millisecond},
			{Channels: 16, Page: 1000, Latency: 5 * time.Millisecond}, {Channels: 64, Page: 1000, Latency: 5 * time.Millisecond},
		},
	},
	{
		name: "lookup", title: "Updates whose rows are looked up or not, a service 5 ms away", consumers: []string{"pipeline", "lookup", "handle", "whole"},
		loads: []load{
			{Channels: 1, Page: 1000, Updates: true, Latency: 5 * time.Millisecond}, {Channels: 4, Page: 1000, Updates: true, Latency: 5 * time.Millisecond},
			{Channels: 16, Page: 1000, Updates: true, Latency: 5 * time.Millisecond},
		},
	},
	{
		name: "tail", title: "Tail: 25 records per second on one channel", consumers: []string{"sdk", "json", "pipeline"},
		loads: []load{{Channels: 1, Rate: 25}}, warmup: 2 * time.Second, measure: 20 * time.Second, latencies: true,
	},
	{
		name: "sparse", title: "Sparse: one record per second on each channel", consumers: []string{"sdk", "json"},
		loads: []load{{Channels: 1, Rate: 1}, {Channels: 16, Rate: 1}}, warmup: 5 * time.Second, measure: 30 * time.Second, latencies: true,
	},
	{
		name: "idle", title: "Idle: nothing is written, the second minute", consumers: []string{"sdk", "json"},
		loads: []load{{Channels: 1}, {Channels: 64}}, warmup: time.Minute, measure: 20 * time.Second, idle: true,
	},
	{
		name: "growth", title: "Stream, by number of messages in flight", consumers: []string{"held"},
		loads: []load{
			{Channels: 1, Page: 1000, InFlight: 1}, {Channels: 1, Page: 1000, InFlight: 10}, {Channels: 1, Page: 1000, InFlight: 1000},
			{Channels: 1, Page: 1000, InFlight: 100_000}, {Channels: 1, Page: 1000, InFlight: 1_000_000},
		}, warmup: 30 * time.Second, measure: 5 * time.Second,
	},
	{
		name: "many", title: "Stream, very many channels", consumers: []string{"json", "bare"},
		loads: []load{{Channels: 1, Page: 1000}, {Channels: 8, Page: 1000}, {Channels: 64, Page: 1000}, {Channels: 512, Page: 1000}}, warmup: 2 * time.Second,
	},
}

func groupNames() string {
	names := make([]string, len(groups))
	for i, g := range groups {
		names[i] = g.name
	}
	return strings.Join(append(names, handover), ", ")
}

// run runs the consumers of a group alternately and reports the results.
func (g group) run(ctx context.Context, o options) error {
	if g.warmup > 0 {
		o.warmup = g.warmup
	}
	if g.measure > 0 {
		o.measure = g.measure
	}
	if g.idle || g.latencies {
		o.runs = 1 // it takes long
	}
	list := o.chosen(g.consumers)
	g.loads = slices.DeleteFunc(slices.Clone(g.loads), func(l load) bool { return !o.wants(l) })
	if len(list) == 0 || len(g.loads) == 0 {
		return nil
	}
	t := newTable(g, list)
	for _, l := range g.loads {
		var p *pages
		if l.Page > 0 {
			p = newPages(l)
		}
		for n := range o.runs {
			for _, c := range list {
				r, err := run(ctx, c, l, p, o, g.latencies)
				if err != nil {
					return err
				}
				t.add(l, c, r)
				fmt.Fprintf(os.Stderr, "\r\033[K%s, %s: run %d of %d: %-9s %s", g.name, l, n+1, o.runs, c.name, rateText(r.rate()))
			}
		}
	}
	fmt.Fprint(os.Stderr, "\r\033[K")
	return t.report(o.out)
}

// String returns the load's name in tables.
func (l load) String() string {
	s := fmt.Sprintf("%d ch", l.Channels)
	if l.Latency > 0 {
		s += fmt.Sprintf(", %v", l.Latency)
	}
	if l.InFlight > 0 {
		s += fmt.Sprintf(", %d held", l.InFlight)
	}
	return s
}
