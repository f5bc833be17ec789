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

	clientv3 "go.etcd.io/etcd/client/v3"

	"github.com/rollcall-grpc/rollcall"
	"github.com/rollcall-grpc/rollcall/internal/inventory"
)

const (
	// instancesPerPage is how many instances a page lists.
	instancesPerPage = 1000
	// lookUpTimeout bounds a question about leases, and how long a page says nothing of a history
	// that is not read yet: less than firstFrame, which a page waits.
	lookUpTimeout = 4 * time.Second
	// lookUpPause is the least time between two looks at the leases of a page, and perLease what
	// is added for each of them, to spare etcd.
	lookUpPause = 5 * time.Second
	perLease    = 10 * time.Millisecond
	// clientsPause is how often the clients of a service are looked at.
	clientsPause = 2 * time.Second
)

// serviceView shows the instances of a service.
type serviceView struct {
	world   *world
	service string
	filter  string // what a row must contain
	page    int    // from 1
	clients func() []Client
	check   func(config string) error
	writes  bool
	wake    chan struct{}

	mu        sync.Mutex
	snap      *rollcall.Snapshot
	err       error
	config    *rollcall.ServiceConfig
	configErr error
	ttls      map[clientv3.LeaseID]inventory.TTL
	ttlErr    error
	leases    []clientv3.LeaseID // of the rows that are shown
	gone      []*departed        // the latest, the oldest first

	// Of the loop.
	banner banner
	last   *rollcall.Snapshot
	cells  map[string]cells
	recent recent
	sent   clientsPiece
}

// departed is an instance that has gone and is shown for a moment.
type departed struct {
	inst  *rollcall.Instance
	at    time.Time
	asked bool
	why   rollcall.Departure // "": etcd has not said yet
}

// cells are the rendered cells of a row, as long as its value stays.
type cells struct {
	epoch    int
	modified int64
	status   inventory.Status
	html     string
}

// serviceContent is what the page has outside of the pieces.
type serviceContent struct {
	Service, Filter string
	Writes          bool
}

func (c *Console) openService(w *world, query url.Values) (opened, error) {
	service, err := rollcall.ParseService(query.Get("name"))
	if err != nil {
		return opened{}, err
	}
	v := &serviceView{world: w, service: service, filter: query.Get("q"), check: c.opts.CheckConfig, writes: c.opts.Writes,
		wake: make(chan struct{}, 1), cells: make(map[string]cells),
		banner: banner{what: "the keys of service " + quoted(service), prefix: service + "/"}}
	if c.opts.Clients != nil {
		v.clients = func() []Client { return w.clients.of(c.opts.Clients) }
	}
	if v.page, err = pageNumber(query); err != nil {
		return opened{}, err
	}
	asked := url.Values{"name": {service}, "q": {v.filter}, "page": {strconv.Itoa(v.page)}}
	return opened{key: "service?" + asked.Encode(), view: v, title: service, query: asked,
		content: serviceContent{service, v.filter, c.opts.Writes}}, nil
}

func (v *serviceView) follow(ctx context.Context, show func(frame)) {
	instances, config, err := v.world.directory.SubscribeServiceFunc(v.service, v.takeSnapshot, v.takeConfig)
	if err != nil { // the Directory is closed, as the console will be
		v.takeSnapshot(nil, err)
		show(v.frame(time.Now()))
		return
	}
	defer instances.Close()
	defer config.Close()
	var running sync.WaitGroup
	defer running.Wait()
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	running.Go(func() { every(ctx, clientsPause, v.wake) })
	running.Go(func() { v.followLeases(ctx) })
	someGone := make(chan struct{}, 1)
	running.Go(func() { v.findReasons(ctx, someGone) })
	began, shown := time.Now(), false
	timer := time.AfterFunc(waitForFirst, func() { poke(v.wake) })
	defer timer.Stop()
	pace(ctx, v.wake, func() {
		v.mu.Lock()
		known := v.snap != nil && v.config != nil || denied(v.err)
		v.mu.Unlock()
		if !known && !shown && time.Since(began) < waitForFirst {
			return
		}
		shown = true
		v.compare(time.Now())
		show(v.frame(time.Now()))
		poke(someGone)
	})
}

