// SPDX-FileCopyrightText: The Rollcall Authors
// SPDX-License-Identifier: Apache-2.0

package console

import (
	"embed"
	"errors"
	"fmt"
	"html/template"
	"net/http"
	"net/url"
	"strconv"
	"strings"
	"time"

	"github.com/rollcall-grpc/rollcall/internal/cluster"
	"github.com/rollcall-grpc/rollcall/internal/plural"
	"github.com/rollcall-grpc/rollcall/internal/printable"
)

// firstFrame is how long a page waits for what it is to show.
const firstFrame = 5 * time.Second

// maxField is how many characters of a value a page shows: one in etcd may have a million.
const maxField = 200

//go:embed templates/*.html
var templateFiles embed.FS

var templates = template.Must(template.New("").Funcs(template.FuncMap{
	"raw":      func(s string) template.HTML { return template.HTML(s) }, // of what fragment has returned
	"piece":    func(pieces map[string]string, id string) template.HTML { return template.HTML(pieces[id]) },
	"count":    count,
	"percent":  func(part float64) string { return strconv.FormatFloat(100*part, 'f', 1, 64) + " %" },
	"plural":   func(n int, one, many string) string { return count(n) + " " + plural.Form(n, one, many) },
	"cut":      func(s string) string { return printable.Shorten(s, maxField) },
	"add":      func(a, b int) int { return a + b },
	"link":     link,
	"bytes":    cluster.Size,
	"duration": func(d time.Duration) string { return d.Round(10 * time.Microsecond).String() },
}).ParseFS(templateFiles, "templates/*.html"))

// count writes a number with a comma between thousands.
func count(n int) string {
	text := strconv.Itoa(n)
	for i := len(text) - 3; i > 0; i -= 3 {
		text = text[:i] + "," + text[i:]
	}
	return text
}

// link returns a path with a query of names and values; empty values are left out.
func link(path string, pairs ...string) template.URL {
	query := make(url.Values)
	for i := 0; i+1 < len(pairs); i += 2 {
		if pairs[i+1] != "" {
			query.Set(pairs[i], pairs[i+1])
		}
	}
	if len(query) == 0 {
		return template.URL(path)
	}
	return template.URL(path + "?" + query.Encode())
}

// fragment renders a template. What is unprintable was in etcd: it is escaped, wherever it is.
func fragment(name string, data any) string {
	var b strings.Builder
	if err := templates.ExecuteTemplate(&b, name, data); err != nil {
		return template.HTMLEscapeString(fmt.Sprintf("template %s: %v", name, err))
	}
	return printable.EscapeLines(strings.TrimSpace(b.String()))
}

// page is a kind of page.
type page struct {
	path     string
	title    string
	template string
	// open returns the page that a query asks for.
	open func(w *world, query url.Values) (opened, error)
}

// opened is one page.
type opened struct {
	key     string // what tells it from others of its user
	view    view
	title   string // default: the kind's
	query   url.Values
	content any
}

func (p page) livePath() string { return "/live" + strings.TrimSuffix(p.path, "{$}") }

// pageData is what the layout shows.
type pageData struct {
	Title   string
	Path    string // of the kind of page, for the menu
	User    string // who is logged in
	CSRF    string // "": no form on the page needs it
	Clients bool   // the menu has clients
	Writes  bool
	Live    string            // the address of the stream; "": there is none
	Pieces  map[string]string // HTML by the id of the element
	Rows    string            // HTML
	Content any
}

var errNotFound = errors.New("there is no such page")

// showPage answers with a page as it is now.
func (c *Console) showPage(w http.ResponseWriter, r *http.Request, v *visitor, p page) {
	o, err := p.open(v.world, r.URL.Query())
	if err != nil {
		c.fail(w, r, http.StatusBadRequest, "Not understood", printable.Error(err))
		return
	}
	live, release, err := v.world.open(o.key, o.view, false)
	if err != nil {
		w.Header().Set("Retry-After", "30")
		c.fail(w, r, http.StatusServiceUnavailable, "Busy", err.Error())
		return
	}
	defer release()
	pieces, rows, version, changed := live.page()
	if version == 0 {
		select {
		case <-changed:
		case <-time.After(firstFrame):
		case <-r.Context().Done():
			return
		}
		pieces, rows, version, _ = live.page()
	}
	stream := make(url.Values)
	for name, values := range o.query {
		stream[name] = values
	}
	stream.Set("since", strconv.FormatUint(version, 10))
	data := pageData{Title: o.title, Pieces: pieces, Rows: rows, Content: o.content, Live: p.livePath() + "?" + stream.Encode()}
	if data.Title == "" {
		data.Title = p.title
	}
	data.Path = strings.TrimSuffix(p.path, "{$}")
	c.write(w, r, http.StatusOK, data, p.template)
}

// followPage sends a page's changes.
func (c *Console) followPage(w http.ResponseWriter, r *http.Request, v *visitor, p page) {
	o, err := p.open(v.world, r.URL.Query())
	if err != nil {
		http.Error(w, printable.Error(err), http.StatusBadRequest)
		return
	}
	live, release, err := v.world.open(o.key, o.view, true)
	if err != nil {
		http.Error(w, err.Error(), http.StatusServiceUnavailable)
		return
	}
	defer release()
	c.stream(w, r, live, v.ended)
}

// write answers with a page in the layout.
func (c *Console) write(w http.ResponseWriter, r *http.Request, status int, data pageData, body string) {
	if c.opts.Access.logsIn() && data.CSRF == "" {
		if v := c.visitor(r); v != nil && v.ended != nil {
			data.User, data.CSRF = v.name, c.sessions.csrf(cookieOf(r))
		}
	}
	data.Clients, data.Writes = c.opts.Clients != nil, c.opts.Writes
	html := fragment("head", data) + fragment(body, data) + fragment("foot", data)
	w.Header().Set("Content-Type", "text/html; charset=utf-8")
	writeZipped(w, r, status, []byte(html), func() []byte { return zip([]byte(html)) })
}

// fail responds with a page that explains what was not possible.
func (c *Console) fail(w http.ResponseWriter, r *http.Request, status int, title, problem string) {
	c.write(w, r, status, pageData{Title: title, Content: problem}, "problem")
}
