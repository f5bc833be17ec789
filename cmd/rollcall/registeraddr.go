// SPDX-FileCopyrightText: The Rollcall Authors
// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"net"
	"net/netip"
	"net/url"
	"strings"
)

// completeAddr returns an address to advertise. One without a host gets the address that this host
// uses towards etcd, which is the one that others reach it by most likely.
func (a *app) completeAddr(ctx context.Context, addr string) (string, error) {
	port, ok := strings.CutPrefix(addr, ":")
	if !ok || port == "" {
		return addr, nil
	}
	wayOut := "give the host yourself, --addr HOST:" + port
	for _, endpoint := range a.endpoints {
		local, remote, err := a.localTowards(ctx, endpoint)
		switch {
		case err != nil:
			continue
		case local.IsLoopback() && !remote.IsLoopback(), local.IsLinkLocalUnicast():
			return "", fail(exitUsage, "this host talks to etcd at %s from %s, which other hosts cannot reach; %s", endpoint, local, wayOut)
		}
		found := net.JoinHostPort(local.String(), port)
		if local.IsLoopback() {
			a.say("advertising %s, since etcd is on this host: other hosts cannot reach it; for those, %s", found, wayOut)
		} else {
			a.say("advertising %s, the address of this host towards etcd; for another one, %s", found, wayOut)
		}
		return found, nil
	}
	return "", fail(exitUsage, "cannot find the address of this host towards etcd at %s; %s", strings.Join(a.endpoints, ","), wayOut)
}

// localTowards returns the address that this host uses towards an endpoint of etcd, and that of the
// endpoint. Nothing is sent: the kernel chooses a route when a UDP socket is connected.
func (a *app) localTowards(ctx context.Context, endpoint string) (local, remote netip.Addr, err error) {
	if u, err := url.Parse(endpoint); err == nil && u.Host != "" {
		endpoint = u.Host
	}
	ctx, cancel := context.WithTimeout(ctx, a.dialTimeout) // a name is resolved
	defer cancel()
	conn, err := new(net.Dialer).DialContext(ctx, "udp", endpoint)
	if err != nil {
		return local, remote, err
	}
	defer conn.Close()
	return conn.LocalAddr().(*net.UDPAddr).AddrPort().Addr().Unmap(), conn.RemoteAddr().(*net.UDPAddr).AddrPort().Addr().Unmap(), nil
}
