// SPDX-FileCopyrightText: The Rollcall Authors
// SPDX-License-Identifier: Apache-2.0

package doctor

import (
	"net"
	"net/netip"
	"strings"
)

// hostOf returns the host:port of an endpoint, which may be a URL.
func hostOf(endpoint string) string {
	if _, host, ok := strings.Cut(endpoint, "://"); ok {
		return strings.TrimSuffix(host, "/")
	}
	return endpoint
}

// isLoopback reports whether an address, with or without a port, is of the host that dials it.
func isLoopback(addr string) bool {
	host, _, err := net.SplitHostPort(addr)
	if err != nil {
		host = addr
	}
	ip, err := netip.ParseAddr(host)
	return host == "localhost" || err == nil && ip.Unmap().IsLoopback()
}
