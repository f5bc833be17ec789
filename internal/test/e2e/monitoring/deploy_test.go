// SPDX-FileCopyrightText: The Rollcall Authors
// SPDX-License-Identifier: Apache-2.0

package monitoring_test

import (
	"encoding/json"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
)

func read(t *testing.T, name string) string {
	t.Helper()
	text, err := os.ReadFile(root + name)
	if err != nil {
		t.Fatal(err)
	}
	return string(text)
}

// documented returns the metrics that docs/metrics.md has, with their labels. A test beside the
// command holds it together with the code.
func documented(t *testing.T) map[string][]string {
	t.Helper()
	metrics := make(map[string][]string)
	for _, row := range regexp.MustCompile("(?m)^\\| `(rollcall_[a-z_]+)` (?:\\| `rollcall\\.[^|]*)?\\| ([a-z]+) \\| (?:([^|]*) )?\\|").FindAllStringSubmatch(read(t, "docs/metrics.md"), -1) {
		name, labels := row[1], regexp.MustCompile("[a-z]+").FindAllString(row[3], -1)
		metrics[name] = labels
		if row[2] == "histogram" {
			metrics[name+"_bucket"], metrics[name+"_sum"], metrics[name+"_count"] = append(labels, "le"), labels, labels
		}
	}
	return metrics
}

// checkQuery checks that the metrics of a query exist, and that each has the labels that it is selected by.
func checkQuery(t *testing.T, metrics map[string][]string, where, query string) {
	t.Helper()
	found := regexp.MustCompile(`(rollcall_[a-z_]+)(\{[^}]*\})?`).FindAllStringSubmatch(query, -1)
	for _, use := range found {
		labels, ok := metrics[use[1]]
		if !ok {
			t.Errorf("%s uses %s, which docs/metrics.md lacks", where, use[1])
		}
		for _, matcher := range regexp.MustCompile(`([a-z]+)(?:=|!=)`).FindAllStringSubmatch(use[2], -1) {
			if label := matcher[1]; ok && label != "job" && label != "instance" && !slices.Contains(labels, label) {
				t.Errorf("%s selects %s by %s, and its labels are %v", where, use[1], label, labels)
			}
		}
	}
	if len(found) == 0 && !strings.Contains(query, "up{") && !strings.HasPrefix(query, "ALERTS{") {
		t.Errorf("%s asks for nothing of Rollcall's: %s", where, query)
	}
}

// The rules are valid, each fires on its fault and on nothing else, and each has a section in docs/operate.md.
func TestAlerts(t *testing.T) {
	t.Parallel()
	promtool(t, nil, "check", "rules", root+"deploy/alerts.yaml")
	promtool(t, nil, "test", "rules", root+"deploy/alerts_test.yaml")
	rules, tests, guide, metrics := read(t, "deploy/alerts.yaml"), read(t, "deploy/alerts_test.yaml"), read(t, "docs/operate.md"), documented(t)
	alerts := strings.Split(rules, "- alert: ")[1:]
	if len(alerts) < 10 {
		t.Fatalf("%d alerts", len(alerts))
	}
	for _, alert := range alerts {
		name, _, _ := strings.Cut(alert, "\n")
		expr, _, _ := strings.Cut(alert, "annotations:")
		checkQuery(t, metrics, name, expr)
		if !strings.Contains(guide, "\n### "+name+"\n") || !strings.Contains(alert, "docs/operate.md#"+strings.ToLower(name)+"\n") {
			t.Errorf("%s has no section of its name in docs/operate.md, or does not refer to it", name)
		}
		if !strings.Contains(tests, `{labels: '{alertname="`+name+`", alertstate="firing"}', value: 1}`) {
			t.Errorf("%s has no test", name)
		}
		for _, part := range []string{"summary: ", "description: ", "Run: ", "severity: "} {
			if !strings.Contains(alert, part) {
				t.Errorf("%s has no %q", name, part)
			}
		}
	}
	for _, section := range regexp.MustCompile(`(?m)^### (Rollcall[A-Z]\w+)$`).FindAllStringSubmatch(guide, -1) {
		if !strings.Contains(rules, "- alert: "+section[1]+"\n") {
			t.Errorf("docs/operate.md has a section on %s, and there is no such alert", section[1])
		}
	}
}

// dashboard is what the test looks at of an exported dashboard.
type dashboard struct {
	UID           string  `json:"uid"`
	SchemaVersion int     `json:"schemaVersion"`
	Panels        []panel `json:"panels"`
	Annotations   struct {
		List []target `json:"list"`
	} `json:"annotations"`
	Templating struct {
		List []struct {
			Name       string `json:"name"`
			Definition string `json:"definition"`
		} `json:"list"`
	} `json:"templating"`
}

type panel struct {
	ID      int      `json:"id"`
	Type    string   `json:"type"`
	Title   string   `json:"title"`
	Targets []target `json:"targets"`
	GridPos struct {
		H, W, X, Y int
	} `json:"gridPos"`
}

type target struct {
	Expr string `json:"expr"`
}

// The dashboard is valid, and all that it asks for exists.
func TestDashboard(t *testing.T) {
	t.Parallel()
	var d dashboard
	if err := json.Unmarshal([]byte(read(t, "deploy/grafana.json")), &d); err != nil {
		t.Fatal(err)
	}
	if d.UID == "" || d.SchemaVersion == 0 || len(d.Panels) < 20 {
		t.Fatalf("uid %q, schema %d, %d panels", d.UID, d.SchemaVersion, len(d.Panels))
	}
	metrics, ids, taken := documented(t), make(map[int]bool), make(map[[2]int]string)
	rules := "groups: [{name: dashboard, rules: [\n"
	for _, p := range d.Panels {
		if ids[p.ID] || p.ID == 0 || p.Title == "" {
			t.Errorf("panel %q has the id %d, which is not one of its own", p.Title, p.ID)
		}
		ids[p.ID] = true
		for x := p.GridPos.X; x < p.GridPos.X+p.GridPos.W; x++ {
			for y := p.GridPos.Y; y < p.GridPos.Y+p.GridPos.H; y++ {
				if other, ok := taken[[2]int{x, y}]; ok || x >= 24 {
					t.Fatalf("panel %q lies on %q or beyond the edge", p.Title, other)
				}
				taken[[2]int{x, y}] = p.Title
			}
		}
		if p.Type != "row" && len(p.Targets) == 0 {
			t.Errorf("panel %q asks for nothing", p.Title)
		}
		for _, q := range p.Targets {
			checkQuery(t, metrics, p.Title, q.Expr)
			quoted, _ := json.Marshal(strings.ReplaceAll(q.Expr, "$__rate_interval", "1m"))
			rules += "{record: x, expr: " + string(quoted) + "},\n"
		}
	}
	for _, a := range d.Annotations.List {
		if a.Expr != "" {
			checkQuery(t, metrics, "an annotation", a.Expr)
		}
	}
	for _, v := range d.Templating.List {
		if v.Definition != "" {
			checkQuery(t, metrics, v.Name, v.Definition)
		}
	}
	file := filepath.Join(t.TempDir(), "queries.yaml")
	if err := os.WriteFile(file, []byte(rules+"]}]\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	promtool(t, nil, "check", "rules", "--lint=none", file)
}
