// SPDX-FileCopyrightText: The Rollcall Authors
// SPDX-License-Identifier: Apache-2.0

package console

import (
	"context"
	"fmt"
	"net/url"
	"strconv"
	"strings"
	"time"

	"github.com/rollcall-grpc/rollcall/internal/inventory"
)

// servicesPerPage is how many services a page lists.
const servicesPerPage = 100

// waitForFirst is how long a view shows nothing while it waits for etcd's first answer.
const waitForFirst = time.Second

// servicesView lists the services whose keys start with a prefix.
type servicesView struct {
	world  *world
	prefix string
	page   int // from 1
	banner banner
}

// servicesContent is what the page has outside of the pieces.
type servicesContent struct{ Prefix string }

func openServices(w *world, query url.Values) (opened, error) {
	v := &servicesView{world: w, prefix: query.Get("prefix")}
	v.banner = banner{what: "the services whose keys start with " + quoted(v.prefix), prefix: v.prefix}
	if v.prefix == "" {
		v.banner.what = "all keys"
	}
	var err error
	if v.page, err = pageNumber(query); err != nil {
		return opened{}, err
	}
	asked := url.Values{"prefix": {v.prefix}, "page": {strconv.Itoa(v.page)}}
	return opened{key: "services?" + asked.Encode(), view: v, query: asked, content: servicesContent{v.prefix}}, nil
}

func pageNumber(query url.Values) (int, error) {
	text := query.Get("page")
	if text == "" {
		return 1, nil
	}
	n, err := strconv.Atoi(text)
	if err != nil || n < 1 || n > 1_000_000 {
		return 0, fmt.Errorf("page %q: want a whole number from 1", text)
	}
	return n, nil
}

func (v *servicesView) follow(ctx context.Context, show func(frame)) {
	wake := make(chan struct{}, 1)
	from := v.world.services
	stop := from.read(wake)
	defer func() { stop() }()
	began, shown := time.Now(), false
	timer := time.AfterFunc(waitForFirst, func() { poke(wake) })
	defer timer.Stop()
	v.world.running.Go(func() { every(ctx, overFor/3, wake) })
	pace(ctx, wake, func() {
		l := from.listing()
		if denied(l.err) && l.snap == nil && from == v.world.services && v.prefix != "" {
			// What the user may read may be this prefix.
			own, err := newCatalog(v.world.directory, v.prefix)
			if err == nil {
				stop()
				from = own
				stop = from.read(wake)
				v.world.running.Go(func() { own.follow(ctx) })
				return
			}
		}
		if l.snap != nil || denied(l.err) || shown || time.Since(began) >= waitForFirst {
			shown = true
			show(v.frame(l, time.Now()))
		}
	})
}

// servicesSummary is what is said above the table.
type servicesSummary struct {
	Prefix                       string
	Known                        bool
	Services, Instances, LeftOut int
	Draining                     int
	Revision                     int64
	First, Last, Page, Pages     int
}

type serviceLine struct {
	inventory.Service
	Row      string // its id
	Seen     string // when it was last seen to change, "" if it was not
	SeenTime string
}

// frame renders the page's part of a listing.
func (v *servicesView) frame(l listing, now time.Time) frame {
	matching := withPrefix(l.services, v.prefix)
	s := servicesSummary{Prefix: v.prefix, Known: l.snap != nil, Services: len(matching), Page: v.page, Pages: max(1, (len(matching)+servicesPerPage-1)/servicesPerPage)}
	for _, service := range matching {
		s.Instances += service.Instances
		s.LeftOut += service.LeftOut()
		s.Draining += service.Draining
	}
	if l.snap != nil {
		s.Revision = l.snap.Revision()
	}
	from := min((v.page-1)*servicesPerPage, len(matching))
	to := min(from+servicesPerPage, len(matching))
	s.First, s.Last = from+1, to
	f := frame{pieces: []piece{
		{"banner", v.banner.of(l.snap, l.err, now)},
		{"summary", fragment("services-summary", s)},
		{"pager", fragment("services-pager", s)},
	}}
	for _, service := range matching[from:to] {
		line := serviceLine{Service: service, Row: rowID(service.Service)}
		if at, ok := l.seen[service.Service]; ok {
			line.Seen, line.SeenTime = clock(at), at.UTC().Format(time.RFC3339)
		}
		f.rows = append(f.rows, row{id: line.Row, html: fragment("service-row", line)})
	}
	return f
}

// withPrefix returns those of some services whose keys start with a prefix.
func withPrefix(services []inventory.Service, prefix string) (matching []inventory.Service) {
	for _, s := range services {
		if strings.HasPrefix(s.Service+"/", prefix) {
			matching = append(matching, s)
		}
	}
	return matching
}
