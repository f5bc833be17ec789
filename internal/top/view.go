// SPDX-FileCopyrightText: The Rollcall Authors
// SPDX-License-Identifier: Apache-2.0

package top

import (
	"fmt"
	"strings"
	"time"

	tea "charm.land/bubbletea/v2"
	"github.com/charmbracelet/x/ansi"

	"github.com/rollcall-grpc/rollcall"
	"github.com/rollcall-grpc/rollcall/internal/inventory"
	"github.com/rollcall-grpc/rollcall/internal/plural"
	"github.com/rollcall-grpc/rollcall/internal/printable"
)

// View is the whole screen.
func (m *Model) View() tea.View {
	view := tea.NewView(strings.Join(m.lines(), "\n"))
	view.AltScreen = true
	return view
}

// lines are the lines of the screen, each at most as wide as it.
func (m *Model) lines() []string {
	style := styler{m.opts.Color}
	var lines []string
	if m.helping {
		lines = help(m.height - 1)
	} else {
		lines = m.content(style)
	}
	for len(lines) < m.height-1 {
		lines = append(lines, "")
	}
	lines = append(lines[:max(m.height-1, 0)], m.bottom(style))
	for i, line := range lines {
		lines[i] = ansi.Truncate(line, m.width, "…")
	}
	return lines
}

// content is the list that is shown, and the last events.
func (m *Model) content(style styler) []string {
	lines := append(m.heading(style), m.view().render(m.width, m.tableHeight(), style)...)
	if shown, _ := m.view().counts(); shown == 0 {
		lines = append(lines, "  "+m.nothing())
	}
	n := m.eventHeight()
	if n == 0 {
		return lines
	}
	for len(lines) < m.height-1-n {
		lines = append(lines, "")
	}
	return append(lines, m.eventLines(n, style)...)
}

// eventHeight is how many lines the events take, with their title; on a low screen, none.
func (m *Model) eventHeight() int {
	if m.height < 10 {
		return 0
	}
	return max(m.height/4, 3)
}

func (m *Model) tableHeight() int {
	return max(m.height-len(m.heading(styler{}))-1-m.eventHeight(), 2)
}

// heading is what there is, and a banner while it may be out of date.
func (m *Model) heading(style styler) []string {
	if m.snap == nil {
		return []string{"waiting for etcd"}
	}
	shown, all := m.view().counts()
	what := fmt.Sprintf("%s, %s", plural.Count(len(m.services.all), "service", "services"), plural.Count(len(m.rows), "instance", "instances"))
	if m.opened != "" {
		what = fmt.Sprintf("%s: %s", m.opened, plural.Count(all, "instance", "instances"))
	} else if m.opts.Prefix != "" {
		what = fmt.Sprintf("%q: %s", m.opts.Prefix, what)
	}
	rate := m.rates.perSecond(m.opened, m.now)
	lines := []string{style.bold(edges(printable.Escape(what), fmt.Sprintf("%.1f changes/s  %s", rate, m.now.Format(time.TimeOnly)), m.width))}
	list := "sorted " + m.view().order()
	if filter := m.view().searched(); filter != "" {
		list = fmt.Sprintf("%d of %d match %q, ", shown, all, filter) + list
	}
	lines = append(lines, edges(list, fmt.Sprintf("revision %d", m.snap.Revision()), m.width))
	if stale := m.snap.Staleness(); stale != nil {
		lines = append(lines, style.reverse(pad(fmt.Sprintf("! STALE since %s (%s): what is shown is of that time", stale.Since.In(m.now.Location()).Format(time.TimeOnly),
			inventory.Duration(m.now.Sub(stale.Since))), m.width)),
			style.reverse(pad("  "+printable.Escape(printable.Error(stale.Cause)), m.width)))
	}
	return lines
}

// nothing is why the list is empty.
func (m *Model) nothing() string {
	switch {
	case m.view().searched() != "":
		return "nothing matches; esc ends the search"
	case m.opened != "":
		return "the service has no instance now; esc goes back"
	case m.opts.Prefix != "":
		return printable.Escape(fmt.Sprintf("no service starts with %q now", m.opts.Prefix))
	}
	return "no services now"
}

// eventLines are a title and the last events, the newest last.
func (m *Model) eventLines(n int, style styler) []string {
	lines := make([]string, n)
	for i, at := len(m.events)-1, n-1; i >= 0 && at > 0; i-- {
		if e := m.events[i]; m.opened == "" || e.Instance.Service == m.opened {
			lines[at] = m.eventLine(e)
			at--
		}
	}
	for len(lines) > 1 && lines[1] == "" { // the empty ones go below
		lines = append(lines[:1], lines[2:]...)
	}
	lines[0] = style.bold("EVENTS")
	return append(lines, make([]string, n-len(lines))...)
}

func (m *Model) eventLine(e shownEvent) string {
	name := e.Instance.ID
	if m.opened == "" {
		name = rollcall.Key(e.Instance.Service, e.Instance.ID)
	}
	return fmt.Sprintf("%s %s %s  %s  %s", e.at.Format(time.TimeOnly), e.Sign, printable.Escape(name), printable.Escape(e.Instance.Addr), printable.Escape(note(e.Event)))
}

// note is what an event means.
func note(e inventory.Event) string {
	switch {
	case e.Cause != "":
		return "(" + e.Cause + ")"
	case e.Reason != "":
		return e.Reason.Explain()
	case e.Change.Old == nil:
		return "joined, " + string(e.Instance.Status)
	}
	return inventory.ChangeText(e.Change)
}

// bottom is the question, the search, the last message, or the most useful keys.
func (m *Model) bottom(style styler) string {
	switch {
	case m.asking != nil:
		question := fmt.Sprintf("%s %s (%s)?", m.asking.verb(), rollcall.Key(m.asking.service, m.asking.id), m.asking.addr)
		return style.reverse(ansi.Truncate(printable.Escape(question), max(m.width-len(" y/n "), 0), "…") + " y/n ")
	case m.searching:
		return m.search.View()
	case m.message != "":
		return style.bold(printable.Escape(m.message))
	case m.helping:
		return "any key: back"
	case m.opened != "":
		return "? help  q quit  esc back  / search  s sort  d drain  u undrain"
	}
	return "? help  q quit  enter open  / search  s sort  r reverse"
}

// edges puts text at both ends of a line; the right one gives way.
func edges(left, right string, width int) string {
	room := width - ansi.StringWidth(left) - len(columnGap)
	if room < ansi.StringWidth(right) {
		return pad(left, width)
	}
	return left + strings.Repeat(" ", width-ansi.StringWidth(left)-ansi.StringWidth(right)) + right
}
