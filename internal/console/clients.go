// SPDX-FileCopyrightText: The Rollcall Authors
// SPDX-License-Identifier: Apache-2.0

package console

import (
	"context"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/rollcall-grpc/rollcall"
	"github.com/rollcall-grpc/rollcall/internal/inventory"
)

const (
	clientsPerPage = 200
	// clientsOfService is how many clients the page of a service names.
	clientsOfService = 50
)

// Client is who the xDS server beside the page serves.
type Client struct {
	ID, Peer, UserAgent, Zone string
	Since                     time.Time
	Services                  []string // that it has asked for
	State                     string   // accepted, waiting, rejected or refused
	Reason                    string   // why it was refused, or has rejected
	Sent                      []Sent
}

// Sent is what a client was sent last of a type of resource.
type Sent struct {
	Type, Version string
	Accepted      bool
}

// clientList keeps the clients for a moment, however many pages show them.
type clientList struct {
	mu   sync.Mutex
	at   time.Time
	last []Client
}

// of returns the clients as they were at most clientsPause ago. Callers do not change them.
func (l *clientList) of(ask func() []Client) []Client {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.at.IsZero() || time.Since(l.at) >= clientsPause-minGap {
		l.last, l.at = ask(), time.Now()
	}
	return l.last
}

// clientLine is a client as a row.
type clientLine struct {
	Client
	Age string
	Row string
}

// clientsView lists the clients of the xDS server, to those who may read all keys.
type clientsView struct {
	world   *world
	clients func() []Client
	filter  string
	page    int
	banner  banner
}

// mayRead reports whether etcd lets the user read the keys of a snapshot. Before there is one
// this is not known.
func mayRead(snap *rollcall.Snapshot) bool {
	return snap != nil && (snap.Staleness() == nil || !denied(snap.Staleness().Cause))
}

func (c *Console) openClients(w *world, query url.Values) (opened, error) {
	if c.opts.Clients == nil {
		return opened{}, errNotFound
	}
	v := &clientsView{world: w, clients: func() []Client { return w.clients.of(c.opts.Clients) }, filter: query.Get("q"), banner: banner{what: "all keys"}}
	var err error
	if v.page, err = pageNumber(query); err != nil {
		return opened{}, err
	}
	asked := url.Values{"q": {v.filter}, "page": {strconv.Itoa(v.page)}}
	return opened{key: "clients?" + asked.Encode(), view: v, query: asked, content: v.filter}, nil
}

func (v *clientsView) follow(ctx context.Context, show func(frame)) {
	wake := make(chan struct{}, 1)
	defer v.world.services.read(wake)()
	if l := v.world.services.listing(); l.snap == nil && l.err == nil {
		select {
		case <-wake:
		case <-time.After(waitForFirst):
		case <-ctx.Done():
			return
		}
	}
	for {
		show(v.frame(v.world.services.listing(), time.Now()))
		select {
		case <-time.After(clientsPause):
		case <-ctx.Done():
			return
		}
	}
}

type clientsSummary struct {
	Known                    bool // the user may read all keys
	All, Matching            int
	NotAccepted              int // of those that match
	First, Last, Page, Pages int
	Filter                   string
}

func (v *clientsView) frame(l listing, now time.Time) frame {
	if !mayRead(l.snap) {
		return frame{pieces: []piece{{"banner", v.banner.of(l.snap, l.err, now)}, {"summary", fragment("clients-summary", clientsSummary{})}, {"pager", ""}}}
	}
	clients := v.clients()
	s := clientsSummary{Known: true, All: len(clients), Page: v.page, Filter: v.filter}
	clients = slices.DeleteFunc(slices.Clone(clients), func(c Client) bool { return !v.matches(c) })
	for _, c := range clients {
		if c.State != "accepted" {
			s.NotAccepted++
		}
	}
	s.Matching, s.Pages = len(clients), max(1, (len(clients)+clientsPerPage-1)/clientsPerPage)
	from := min((v.page-1)*clientsPerPage, len(clients))
	clients = clients[from:min(from+clientsPerPage, len(clients))]
	s.First, s.Last = from+1, from+len(clients)
	f := frame{pieces: []piece{{"banner", ""}, {"summary", fragment("clients-summary", s)}, {"pager", fragment("clients-pager", s)}}}
	seen := make(map[string]bool)
	for _, c := range clients {
		id := rowID(c.Peer + "\x00" + c.ID + "\x00" + c.Since.String())
		if seen[id] {
			continue
		}
		seen[id] = true
		f.rows = append(f.rows, row{id: id, class: c.State, html: fragment("client-row", clientLine{c, "", id}),
			tail: []cell{{"a" + id, inventory.Age(c.Since, now)}}})
	}
	return f
}

func (v *clientsView) matches(c Client) bool {
	return v.filter == "" || slices.ContainsFunc(append([]string{c.ID, c.Peer, c.UserAgent, c.Zone, c.State}, c.Services...), func(text string) bool {
		return strings.Contains(strings.ToLower(text), strings.ToLower(v.filter))
	})
}

// clientsPiece is what the page of a service says of its clients. It is looked up anew now and
// then: a frame may be rendered more often.
type clientsPiece struct {
	at   time.Time
	text string
}

func (p *clientsPiece) html(clients func() []Client, service string, now time.Time) string {
	if clients == nil {
		return ""
	}
	if p.text != "" && now.Sub(p.at) < clientsPause-minGap {
		return p.text
	}
	d := struct {
		Service    string
		Total, All int
		Lines      []clientLine
	}{Service: service}
	for _, c := range clients() {
		d.All++
		if !slices.Contains(c.Services, service) {
			continue
		}
		if d.Total++; len(d.Lines) < clientsOfService {
			d.Lines = append(d.Lines, clientLine{Client: c, Age: inventory.Age(c.Since, now)})
		}
	}
	p.at, p.text = now, fragment("service-clients", d)
	return p.text
}
