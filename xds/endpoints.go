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

	"github.com/rollcall-grpc/rollcall"
)

// endpoint is what clients are sent of an instance.
type endpoint struct {
	addr     netip.AddrPort
	more     []netip.Addr // other addresses of the same host that no other endpoint has
	instance *rollcall.Instance
	weight   uint32
	locality rollcall.Locality
	draining bool // while others are not
}

// lookup returns the addresses of a host, the same in the same order for all clients, or why
// there are none.
type lookup func(host string) ([]netip.Addr, error)

// errResolving is lookup's error for a host that it was not asked for before.
var errResolving = errors.New("the host name is being resolved")

// endpointsOf returns the endpoints of the instances that a selector selects, sorted by address,
// one an address. Those that cannot be sent are left out: clients take nothing but IP addresses.
func endpointsOf(snap *rollcall.Snapshot, selector rollcall.Selector, policy rollcall.AddressPolicy, look lookup) (endpoints []endpoint, left []rollcall.Disallowed) {
	selection := snap.Select(selector, policy)
	left = selection.Disallowed
	endpoints = make([]endpoint, 0, len(selection.Callable)+len(selection.Others))
	at := make(map[netip.AddrPort]int, len(selection.Callable))
	add := func(inst *rollcall.Instance, draining bool) {
		addr, more, err := resolve(inst.Addr, policy, look)
		if err != nil {
			left = append(left, rollcall.Disallowed{Instance: inst, Cause: err})
			return
		}
		a := inst.Attributes()
		ep := endpoint{addr, more, inst, a.Weight, a.Locality, draining}
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

// resolve returns the addresses of "host:port" that a policy allows.
func resolve(text string, policy rollcall.AddressPolicy, look lookup) (addr netip.AddrPort, more []netip.Addr, err error) {
	if addr, err = netip.ParseAddrPort(text); err == nil {
		return netip.AddrPortFrom(addr.Addr().Unmap(), addr.Port()), nil, nil
	}
	host, port, err := net.SplitHostPort(text)
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
