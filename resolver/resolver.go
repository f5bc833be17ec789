// SPDX-FileCopyrightText: The Rollcall Authors
// SPDX-License-Identifier: Apache-2.0

package resolver

import (
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"sync"
	"sync/atomic"

	"go.etcd.io/etcd/api/v3/v3rpc/rpctypes"
	grpcresolver "google.golang.org/grpc/resolver"
	"google.golang.org/grpc/resolver/ringhash"

	"github.com/rollcall-grpc/rollcall"
)

// etcdResolver updates one channel from its subscriptions.
type etcdResolver struct {
	cc        grpcresolver.ClientConn
	sub       *rollcall.Delivery       // of the endpoints
	configs   *rollcall.ConfigDelivery // of the service config; nil: the channel wants none
	selection *sharedSelection
	host      string // the target's endpoint: it decides whether there is a proxy
	name      name
	log       *onceLog
	order     order
	builder   *builder
	closed    atomic.Bool

	turn     chan struct{}      // full while the channel is told, which may take long; guards what follows
	snap     *rollcall.Snapshot // the last; nil before the first
	shown    int                // version of the selection that the channel was told last; 0: none
	callable bool               // the channel was told of endpoints last
	reported string             // why there are none, as the channel was told last
	config   serviceConfig
}

// deliver tells the channel of a snapshot, or why there is none yet.
func (r *etcdResolver) deliver(snap *rollcall.Snapshot, err error) {
	r.turn <- struct{}{}
	defer func() { <-r.turn }()
	if err != nil {
		r.log.logger().Debug("cannot resolve yet", "service", r.name.service, "cause", err)
		// Not as a status (%v, not %w): with that gRPC ends every call; otherwise it fails
		// calls with UNAVAILABLE and the text, and has those wait that wait for ready.
		r.cc.ReportError(fmt.Errorf("rollcall: resolve %q: %v", r.name.service, err))
		return
	}
	r.snap = snap
	r.show()
}

// deliverConfig takes in what etcd says of the service config. Where etcd says nothing, or
// nothing to this client, the channel goes on with what it has.
func (r *etcdResolver) deliverConfig(config *rollcall.ServiceConfig, err error) {
	r.turn <- struct{}{}
	defer func() { <-r.turn }()
	if err != nil {
		r.config.known = true
		if errors.Is(err, rpctypes.ErrPermissionDenied) { // once: a role for a few services may read none of theirs
			r.log.warn("the right to read", "", "no right to read the service config; resolving without it",
				"key", rollcall.ConfigPrefix+r.name.service)
		}
	} else {
		r.take(config)
	}
	r.show()
}

// take tells the log what is wrong with a service config.
func (r *etcdResolver) take(config *rollcall.ServiceConfig) {
	key := rollcall.ConfigPrefix + r.name.service
	err := r.config.take(config.JSON)
	switch {
	case config != r.configs.Latest(): // another channel may have logged what comes next
	case err != nil:
		r.log.warn(key, string(config.JSON), "service config is invalid; ignoring it", "key", key, "revision", config.ModRevision, "cause", err)
	default:
		r.log.forget(key)
	}
}

// show tells the channel what it can see a difference in. A snapshot that is only stale
// leaves it as it is. The first waits for the service config, or for 1 s; what can be done
// before is.
func (r *etcdResolver) show() {
	if r.snap == nil || r.closed.Load() {
		return
	}
	disallowed := r.selection.follow(r.sub)
	for _, d := range disallowed.fresh {
		key := d.Instance.Key
		r.log.warn(key, d.Cause.Error(), "address disallowed; ignoring the endpoint", "key", key, "cause", d.Cause)
	}
	for _, key := range disallowed.mended {
		r.log.forget(key)
	}
	if r.configs != nil && !r.config.known && r.configs.Err() == nil {
		return // it is about to come
	}
	has := r.shown
	if r.config.changed {
		has = 0 // of no version
	}
	state, version := r.selection.state(r.order, has)
	if version != has && (len(state) > 0 || r.shown > 0) {
		r.shown, r.callable, r.reported, r.config.changed = version, len(state) > 0, "", false
		if !r.callable {
			state = emptyState(r.host)
		}
		// The error is a balancer's opinion of the state. The watch brings the next
		// state when there is one; asking again would bring the same.
		_ = r.cc.UpdateState(grpcresolver.State{Endpoints: state, ServiceConfig: r.config.current})
		r.selection.prepare(len(state))
	}
	if !r.callable {
		r.report()
	}
}

// noEndpoints is the state of a service whose last endpoint has left: an endpoint without
// addresses. Without an endpoint most of gRPC's policies fail calls with their own error ("no
// children to pick from"). With it they have a child, which fails calls with the error that
// is reported next. gRFC A61 allows such endpoints.
var noEndpoints = []grpcresolver.Endpoint{ringhash.SetHashKey(grpcresolver.Endpoint{}, "nobody")}

// emptyState returns noEndpoints for a target's host, or an empty list if the channel uses a proxy:
// gRPC then loses the hash key, and ring_hash requires an address.
func emptyState(host string) []grpcresolver.Endpoint {
	proxy, err := http.ProxyFromEnvironment(&http.Request{URL: &url.URL{Scheme: "https", Host: host}})
	if proxy != nil || err != nil {
		return []grpcresolver.Endpoint{}
	}
	return noEndpoints
}

// report tells the channel why there is no endpoint to call, unless it was told so last.
func (r *etcdResolver) report() {
	if err := r.emptyError(); err.Error() != r.reported {
		r.reported = err.Error()
		r.cc.ReportError(err)
	}
}

// emptyError returns the error of calls to a service without usable endpoints.
func (r *etcdResolver) emptyError() error {
	why := r.selection.emptiness()
	return fmt.Errorf("rollcall: service %q has no endpoints: %s", why.snap.Service(), why.reason())
}

// ResolveNow requests a consistency check, which is made at most once in 10 s for a service.
func (r *etcdResolver) ResolveNow(grpcresolver.ResolveNowOptions) { r.sub.Refresh() }

// Close ends the resolver and joins it; etcd is not waited for. An update that the
// channel is still busy with ends on its own.
func (r *etcdResolver) Close() {
	if !r.closed.Swap(true) {
		// Before the subscription ends: a channel that is opened meanwhile shares both, or has others.
		r.builder.release(r.name)
	}
	var configs sync.WaitGroup
	if r.configs != nil {
		configs.Go(r.configs.Close)
	}
	r.sub.Close()
	configs.Wait()
}
