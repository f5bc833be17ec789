// SPDX-FileCopyrightText: The Rollcall Authors
// SPDX-License-Identifier: Apache-2.0

package resolver

import (
	"errors"
	"fmt"

	grpcresolver "google.golang.org/grpc/resolver"

	"github.com/rollcall-grpc/rollcall"
)

// deliver tells the channel of a snapshot, or why there is none yet. A snapshot that looks
// the same to a channel is not passed on; one that is only stale leaves the channel as it
// is.
func (r *etcdResolver) deliver(snap *rollcall.Snapshot, err error) {
	if err != nil {
		r.opts.Logger.Warn("cannot resolve yet", "service", r.service, "cause", err)
		// Not as a status (%v, not %w): with that gRPC ends every call; otherwise it fails
		// calls with UNAVAILABLE and the text, and has those wait that wait for ready.
		r.cc.ReportError(fmt.Errorf("rollcall: resolve %q: %v", r.service, err))
		return
	}
	for _, ref := range r.view.follow(r.sub) {
		r.opts.Logger.Warn("address refused", "key", ref.Instance.Key, "cause", ref.Cause)
	}
	state, version := r.view.state(r.order, r.shown)
	switch {
	case len(state) == 0 && !r.told:
		r.cc.ReportError(emptyError(snap, r.view.refusals()))
	case version != r.shown:
		r.shown, r.told = version, true
		// The error is a balancer's opinion of the state. The watch brings the next
		// state when there is one; asking again would bring the same.
		_ = r.cc.UpdateState(grpcresolver.State{Endpoints: state})
		r.view.prepare(len(state))
	}
}

// emptyError tells a caller why there is nobody to call.
func emptyError(snap *rollcall.Snapshot, refused int) error {
	text := fmt.Sprintf("rollcall: service %q has no endpoints: no usable key under %q at revision %d", snap.Service(), snap.Prefix(), snap.Revision())
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
