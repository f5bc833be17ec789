// SPDX-FileCopyrightText: The Rollcall Authors
// SPDX-License-Identifier: Apache-2.0

package resolver

import (
	"context"
	"errors"
	"fmt"
	"sync/atomic"

	"go.etcd.io/etcd/api/v3/v3rpc/rpctypes"
	grpcresolver "google.golang.org/grpc/resolver"

	"github.com/rollcall-grpc/rollcall"
)

// etcdResolver feeds one channel from its subscriptions.
type etcdResolver struct {
	cc      grpcresolver.ClientConn
	sub     *rollcall.Subscription // of the endpoints
	configs *rollcall.Subscription // of the service config; nil: the channel wants none
	view    *view
	name    name
	opts    *Options
	order   order
	close   func()
	closed  atomic.Bool

	turn      chan struct{}      // full while the channel is told, which may take long; guards what follows
	snap      *rollcall.Snapshot // the last; nil before the first
	shown     int                // version of the view that the channel was told last; 0: none
	config    serviceConfig
	listening bool // to configs
}

// deliver tells the channel of a snapshot, or why there is none yet.
func (r *etcdResolver) deliver(snap *rollcall.Snapshot, err error) {
	r.turn <- struct{}{}
	defer func() { <-r.turn }()
	if err != nil {
		r.opts.Logger.Warn("cannot resolve yet", "service", r.name.service, "cause", err)
		// Not as a status (%v, not %w): with that gRPC ends every call; otherwise it fails
		// calls with UNAVAILABLE and the text, and has those wait that wait for ready.
		r.cc.ReportError(fmt.Errorf("rollcall: resolve %q: %v", r.name.service, err))
		return
	}
	r.snap = snap
	r.show()
}

// deliverConfig takes in what etcd says of the service config.
func (r *etcdResolver) deliverConfig(snap *rollcall.Snapshot, err error) {
	r.turn <- struct{}{}
	defer func() { <-r.turn }()
	r.take(snap, err)
	r.show()
}

// take is told of the service config. Where etcd says nothing, or nothing to this client,
// the channel goes on with what it has.
func (r *etcdResolver) take(snap *rollcall.Snapshot, err error) {
	if err != nil {
		r.config.known = true
		if errors.Is(err, rpctypes.ErrPermissionDenied) {
			r.opts.Logger.Warn("no right to read the service config", "key", rollcall.ConfigPrefix+r.name.service)
		}
	} else if err := r.config.take(snap.ServiceConfig()); err != nil {
		r.opts.Logger.Warn("service config refused", "key", snap.Prefix(), "revision", snap.Revision(), "cause", err)
	}
}

// listen follows the service config, from when it is needed on: mostly it is there by then.
func (r *etcdResolver) listen() {
	if r.configs == nil || r.listening {
		return
	}
	r.listening = true
	if r.configs.Latest() != nil {
		r.take(r.configs.Next(context.Background()))
	}
	r.configs.Deliver(r.deliverConfig)
}

// show tells the channel what it can see a difference in. A snapshot that is only stale
// leaves it as it is. The first waits for the service config, or for 1 s.
func (r *etcdResolver) show() {
	if r.listen(); r.snap == nil || r.configs != nil && !r.config.known || r.closed.Load() {
		return
	}
	for _, ref := range r.view.follow(r.sub) {
		r.opts.Logger.Warn("address refused", "key", ref.Instance.Key, "cause", ref.Cause)
	}
	has := r.shown
	if r.config.changed {
		has = 0 // of no version
	}
	state, version := r.view.state(r.order, has)
	switch {
	case len(state) == 0 && r.shown == 0:
		r.cc.ReportError(r.emptyError())
	case version != has:
		r.shown, r.config.changed = version, false
		// The error is a balancer's opinion of the state. The watch brings the next
		// state when there is one; asking again would bring the same.
		_ = r.cc.UpdateState(grpcresolver.State{Endpoints: state, ServiceConfig: r.config.current})
		r.view.prepare(len(state))
	}
}

// emptyError tells a caller why there is nobody to call.
func (r *etcdResolver) emptyError() error {
	snap, refused := r.snap, r.view.refusals()
	text := fmt.Sprintf("rollcall: service %q has no endpoints: no usable key under %q at revision %d", snap.Service(), snap.Prefix(), snap.Revision())
	if n := len(snap.Instances()); r.name.selector != "" && n > refused {
		text += fmt.Sprintf("; %d not selected by %q", n-refused, r.name.selector)
	}
	if n := len(snap.Rejected()); n > 0 {
		text += fmt.Sprintf("; %d rejected, the first: %q: %v", n, snap.Rejected()[0].Key, snap.Rejected()[0].Cause)
	}
	if refused > 0 {
		text += fmt.Sprintf("; %d refused by the address policy", refused)
	}
	if stale := snap.Stale(); stale != nil {
		text += fmt.Sprintf("; stale: %v", stale.Cause)
	}
	return errors.New(text)
}

// ResolveNow has the feed compare itself with etcd, at most once in 10 s for a service.
func (r *etcdResolver) ResolveNow(grpcresolver.ResolveNowOptions) { r.sub.Refresh() }

// Close ends the resolver and joins it; etcd is not waited for. An update that the
// channel is still busy with ends on its own.
func (r *etcdResolver) Close() { r.close() }
