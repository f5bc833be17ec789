// SPDX-FileCopyrightText: The Rollcall Authors
// SPDX-License-Identifier: Apache-2.0

package resolver

import (
	"fmt"
	"strings"

	"github.com/rollcall-grpc/rollcall"
)

// departed is how a channel lost its last endpoints; the zero value is that of one that has some,
// or never had.
type departed struct {
	count    int
	draining int   // of them
	leased   int   // of those that were not draining
	revision int64 // of the snapshot without them
	newEpoch bool  // etcd lost its data or was restored
}

// departedSince returns which instances that a channel could have called are gone from etcd.
func departedSince(old, snap *rollcall.Snapshot, selector rollcall.Selector, policy rollcall.AddressPolicy) departed {
	d := departed{revision: snap.Revision(), newEpoch: snap.NewEpoch(old)}
	invalid := make(map[string]bool)
	for _, i := range snap.Invalid() {
		invalid[i.Key] = true
	}
	for inst := range old.All() {
		if snap.Instance(inst.Key) != nil || invalid[inst.Key] || !selector.Matches(inst) || policy.Check(inst.Addr) != nil {
			continue
		}
		d.count++
		switch {
		case inst.Draining():
			d.draining++
		case inst.Lease != 0:
			d.leased++
		}
	}
	return d
}

// String describes how they went, as far as a client can know without asking etcd about their leases:
// ten thousand clients would ask at once.
func (d departed) String() string {
	who, they, were := "its last endpoint", "its lease ended or it was deleted", "was"
	if d.count > 1 {
		who, they, were = fmt.Sprintf("its last %d endpoints", d.count), "their leases ended or they were deleted", "were"
	}
	switch {
	case d.newEpoch:
		return fmt.Sprintf("%s went when etcd lost its data or was restored from a backup", who)
	case d.draining == d.count:
		return fmt.Sprintf("%s left at revision %d", who, d.revision)
	case d.draining+d.leased == 0:
		return fmt.Sprintf("%s %s deleted at revision %d", who, were, d.revision)
	}
	return fmt.Sprintf("%s vanished at revision %d (%s)", who, d.revision, they)
}

// emptiness is why a channel has no endpoints to call.
type emptiness struct {
	snap       *rollcall.Snapshot
	selector   string
	disallowed int                 // of the instances that the selector matches
	first      rollcall.Disallowed // of these, by key
	gone       departed
}

// reason returns it for the errors of calls: what is nearest first.
func (e emptiness) reason() string {
	var reasons []string
	add := func(format string, args ...any) { reasons = append(reasons, fmt.Sprintf(format, args...)) }
	n, invalid, retained := e.snap.Len(), e.snap.Invalid(), e.snap.Retained()
	if e.gone.count > 0 {
		add("%v", e.gone)
	}
	if others := n - e.disallowed; others > 0 && e.selector != "" {
		add("none of %d matches %s", others, e.selector)
	}
	switch {
	case e.disallowed == 0:
	case e.disallowed == 1 && n == 1:
		add("its only endpoint is disallowed: %q: %v", e.first.Instance.Key, e.first.Cause)
	case e.disallowed == n:
		add("all %d are disallowed, the first: %q: %v", n, e.first.Instance.Key, e.first.Cause)
	default:
		add("%d disallowed, the first: %q: %v", e.disallowed, e.first.Instance.Key, e.first.Cause)
	}
	if len(invalid) > 0 {
		add("%d invalid, the first: %q: %v", len(invalid), invalid[0].Key, invalid[0].Cause)
	}
	if len(retained) > 0 {
		add("%d retained, none usable", len(retained))
	}
	if len(reasons) == 0 {
		add("it never had one that this client has seen")
	}
	add("no usable key under %q at revision %d", e.snap.Prefix(), e.snap.Revision())
	if stale := e.snap.Staleness(); stale != nil {
		add("stale: %v", stale.Cause)
	}
	return strings.Join(reasons, "; ")
}
