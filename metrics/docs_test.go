package metrics_test

import (
	"encoding/json"
	"os"
	"os/exec"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/aliyun/aliyun-tablestore-go-sdk/tunnel"
	dto "github.com/prometheus/client_model/go"
	"go.yaml.in/yaml/v3"

	"github.com/watermill-ots/watermill-ots/emulator"
	"github.com/watermill-ots/watermill-ots/metrics"
)

// everything gathers the metrics of a run in which each metric has a series.
func everything(t *testing.T) map[string]*dto.MetricFamily {
	t.Helper()
	w := watch(t, metrics.Config{RPOInterval: 1, Channels: true})
	w.bed.CreateTunnel(tunnel.TunnelTypeStream)
	w.bed.Emulator.Inject(emulator.Fault{Operation: "tunnel/readrecords", Code: "OTSServerBusy"})
	w.bed.PutAll(3, 1)
	w.route()
	w.eventually("messages_settled_total", 3, "outcome=acked")
	w.eventually("failed_calls_total", 1, "operation=readrecords")
	w.eventually("service_records_total", 3, "point=committed")
	w.eventually("tunnel_channels", 1, "state=held")
	return w.gather()
}

// labelsOf returns the names of a metric's labels; for a histogram also le.
func labelsOf(f *dto.MetricFamily) (names []string) {
	for _, l := range f.Metric[0].Label {
		names = append(names, l.GetName())
	}
	if f.GetType() == dto.MetricType_HISTOGRAM {
		names = append(names, "le")
	}
	return names
}

var (
	selector = regexp.MustCompile(metrics.Namespace + `_([a-z_]+)(?:\{([^}]*)\})?`)
	matcher  = regexp.MustCompile(`([a-z_]+)\s*(?:=~|!~|!=|=)\s*"`)
	grouping = regexp.MustCompile(`(?:by|without|ignoring|on)\s*\(([^)]*)\)`)
	legend   = regexp.MustCompile(`\{\{\s*([a-z_]+)\s*\}\}`)
)

// targetLabels are the labels that Prometheus adds to every series of a process.
var targetLabels = []string{"instance", "job"}

// check checks an expression: its metrics exist and have the labels that it names. It
// returns the labels of its metrics.
func check(t *testing.T, families map[string]*dto.MetricFamily, where, expr string) (labels []string) {
	t.Helper()
	selectors := selector.FindAllStringSubmatch(expr, -1)
	if len(selectors) == 0 {
		t.Errorf("%s: no metric in %s", where, expr)
	}
	for _, s := range selectors {
		name := s[1]
		if base := strings.TrimSuffix(name, "_bucket"); base != name && families[base].GetType() == dto.MetricType_HISTOGRAM {
			name = base
		}
		f := families[name]
		if f == nil {
			t.Errorf("%s: there is no metric %s, in %s", where, name, expr)
			continue
		}
		has := labelsOf(f)
		labels = append(labels, has...)
		for _, m := range matcher.FindAllStringSubmatch(s[2], -1) {
			if !slices.Contains(has, m[1]) && !slices.Contains(targetLabels, m[1]) {
				t.Errorf("%s: %s has no label %s, in %s", where, name, m[1], expr)
			}
		}
	}
	for _, g := range grouping.FindAllStringSubmatch(expr, -1) {
		for _, l := range strings.Split(g[1], ",") {
			if l = strings.TrimSpace(l); !slices.Contains(labels, l) && !slices.Contains(targetLabels, l) {
				t.Errorf("%s: no metric has the label %s, in %s", where, l, expr)
			}
		}
	}
	return append(labels, targetLabels...)
}

func read(t *testing.T, path string) []byte {
	t.Helper()
	content, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	return content
}

