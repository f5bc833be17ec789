// SPDX-FileCopyrightText: The Rollcall Authors
// SPDX-License-Identifier: Apache-2.0

package top

import (
	"charm.land/bubbles/v2/key"
	tea "charm.land/bubbletea/v2"
)

func on(names ...string) key.Binding { return key.NewBinding(key.WithKeys(names...)) }

var keys = struct {
	up, down, pageUp, pageDown, first, last, open, back, search, sort, reverse, drain, undrain, help, quit, interrupt key.Binding
}{
	up: on("up", "k"), down: on("down", "j"), pageUp: on("pgup", "ctrl+b"), pageDown: on("pgdown", "space", "ctrl+f"),
	first: on("home", "g"), last: on("end", "G"), open: on("enter"), back: on("esc", "backspace"),
	search: on("/"), sort: on("s"), reverse: on("r"), drain: on("d"), undrain: on("u"),
	help: on("?"), quit: on("q"), interrupt: on("ctrl+c"),
}

// help lists the keys.
func help(height int) []string {
	lines := []string{
		"  up, down, k, j  move",
		"  page up, down   a page up or down",
		"  home, end, g, G to the ends",
		"  enter           open a service",
		"  esc             end search, go back",
		"  /               search all but METADATA",
		"  s, r            sort by next, reverse",
		"  d, u            drain, undrain; asks",
		"  ?               this help",
		"  q, Ctrl-C       quit",
	}
	about := []string{
		"Live from etcd. Events: + joined, ~ changed, - went, and why. CHANGES/S is the",
		"mean of 10 seconds; changes in quick succession may count as one. Clients leave",
		"INVALID ones out: METADATA has the cause.", "",
	}
	if height >= len(lines)+len(about) {
		lines = append(about, lines...)
	}
	return lines[:min(len(lines), max(height, 0))]
}

// press takes a key in.
func (m *Model) press(msg tea.KeyPressMsg) tea.Cmd {
	m.message = ""
	switch {
	case key.Matches(msg, keys.interrupt):
		m.interrupted = true
		return tea.Quit
	case m.asking != nil:
		return m.answer(msg)
	case m.searching:
		return m.typed(msg)
	case m.helping:
		m.helping = false
		return nil
	}
	switch {
	case key.Matches(msg, keys.quit):
		m.quit = true
		return tea.Quit
	case key.Matches(msg, keys.help):
		m.helping = true
	case key.Matches(msg, keys.search):
		m.searching = true
		m.search.SetValue(m.view().searched())
		m.search.CursorEnd()
		m.search.Focus()
	case key.Matches(msg, keys.open):
		if name, ok := m.services.selection(); ok && m.opened == "" {
			m.open(name.Service.Service)
		}
	case key.Matches(msg, keys.back):
		if m.view().searched() != "" {
			m.view().find("")
		} else {
			m.opened = ""
			m.refill()
		}
	case key.Matches(msg, keys.drain):
		m.ask(true)
	case key.Matches(msg, keys.undrain):
		m.ask(false)
	default:
		m.move(msg)
	}
	return nil
}

// move takes a key in that is about the list alone.
func (m *Model) move(msg tea.KeyPressMsg) {
	const all = 1 << 30
	page := max(m.tableHeight()-1, 1)
	switch {
	case key.Matches(msg, keys.up):
		m.view().move(-1)
	case key.Matches(msg, keys.down):
		m.view().move(1)
	case key.Matches(msg, keys.pageUp):
		m.view().move(-page)
	case key.Matches(msg, keys.pageDown):
		m.view().move(page)
	case key.Matches(msg, keys.first):
		m.view().move(-all)
	case key.Matches(msg, keys.last):
		m.view().move(all)
	case key.Matches(msg, keys.sort):
		m.view().sortByNext()
	case key.Matches(msg, keys.reverse):
		m.view().reverse()
	}
}

// typed takes a key in while the user types what to search for. The list follows at once.
func (m *Model) typed(msg tea.Msg) tea.Cmd {
	if press, ok := msg.(tea.KeyPressMsg); ok {
		switch press.String() {
		case "esc":
			m.search.SetValue("")
			fallthrough
		case "enter":
			m.searching = false
			m.search.Blur()
			m.view().find(m.search.Value())
			return nil
		}
	}
	m.search, _ = m.search.Update(msg) // its command blinks the cursor, which would redraw for nothing
	m.view().find(m.search.Value())
	return nil
}

// ask asks before an endpoint is drained or undrained.
func (m *Model) ask(drain bool) {
	q := question{drain: drain}
	row, ok := m.instances.selection()
	switch {
	case m.opened == "":
		m.message = "open a service with enter to " + q.verb() + " one of its endpoints"
	case !ok:
		m.message = "there is no endpoint to " + q.verb()
	default:
		m.asking = &question{row.Service, row.ID, row.Addr, drain}
	}
}

// answer takes the answer to a question in: y alone is a yes.
func (m *Model) answer(msg tea.KeyPressMsg) tea.Cmd {
	q := *m.asking
	m.asking = nil
	if msg.String() != "y" && msg.String() != "Y" {
		m.message = "nothing was written"
		return nil
	}
	m.message = q.verb() + "ing ..."
	return func() tea.Msg { return marked{q, m.opts.Mark(q.service, q.id, q.drain)} }
}
