// SPDX-FileCopyrightText: The Rollcall Authors
// SPDX-License-Identifier: Apache-2.0

package top

import (
	"fmt"
	"slices"
	"strings"
	"time"

	"charm.land/bubbles/v2/textinput"
	tea "charm.land/bubbletea/v2"

	"github.com/rollcall-grpc/rollcall"
	"github.com/rollcall-grpc/rollcall/internal/inventory"
	"github.com/rollcall-grpc/rollcall/internal/printable"
)

// maxEvents is how many events can be shown: more than a screen has lines.
const maxEvents = 200

// Options are what a Model needs.
type Options struct {
	Prefix string // what the keys that are shown start with
	Color  bool   // whether colours may be used, always beside words
	// Mark drains an endpoint, or ends that, and returns why it could not. It may take its time.
	Mark func(service, id string, drain bool) error
}

// Content is a message: a new snapshot, and what differs from the one before.
type Content struct {
	Snapshot *rollcall.Snapshot
	Events   []inventory.Event
	Now      time.Time
}

// tick is a message: the time, each second.
type tick time.Time

// marked is a message: what came of a Mark.
type marked struct {
	question
	err error
}

// question is asked before something is written. What it is about stays, whatever happens to the list.
type question struct {
	service, id, addr string
	drain             bool
}

func (q question) verb() string {
	if q.drain {
		return "drain"
	}
	return "undrain"
}

// shownEvent is an event with the time at which it was seen.
type shownEvent struct {
	inventory.Event
	at time.Time
}

// Model is the state of the view. Its methods are pure but for the Model itself.
type Model struct {
	opts          Options
	width, height int
	now           time.Time
	filled        time.Time // when the list was made

	follower  *inventory.Follower
	snap      *rollcall.Snapshot
	rows      []*inventory.Instance // of all services
	rates     rates
	services  list[serviceRow]
	opened    string // the service whose instances are shown, "" for the list of services
	instances list[*inventory.Instance]
	events    []shownEvent // the oldest first

	search      textinput.Model
	searching   bool
	helping     bool
	asking      *question
	message     string // until the next key
	quit        bool
	interrupted bool
}

// New returns a Model that knows nothing yet. Where the prefix is the name of a service that there is,
// perhaps with a "/", that one is opened at first.
func New(opts Options) *Model {
	m := &Model{opts: opts, width: 80, height: 24, follower: inventory.NewFollower(rollcall.SplitKey), rates: make(rates)}
	m.services = list[serviceRow]{columns: serviceColumns(), name: func(s serviceRow) string { return s.Service.Service }}
	m.instances = list[*inventory.Instance]{columns: m.instanceColumns(), name: func(i *inventory.Instance) string { return i.Key }}
	m.search = textinput.New()
	m.search.Prompt = "search: "
	m.search.SetStyles(textinput.Styles{})
	m.search.KeyMap.Paste.SetEnabled(false) // terminals paste by themselves
	return m
}

// Init starts the clock.
func (m *Model) Init() tea.Cmd { return clock() }

func clock() tea.Cmd { return tea.Tick(time.Second, func(t time.Time) tea.Msg { return tick(t) }) }

// Update takes a message in.
func (m *Model) Update(msg tea.Msg) (tea.Model, tea.Cmd) {
	switch msg := msg.(type) {
	case tea.WindowSizeMsg:
		m.width, m.height = msg.Width, msg.Height
	case Content:
		m.take(msg)
	case tick:
		m.now = time.Time(msg)
		if m.now.Sub(m.filled) >= time.Second { // rates fall while nothing changes
			m.refill()
		}
		return m, clock()
	case marked:
		m.message = fmt.Sprintf("%sed %s", msg.verb(), rollcall.Key(msg.service, msg.id))
		if msg.err != nil {
			m.message = fmt.Sprintf("cannot %s %s: %s", msg.verb(), rollcall.Key(msg.service, msg.id), printable.Error(msg.err))
		}
	case tea.KeyPressMsg:
		return m, m.press(msg)
	case tea.PasteMsg:
		if m.searching {
			return m, m.typed(msg)
		}
	}
	return m, nil
}

// take takes a snapshot and its events in.
func (m *Model) take(c Content) {
	m.now = c.Now
	start := m.snap == nil
	if c.Snapshot.NewEpoch(m.snap) {
		m.message = "etcd lost its data or was restored from a backup; following its new content"
	}
	m.snap = c.Snapshot
	m.rows = m.follower.Next(c.Snapshot)
	for _, e := range c.Events {
		m.rates.add(e.Instance.Service, c.Now)
		m.rates.add("", c.Now)
	}
	for _, e := range c.Events[max(len(c.Events)-maxEvents, 0):] {
		m.events = append(m.events, shownEvent{e, c.Now})
	}
	m.events = m.events[max(len(m.events)-maxEvents, 0):]
	m.refill()
	if name := strings.TrimSuffix(m.opts.Prefix, "/"); start && m.services.has(name) {
		m.open(name)
	}
}

// refill makes the list that is shown anew from what is known.
func (m *Model) refill() {
	m.filled = m.now
	if m.snap == nil {
		return
	}
	if m.opened == "" {
		counts := inventory.Count(m.rows)
		services := make([]serviceRow, len(counts))
		for i, s := range counts {
			services[i] = serviceRow{s, m.rates.perSecond(s.Service, m.now)}
		}
		m.services.fill(services)
		return
	}
	first, _ := slices.BinarySearchFunc(m.rows, m.opened+"/", func(row *inventory.Instance, prefix string) int { return strings.Compare(row.Key, prefix) })
	instances := make([]*inventory.Instance, 0, len(m.instances.all)+1)
	for _, row := range m.rows[first:] {
		if row.Service == m.opened {
			instances = append(instances, row)
		} else if !strings.HasPrefix(row.Key, m.opened+"/") {
			break
		}
	}
	m.instances.fill(instances)
}

func (m *Model) open(service string) {
	m.services.selectName(service)
	m.opened = service
	m.instances.reset()
	m.refill()
}

// view is the list that is shown.
func (m *Model) view() scrolled {
	if m.opened != "" {
		return &m.instances
	}
	return &m.services
}
