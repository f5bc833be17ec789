// SPDX-FileCopyrightText: The Rollcall Authors
// SPDX-License-Identifier: Apache-2.0

package console

import (
	"bytes"
	"encoding/json"
	"html/template"
	"slices"
	"strings"
	"time"
	"unicode/utf8"

	"github.com/rollcall-grpc/rollcall"
	"github.com/rollcall-grpc/rollcall/internal/inventory"
	"github.com/rollcall-grpc/rollcall/internal/printable"
)

// serviceSummary is what is said above the table of instances.
type serviceSummary struct {
	Service, Filter          string
	Known                    bool
	All, Serving, Draining   int
	LeftOut, Retained        int
	AllDrain                 bool // clients call them nevertheless
	Matching                 int
	Revision                 int64
	First, Last, Page, Pages int
	TTLProblem               string
}

// instanceRow is a row and what its cells say beyond it.
type instanceRow struct {
	inventory.Instance
	Writes bool
	Row    string   // its id
	Others []string // the rest of the metadata
	Gone   string   // why it has gone; "": it is there
}

// frame renders what is known now.
func (v *serviceView) frame(now time.Time) frame {
	v.mu.Lock()
	defer v.mu.Unlock()
	s := serviceSummary{Service: v.service, Filter: v.filter, Known: v.snap != nil, Page: v.page}
	var all []inventory.Instance
	if v.snap != nil {
		s.Revision = v.snap.Revision()
		all = inventory.Instances(v.snap, inventory.Under(v.service))
	}
	s.count(all)
	shown := slices.DeleteFunc(all, func(i inventory.Instance) bool { return !v.matches(i) })
	s.Matching = len(shown)
	s.Pages = max(1, (len(shown)+instancesPerPage-1)/instancesPerPage)
	from := min((v.page-1)*instancesPerPage, len(shown))
	shown = shown[from:min(from+instancesPerPage, len(shown))]
	s.First, s.Last = from+1, from+len(shown)
	v.recent.explain()
	v.leases = inventory.Leases(shown)
	inventory.SetTTLs(shown, v.ttls)
	if v.ttlErr != nil {
		s.TTLProblem = printable.Error(v.ttlErr)
	}
	clients := "" // whom they are is not told to those who may not read the service
	if mayRead(v.snap) {
		clients = v.sent.html(v.clients, v.service, now)
	}
	return frame{
		pieces: []piece{
			{"banner", v.banner.of(v.snap, v.err, now)},
			{"summary", fragment("service-summary", s)},
			{"news", v.recent.news(now)},
			{"pager", fragment("service-pager", s)},
			{"recent", v.recent.html()},
			{"config", v.configHTML()},
			{"clients", clients},
		},
		rows: v.rows(shown, now),
	}
}

func (s *serviceSummary) count(all []inventory.Instance) {
	s.All = len(all)
	for _, i := range all {
		switch i.Status {
		case inventory.Serving:
			s.Serving++
		case inventory.Draining:
			s.Draining++
		case inventory.Retained:
			s.Retained++
		default:
			s.LeftOut++
		}
	}
	s.AllDrain = s.Draining > 0 && s.Serving == 0
}

// rows renders instances, and those that have gone a moment ago in their places.
func (v *serviceView) rows(shown []inventory.Instance, now time.Time) []row {
	rendered := make(map[string]cells, len(shown))
	epoch := 0
	if v.snap != nil {
		epoch = v.snap.Epoch()
	}
	rows := make([]row, 0, len(shown)+len(v.gone))
	there := make(map[string]bool, len(shown))
	keys := make(map[string]string, len(shown)) // by the id of the row
	add := func(i inventory.Instance, gone string) {
		r := row{id: rowID(i.Key), class: string(i.Status)}
		keys[r.id] = i.Key
		c, ok := v.cells[i.Key]
		if gone != "" {
			r.class = "gone"
		}
		if !ok || gone != "" || c.epoch != epoch || c.modified != i.ModRevision || c.status != i.Status {
			c = cells{epoch, i.ModRevision, i.Status, fragment("instance-row", instanceRow{i, v.writes, r.id, othersOf(i), gone})}
		}
		if gone == "" {
			rendered[i.Key] = c
		}
		r.html = c.html
		r.tail = []cell{{"a" + r.id, inventory.Age(i.Started, now)}, {"t" + r.id, template.HTMLEscapeString(ttlText(i))}}
		rows = append(rows, r)
	}
	for _, i := range shown {
		there[i.Key] = true
		add(i, "")
	}
	for _, g := range slices.Backward(v.gone) {
		i := inventory.Of(g.inst, inventory.Under(v.service))
		if there[i.Key] || !v.matches(i) {
			continue
		}
		there[i.Key] = true
		add(i, g.text())
	}
	v.cells = rendered
	slices.SortFunc(rows, func(a, b row) int { return strings.Compare(keys[a.id], keys[b.id]) })
	return rows
}

