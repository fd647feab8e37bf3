package main

import (
	"fmt"
	"html"
	"os"
	"strings"
	"time"
)

// Sizes of a plot, in pixels.
const (
	plotWidth   = 760
	labelWidth  = 90
	valueWidth  = 80
	barHeight   = 14
	barGap      = 4
	groupGap    = 14
	titleHeight = 34
)

// hues distinguish the consumers; they are readable on white and on black.
var hues = map[string]string{
	"sdk": "#8a8f98", "glue": "#c2803a", "json": "#2f7ed8", "raw": "#5aa0e6", "lazy": "#86bdf0",
	"batch": "#2a9d6f", "handle": "#7b5cd6", "pipeline": "#a08bea", "bare": "#d14d72", "held": "#d14d72",
}

// plot writes horizontal bars, a group for each load: records per second or,
// for latencies, the 99th percentile.
func (t *table) plot(path string) error {
	figure, text, title := result.rate, rateText, t.group.title+": records a second, more is better"
	if t.group.latencies {
		figure = func(r result) float64 { return r.P99.Seconds() }
		text = func(s float64) string {
			return time.Duration(s * float64(time.Second)).Round(time.Millisecond / 10).String()
		}
		title = t.group.title + ": 99th percentile of the delay, less is better"
	}
	longest := 0.0
	for _, rs := range t.results {
		m, _, _ := of(rs, figure)
		longest = max(longest, m)
	}
	var b strings.Builder
	y := titleHeight
	for _, l := range t.group.loads {
		fmt.Fprintf(&b, `<text x="0" y="%d" class="load">%s</text>`+"\n", y+barHeight-3, html.EscapeString(l.String()))
		y += barHeight + barGap
		for _, c := range t.consumers {
			m, _, _ := of(t.results[key(l, c)], figure)
			width := m / longest * (plotWidth - labelWidth - valueWidth)
			fmt.Fprintf(&b, `<text x="%d" y="%d" class="name">%s</text>`, labelWidth-8, y+barHeight-3, c.name)
			fmt.Fprintf(&b, `<rect x="%d" y="%d" width="%.1f" height="%d" rx="2" fill="%s"/>`, labelWidth, y, width, barHeight, hues[c.name])
			fmt.Fprintf(&b, `<text x="%.1f" y="%d">%s</text>`+"\n", labelWidth+width+6, y+barHeight-3, text(m))
			y += barHeight + barGap
		}
		y += groupGap
	}
	svg := fmt.Sprintf(`<svg xmlns="http://www.w3.org/2000/svg" width="%d" height="%d" viewBox="0 0 %[1]d %[2]d" role="img" aria-label="%s">
<style>
text { font: 11px system-ui, sans-serif; fill: #24292f }
.title { font-size: 13px; font-weight: 600 }
.load { font-weight: 600 }
.name { text-anchor: end }
@media (prefers-color-scheme: dark) { text { fill: #e6edf3 } }
</style>
<text x="0" y="16" class="title">%[3]s</text>
%[4]s</svg>
`, plotWidth, y, html.EscapeString(title), b.String())
	return os.WriteFile(path, []byte(svg), 0o666)
}
