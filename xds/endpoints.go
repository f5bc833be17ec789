// SPDX-FileCopyrightText: The Rollcall Authors
// SPDX-License-Identifier: Apache-2.0

package xds

import (
	"cmp"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"slices"
	"strconv"
	"strings"

	endpointv3 "github.com/envoyproxy/go-control-plane/envoy/config/endpoint/v3"

	"github.com/rollcall-grpc/rollcall"
)

// description is what an instance says of itself. It is immutable, and kept for as long as a
// service has the instance, so that a change costs little for all others: BenchmarkRender shows it.
type description struct {
	instance *rollcall.Instance
	addr     netip.AddrPort // not valid unless the host is an IP address
	host     string         // that is to be looked up, if any
	weight   uint32
	locality rollcall.Locality
	sent     *endpointv3.LbEndpoint // as most clients are sent it at most times; nil unless addr is valid
}

// describe returns the descriptions of all instances that may be called, with what is known of
// those that are in an earlier snapshot.
func describe(snap *rollcall.Snapshot, known map[*rollcall.Instance]*description) map[*rollcall.Instance]*description {
	all := make(map[*rollcall.Instance]*description, snap.Len())
	for _, inst := range slices.AppendSeq(snap.Retained(), snap.All()) {
		d := known[inst]
		if d == nil {
			d = newDescription(inst)
		}
		all[inst] = d
	}
	return all
}

func newDescription(inst *rollcall.Instance) *description {
	a := inst.Attributes()
	d := &description{instance: inst, weight: a.Weight, locality: a.Locality}
	if addr, err := netip.ParseAddrPort(inst.Addr); err == nil {
		d.addr = netip.AddrPortFrom(addr.Addr().Unmap(), addr.Port())
		d.sent = lbEndpoint(endpoint{description: d, addr: d.addr}, 1)
	} else if rollcall.HostPort(inst.Addr) == nil {
		host, _, _ := net.SplitHostPort(inst.Addr)
		d.host = strings.Clone(host) // hosts are known for longer than the instance
	}
	return d
}

// endpoint is what clients are sent of an instance.
type endpoint struct {
	*description
	addr     netip.AddrPort
	more     []netip.Addr // other addresses of the same host that no other endpoint has
	draining bool         // while others are not
}

// lookup returns the addresses of a host, the same in the same order for all clients, or why
// there are none.
type lookup func(host string) ([]netip.Addr, error)

// errResolving is lookup's error for a host that it was not asked for before.
var errResolving = errors.New("the host name is being resolved")

// endpointsOf returns the endpoints of the instances that a selector selects, sorted by address,
// one an address. Those that cannot be sent are left out: clients take nothing but IP addresses.
func endpointsOf(snap *rollcall.Snapshot, known map[*rollcall.Instance]*description, selector rollcall.Selector, policy rollcall.AddressPolicy, look lookup) (endpoints []endpoint, left []rollcall.Disallowed) {
	selection := snap.Select(selector, policy)
	left = selection.Disallowed
	endpoints = make([]endpoint, 0, len(selection.Callable)+len(selection.Others))
	at := make(map[netip.AddrPort]int, len(selection.Callable))
	add := func(inst *rollcall.Instance, draining bool) {
		d := known[inst]
		addr, more, err := d.resolve(policy, look)
		if err != nil {
			left = append(left, rollcall.Disallowed{Instance: inst, Cause: err})
			return
		}
		ep := endpoint{d, addr, more, draining}
		i, taken := at[addr]
		if !taken {
			at[addr] = len(endpoints)
			endpoints = append(endpoints, ep)
			return
		}
		if draining == endpoints[i].draining && inst.NewerThan(endpoints[i].instance) {
			endpoints[i], ep = ep, endpoints[i]
		}
		left = append(left, rollcall.Disallowed{Instance: ep.instance, Cause: fmt.Errorf("same address as %q", endpoints[i].instance.Key)})
	}
	for _, inst := range selection.Callable {
		add(inst, false)
	}
	for _, inst := range selection.Others { // of those that share an address none is new here
		add(inst, true)
	}
	serving := slices.ContainsFunc(endpoints, func(ep endpoint) bool { return !ep.draining })
	slices.SortFunc(endpoints, func(a, b endpoint) int { return a.addr.Compare(b.addr) })
	for i := range endpoints { // clients reject an address that is there twice
		ep := &endpoints[i]
		ep.draining = ep.draining && serving // all others may have been left out
		ep.more = slices.DeleteFunc(ep.more, func(ip netip.Addr) bool {
			addr := netip.AddrPortFrom(ip, ep.addr.Port())
			_, taken := at[addr]
			at[addr] = i
			return taken
		})
	}
	slices.SortFunc(left, func(a, b rollcall.Disallowed) int { return cmp.Compare(a.Instance.Key, b.Instance.Key) })
	return endpoints, left
}

// resolve returns the addresses of an instance that a policy allows.
func (d *description) resolve(policy rollcall.AddressPolicy, look lookup) (addr netip.AddrPort, more []netip.Addr, err error) {
	if d.addr.IsValid() {
		return d.addr, nil, nil
	}
	host, port, err := net.SplitHostPort(d.instance.Addr)
	if err != nil {
		return addr, nil, err
	}
	number, err := strconv.ParseUint(port, 10, 16)
	if err != nil {
		return addr, nil, err
	}
	addrs, err := look(host)
	if err != nil {
		return addr, nil, err
	}
	var allowed []netip.Addr
	for _, ip := range addrs {
		if err = policy.Check(netip.AddrPortFrom(ip, uint16(number)).String()); err == nil {
			allowed = append(allowed, ip)
		}
	}
	if len(allowed) == 0 {
		return addr, nil, err
	}
	return netip.AddrPortFrom(allowed[0], uint16(number)), allowed[1:], nil
}