func (v *serviceView) takeSnapshot(snap *rollcall.Snapshot, err error) {
	v.mu.Lock()
	v.snap, v.err = snap, err
	v.mu.Unlock()
	poke(v.wake)
}

func (v *serviceView) takeConfig(config *rollcall.ServiceConfig, err error) {
	v.mu.Lock()
	v.config, v.configErr = config, err
	v.mu.Unlock()
	poke(v.wake)
}

// compare notes what has changed since the last frame, and forgets what went a while ago.
func (v *serviceView) compare(now time.Time) {
	v.mu.Lock()
	snap := v.snap
	v.mu.Unlock()
	var changes []rollcall.Change
	newEpoch := false
	if snap != nil && v.last != nil && snap != v.last {
		changes, newEpoch = snap.Diff(v.last), snap.NewEpoch(v.last)
	}
	if snap != nil {
		v.last = snap
	}
	v.mu.Lock()
	defer v.mu.Unlock()
	for _, change := range changes {
		var gone *departed
		if change.New == nil {
			gone = &departed{inst: change.Old, at: now}
			if newEpoch { // nobody need have deleted it
				gone.why, gone.asked = rollcall.DepartureUnknown, true
			}
			v.gone = append(v.gone, gone)
		}
		v.recent.add(change, gone, now)
	}
	v.gone = slices.Clone(v.gone[max(0, len(v.gone)-maxShownGone):])
	v.gone = slices.DeleteFunc(v.gone, func(g *departed) bool { return now.Sub(g.at) > showGone })
}

const (
	showGone     = 10 * time.Second
	maxShownGone = 200
)

// findReasons asks etcd, each time it is woken, why the instances that are shown as gone have gone.
func (v *serviceView) findReasons(ctx context.Context, wake <-chan struct{}) {
	for {
		select {
		case <-wake:
		case <-ctx.Done():
			return
		}
		var asking []*departed
		var gone []*rollcall.Instance
		v.mu.Lock()
		for _, g := range v.gone {
			if !g.asked {
				g.asked = true
				asking, gone = append(asking, g), append(gone, g.inst)
			}
		}
		v.mu.Unlock()
		if len(gone) == 0 {
			continue
		}
		departures := v.world.directory.Departures(ctx, gone...)
		v.mu.Lock()
		for i, g := range asking {
			g.why = departures[i]
		}
		v.mu.Unlock()
		poke(v.wake)
	}
}

// followLeases looks up the leases of the rows that are shown, now and then.
func (v *serviceView) followLeases(ctx context.Context) {
	for {
		v.mu.Lock()
		leases := v.leases
		v.mu.Unlock()
		pause := minGap // until there are some
		if len(leases) > 0 {
			asking, cancel := context.WithTimeout(ctx, lookUpTimeout)
			ttls, err := inventory.LookUp(asking, v.world.directory.Client(), leases)
			cancel()
			v.mu.Lock()
			v.ttls, v.ttlErr = ttls, err
			v.mu.Unlock()
			poke(v.wake)
			pause = lookUpPause + time.Duration(len(leases))*perLease
		}
		select {
		case <-time.After(pause):
		case <-ctx.Done():
			return
		}
	}
}

// matches reports whether a row contains what the reader looks for.
func (v *serviceView) matches(i inventory.Instance) bool {
	if v.filter == "" {
		return true
	}
	want := strings.ToLower(v.filter)
	for _, text := range []string{i.ID, i.Addr, string(i.Status), i.Zone, i.Version, i.Host} {
		if strings.Contains(strings.ToLower(text), want) {
			return true
		}
	}
	return false
}