// maxOthers is how many characters of the rest of the metadata a row shows.
const maxOthers = 1000

// othersOf returns the fields that have no cell of their own, as far as a row has room for them.
func othersOf(i inventory.Instance) (texts []string) {
	left := maxOthers
	fields := i.OtherFields()
	for n, field := range fields {
		text := printable.Shorten(field.String(), maxField)
		if left -= utf8.RuneCountInString(text); left < 0 {
			return append(texts, "… and "+count(len(fields)-n)+" more")
		}
		texts = append(texts, text)
	}
	return texts
}

// text is why an instance has gone, as far as is known.
func (g *departed) text() string {
	if g.why == "" {
		return "gone"
	}
	return g.why.Explain()
}

func ttlText(i inventory.Instance) string {
	if i.Lease == "" {
		return "no lease"
	}
	if text := i.TTLText(); text != "" {
		return text
	}
	return "…"
}

// configData is a service config as the page shows it.
type configData struct {
	Service  string
	Writes   bool
	JSON     string // "": there is none
	Modified int64
	Problem  string // why clients ignore it, or why it is not known
}

func (v *serviceView) configHTML() string {
	d := configData{Service: v.service, Writes: v.writes}
	switch {
	case v.configErr != nil:
		d.Problem = "not known: " + printable.Error(v.configErr)
	case v.config != nil && v.config.JSON != nil:
		d.JSON, d.Modified = indented(v.config.JSON), v.config.ModRevision
		if err := v.check(string(v.config.JSON)); err != nil {
			d.Problem = "invalid, clients ignore it: " + inventory.Reason(err)
		}
	}
	return fragment("service-config", d)
}

// indented returns JSON with a line a field, other text as it is.
func indented(text json.RawMessage) string {
	var b bytes.Buffer
	if json.Indent(&b, bytes.TrimSpace(text), "", "  ") != nil {
		return string(text)
	}
	return b.String()
}

const (
	maxRecent = 12
	// newsPause is the least time between announcements: a screen reader reads each out.
	newsPause = 3 * time.Second
)

// recent is what has happened to a service while the page was open.
type recent struct {
	lines     []recentLine
	came      int
	went      int
	changed   int
	announced string
	at        time.Time
}

type recentLine struct {
	Time, TimeTag string
	ID            string
	What          string
	Class         string
	gone          *departed // why it has gone is not known yet
}

// add notes a change; gone is what it took away.
func (r *recent) add(change rollcall.Change, gone *departed, now time.Time) {
	line := recentLine{Time: clock(now), TimeTag: now.UTC().Format(time.RFC3339), gone: gone}
	inst := change.New
	switch {
	case change.Old == nil:
		line.What, line.Class = "joined", "serving"
		r.came++
	case change.New == nil:
		line.What, line.Class = "went", "gone"
		inst = change.Old
		r.went++
	default:
		line.What, line.Class = whatChanged(change), inst.Attributes().Status()
		r.changed++
	}
	line.ID = inst.ID()
	r.lines = append([]recentLine{line}, r.lines[:min(len(r.lines), maxRecent-1)]...)
}

// explain says why instances have gone, which is known a moment after they have.
func (r *recent) explain() {
	for i := range r.lines {
		if line := &r.lines[i]; line.gone != nil && line.gone.why != "" {
			line.What, line.gone = line.gone.text(), nil
		}
	}
}

func whatChanged(change rollcall.Change) string {
	switch was, is := change.Old.Draining(), change.New.Draining(); {
	case is && !was:
		return "is draining"
	case was && !is:
		return "takes calls again"
	}
	var fields []string
	for _, f := range change.Fields() {
		fields = append(fields, f.Field)
	}
	if len(fields) == 0 {
		return "was written again"
	}
	return "changed: " + strings.Join(fields, ", ")
}

// news returns the latest announcement.
func (r *recent) news(now time.Time) string {
	if r.came+r.went+r.changed > 0 && now.Sub(r.at) >= newsPause {
		r.announced = fragment("service-news", struct {
			Time                string
			Came, Went, Changed int
		}{clock(now), r.came, r.went, r.changed})
		r.came, r.went, r.changed, r.at = 0, 0, 0, now
	}
	return r.announced
}

func (r *recent) html() string { return fragment("service-recent", r.lines) }
