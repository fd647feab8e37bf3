package docs

import (
	"bytes"
	"encoding/xml"
	"flag"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"testing"
	"text/template"
)

var update = flag.Bool("update", false, "write the pictures of images/*.svg.tmpl, and the plot of the README")

// palette is the colours of a picture. A picture is an <img>, which knows nothing of the
// page around it, so that there are two files of each: on light and on dark ground.
type palette struct {
	Text, Faint, Line, Box, Ours, OursText, Good, Bad string
}

var palettes = map[string]palette{
	"light": {Text: "#1f2328", Faint: "#59636e", Line: "#818b98", Box: "#f6f8fa", Ours: "#ddf4ff", OursText: "#0550ae", Good: "#1a7f37", Bad: "#cf222e"},
	"dark":  {Text: "#f0f6fc", Faint: "#9198a1", Line: "#656c76", Box: "#151b23", Ours: "#0c2d6b", OursText: "#a5d6ff", Good: "#3fb950", Bad: "#f85149"},
}

// TestPictures_are_those_of_their_templates writes them with -update.
func TestPictures_are_those_of_their_templates(t *testing.T) {
	templates, err := filepath.Glob("images/*.svg.tmpl")
	if err != nil || len(templates) == 0 {
		t.Fatalf("there are no templates: %v", err)
	}
	for _, path := range templates {
		picture, err := template.ParseFiles(path)
		if err != nil {
			t.Fatal(err)
		}
		for ground, colours := range palettes {
			var svg bytes.Buffer
			if err := picture.Execute(&svg, colours); err != nil {
				t.Fatal(err)
			}
			keep(t, strings.TrimSuffix(path, ".svg.tmpl")+"-"+ground+".svg", svg.Bytes())
		}
	}
}

// keep compares a picture with its file, or writes it with -update.
func keep(t *testing.T, path string, svg []byte) {
	t.Helper()
	for d := xml.NewDecoder(bytes.NewReader(svg)); ; {
		if _, err := d.Token(); err == io.EOF {
			break
		} else if err != nil {
			t.Fatalf("%s is not XML: %v", path, err)
		}
	}
	if *update {
		if err := os.WriteFile(path, svg, 0o666); err != nil {
			t.Fatal(err)
		}
	}
	if there, err := os.ReadFile(path); err != nil || !bytes.Equal(there, svg) {
		t.Errorf("%s is out of date (%v): go test ./docs -run Pictures -update", path, err)
	}
}

// consumers are those of the README's plot, by their names in performance/stream.md.
var consumers = []struct{ name, label, fill string }{
	{"sdk", "official SDK alone, a callback for each page", "Line"},
	{"glue", "hand-written glue: SDK → Watermill Router", "Line"},
	{"json", "this library → Watermill Router", "Ours"},
	{"pipeline", "this library, a pipeline", "Ours"},
}

// TestPictures_speed_has_the_figures_of_the_benchmark: the README's figures are in one
// place, performance/stream.md, which the benchmark writes.
func TestPictures_speed_has_the_figures_of_the_benchmark(t *testing.T) {
	const load = "16 ch"
	rates := make(map[string]float64) // thousands of records a second
	row := regexp.MustCompile(`(?m)^\| ` + load + ` \| (\w+) \| ([\d.]+) k \|`)
	for _, m := range row.FindAllStringSubmatch(read(t, "performance/stream.md"), -1) {
		rate, err := strconv.ParseFloat(m[2], 64)
		if err != nil {
			t.Fatal(err)
		}
		rates[m[1]] = rate
	}
	longest := 0.0
	for _, c := range consumers {
		if rates[c.name] == 0 {
			t.Fatalf("performance/stream.md has no figure of %s with %s", c.name, load)
		}
		longest = max(longest, rates[c.name])
	}
	for ground, colours := range palettes {
		var b strings.Builder
		fmt.Fprintf(&b, `<svg xmlns="http://www.w3.org/2000/svg" width="784" height="150" viewBox="-16 0 784 150" role="img" aria-label="Records a second of four consumers">
<style>
text { font: 13px system-ui, -apple-system, sans-serif; fill: %s }
.title { font-weight: 600 }
.name { text-anchor: end }
</style>
<text x="0" y="16" class="title">Records a second: a stream of 16 channels, full pages, JSON; client and server on the same two cores</text>
`, colours.Text)
		for i, c := range consumers {
			y, width := 34+28*i, rates[c.name]/longest*400
			fill := map[string]string{"Line": colours.Line, "Ours": "#2f7ed8"}[c.fill]
			fmt.Fprintf(&b, `<text x="282" y="%d" class="name">%s</text><rect x="292" y="%d" width="%.1f" height="18" rx="3" fill="%s"/><text x="%.1f" y="%d">%.0f k</text>`+"\n",
				y+14, c.label, y, width, fill, 300+width, y+14, rates[c.name])
		}
		b.WriteString("</svg>\n")
		keep(t, "images/speed-"+ground+".svg", []byte(b.String()))
	}
}