func TestDocs(t *testing.T) {
	families := everything(t)

	t.Run("dashboard_names_only_existing_metrics_and_labels", func(t *testing.T) {
		var dashboard struct {
			Templating struct {
				List []struct{ Name, Type, Definition string }
			}
			Panels []struct {
				Title   string
				Type    string
				Targets []struct{ Expr, LegendFormat string }
			}
		}
		if err := json.Unmarshal(read(t, "../docs/grafana/dashboard.json"), &dashboard); err != nil {
			t.Fatal(err)
		}
		used := make(map[string]bool)
		exprs := 0
		for _, p := range dashboard.Panels {
			if p.Type != "row" && len(p.Targets) == 0 {
				t.Errorf("panel %s shows nothing", p.Title)
			}
			for _, target := range p.Targets {
				exprs++
				has := check(t, families, p.Title, target.Expr)
				for _, l := range legend.FindAllStringSubmatch(target.LegendFormat, -1) {
					if !slices.Contains(has, l[1]) {
						t.Errorf("%s: the legend names %s, which is not a label, for %s", p.Title, l[1], target.Expr)
					}
				}
				for _, s := range selector.FindAllStringSubmatch(target.Expr, -1) {
					used[strings.TrimSuffix(s[1], "_bucket")] = true
				}
			}
		}
		for _, v := range dashboard.Templating.List {
			if v.Type == "query" {
				check(t, families, "variable "+v.Name, v.Definition)
			}
		}
		if exprs < 30 {
			t.Errorf("only %d expressions were found", exprs)
		}
		for name := range families {
			if !used[name] && !slices.Contains([]string{"connects_total", "service_records_total", "rpo_requests_total", "stream_retention_seconds"}, name) {
				t.Errorf("no panel shows %s", name)
			}
		}
	})

	t.Run("alert_rules_name_only_existing_metrics_and_labels_and_are_explained", func(t *testing.T) {
		var file struct {
			Groups []struct {
				Rules []struct {
					Alert, Expr string
					Annotations map[string]string
				}
			}
		}
		if err := yaml.Unmarshal(read(t, "../docs/grafana/alerts.yml"), &file); err != nil {
			t.Fatal(err)
		}
		text := string(read(t, "../docs/metrics.md"))
		for _, rule := range file.Groups[0].Rules {
			check(t, families, rule.Alert, rule.Expr)
			if rule.Annotations["summary"] == "" || rule.Annotations["description"] == "" {
				t.Errorf("%s has no summary or no description", rule.Alert)
			}
			if !strings.Contains(text, "| "+rule.Alert+" |") {
				t.Errorf("docs/metrics.md does not say what to do at %s", rule.Alert)
			}
		}
		if len(file.Groups[0].Rules) < 10 {
			t.Errorf("only %d rules were found", len(file.Groups[0].Rules))
		}
	})

	t.Run("alerts_fire_when_they_should", func(t *testing.T) {
		promtool, err := exec.LookPath("promtool")
		if err != nil {
			t.Skip("promtool is not installed (Debian: apt-get install prometheus)")
		}
		out, err := exec.Command(promtool, "test", "rules", "../docs/grafana/alerts_test.yml").CombinedOutput()
		if err != nil {
			t.Errorf("%v\n%s", err, out)
		}
	})

	t.Run("metrics_md_lists_each_metric_with_its_kind_and_labels_and_no_other", func(t *testing.T) {
		listed := make(map[string]bool)
		name := regexp.MustCompile("`([a-z_]+)`")
		for line := range strings.Lines(string(read(t, "../docs/metrics.md"))) {
			cells := strings.Split(line, "|")
			if len(cells) != 6 || !slices.Contains([]string{"counter", "gauge", "histogram"}, strings.TrimSpace(cells[2])) {
				continue
			}
			for _, m := range name.FindAllStringSubmatch(cells[1], -1) {
				f := families[m[1]]
				if f == nil {
					t.Errorf("%s does not exist", m[1])
					continue
				}
				listed[m[1]] = true
				if kind := strings.ToLower(f.GetType().String()); kind != strings.TrimSpace(cells[2]) {
					t.Errorf("%s is a %s", m[1], kind)
				}
				var labels []string
				for _, l := range labelsOf(f) {
					if !slices.Contains([]string{"ots_instance", "table", "tunnel", "pipeline", "batcher", "le"}, l) {
						labels = append(labels, l)
					}
				}
				var documented []string
				for _, l := range name.FindAllStringSubmatch(cells[3], -1) {
					documented = append(documented, l[1])
				}
				slices.Sort(documented)
				if !slices.Equal(labels, documented) {
					t.Errorf("%s has the labels %v, not %v", m[1], labels, documented)
				}
			}
		}
		for name := range families {
			if !listed[name] {
				t.Errorf("%s is not listed", name)
			}
		}
	})
}
