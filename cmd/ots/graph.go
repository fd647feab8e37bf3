package main

import (
	"cmp"
	"fmt"
	"maps"
	"slices"
	"strings"

	"github.com/spf13/cobra"

	"github.com/watermill-ots/watermill-ots/router"
)

func newGraph() *cobra.Command {
	return &cobra.Command{
		Use:   "graph FILE",
		Short: "Draw the pipelines of a file, in Mermaid",
		Long: `graph prints the pipelines of a file (docs/config.md) as a Mermaid flowchart: tables,
tunnels, batchers, where messages are published, and dead letters. GitHub and most editors
show Mermaid. It shows no keys and no endpoints.`,
		Example: "  ots graph pipelines.yaml\n  ots graph pipelines.yaml > pipelines.mmd",
		Args:    oneArgument("a pipelines FILE"),
		RunE: func(cmd *cobra.Command, args []string) error {
			cfg, err := router.Load(args[0])
			if err != nil {
				return usageError{fmt.Errorf("%w\nsee ots lint %s", err, args[0])}
			}
			_, err = fmt.Fprint(cmd.OutOrStdout(), mermaid(cfg))
			return err
		},
	}
}

// drawing is a Mermaid flowchart that is being written. Nodes with one text are one node.
type drawing struct {
	b   strings.Builder
	ids map[string]string // by shape and text
}

// mermaid returns the flowchart of a configuration.
func mermaid(cfg router.Config) string {
	d := drawing{ids: make(map[string]string)}
	d.b.WriteString("flowchart LR\n")
	for _, name := range slices.Sorted(maps.Keys(cfg.Tunnels)) {
		d.pipeline(cfg, name)
	}
	return d.b.String()
}

// node returns the id of a node, and writes it when it is new. The shape has %s for the text.
func (d *drawing) node(shape, text string) string {
	key := shape + text
	if id, ok := d.ids[key]; ok {
		return id
	}
	id := fmt.Sprintf("n%d", len(d.ids)+1)
	d.ids[key] = id
	fmt.Fprintf(&d.b, "  %s%s\n", id, fmt.Sprintf(shape, `"`+mermaidEscapes.Replace(text)+`"`))
	return id
}

// mermaidEscapes are what a quoted text of Mermaid must escape.
var mermaidEscapes = strings.NewReplacer(`"`, "#quot;", "#", "#35;", "<", "#lt;", ">", "#gt;", "\n", " ")

// Shapes of nodes.
const (
	tableShape    = "[(%s)]"
	pipelineShape = "[%s]"
	batcherShape  = "[/%s/]"
	topicShape    = "([%s])"
)

// edge writes an arrow with a label, which may be empty.
func (d *drawing) edge(from, arrow, label, to string) {
	if label != "" {
		label = `|"` + mermaidEscapes.Replace(label) + `"|`
	}
	fmt.Fprintf(&d.b, "  %s %s%s %s\n", from, arrow, label, to)
}

// pipeline draws one pipeline.
func (d *drawing) pipeline(cfg router.Config, name string) {
	t := cfg.Tunnels[name]
	table := d.node(tableShape, t.Instance+": "+t.TableName)
	title := name
	if t.Disabled {
		title += " (disabled)"
	}
	p := d.node(pipelineShape, title)
	d.edge(table, "-->", t.TunnelName, p)
	for _, b := range slices.Sorted(maps.Keys(t.Batchers)) {
		at := d.node(batcherShape, name+": "+b)
		d.edge(p, "-->", "", at)
		d.forward(at, t.Batchers[b].Forward)
	}
	d.forward(p, t.Forward)
	if dl := t.Failure.DeadLetter; dl != nil {
		to := ""
		if dl.Table != "" {
			to = d.node(tableShape, cmp.Or(dl.Instance, t.Instance)+": "+dl.Table)
		} else {
			to = d.node(topicShape, cmp.Or(dl.Publisher, router.DefaultPublisher)+": "+dl.Topic)
		}
		d.edge(p, "-.->", "dead letters", to)
	}
}

// forward draws where messages are published.
func (d *drawing) forward(from string, to *router.Target) {
	if to != nil {
		d.edge(from, "-->", "", d.node(topicShape, cmp.Or(to.Publisher, router.DefaultPublisher)+": "+to.Topic))
	}
}
