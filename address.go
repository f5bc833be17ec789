// SPDX-FileCopyrightText: The Rollcall Authors
// SPDX-License-Identifier: Apache-2.0

package rollcall

import (
	"net"
	"net/netip"
	"slices"
	"strconv"
	"strings"
)

// AddressPolicy decides which addresses may be dialled or advertised: nil allows the
// address, an error disallows it. A nil policy is HostPort. Decode applies no policy;
// addresses are checked where they are used.
type AddressPolicy func(addr string) error

// Check applies the policy.
func (p AddressPolicy) Check(addr string) error {
	if p == nil {
		return HostPort(addr)
	}
	return p(addr)
}

// HostPort is the default AddressPolicy. It allows "host:port" with a numeric port
// from 1 to 65535 and a host that is a name or an IP address, but not an unspecified,
// multicast or link-local one. "unix:..." and URLs, which gRPC would dial in other ways,
// are disallowed. Errors are *InputError.
func HostPort(addr string) error {
	if ip, err := netip.ParseAddrPort(addr); err == nil && ip.Port() != 0 && reachable(ip.Addr()) {
		return nil // the common case
	}
	if scheme, _, _ := strings.Cut(addr, ":"); strings.EqualFold(scheme, "unix") || strings.EqualFold(scheme, "unix-abstract") {
		return inputError("address", addr, "other machines cannot dial a local socket; it must be host:port")
	}
	host, port, err := net.SplitHostPort(addr)
	if err != nil {
		return inputError("address", addr, "it must be host:port, for example 10.0.0.7:50051")
	}
	if n, err := strconv.ParseUint(port, 10, 16); err != nil || n == 0 {
		return inputError("address", addr, "the port must be a number from 1 to 65535")
	}
	if ip, err := netip.ParseAddr(host); err == nil {
		if !reachable(ip) {
			return inputError("address", addr, "the host is unspecified, multicast or link-local; use one that clients can reach")
		}
		return nil
	}
	if !isHostName(host) {
		return inputError("address", addr, "%q is neither a host name nor an IP address", host)
	}
	return nil
}

func reachable(ip netip.Addr) bool {
	ip = ip.Unmap()
	return !ip.IsUnspecified() && !ip.IsMulticast() && !ip.IsLinkLocalUnicast() && ip.Zone() == ""
}

// AllowCIDR returns a policy that allows an address if HostPort does and its host is an IP
// address in one of the prefixes. Host names are disallowed: they may resolve to any address.
// The policy limits where somebody who can write to etcd can direct clients.
func AllowCIDR(prefixes ...netip.Prefix) AddressPolicy {
	prefixes = slices.Clone(prefixes)
	for i, p := range prefixes {
		if p.Addr().Is4In6() && p.Bits() >= 96 {
			prefixes[i] = netip.PrefixFrom(p.Addr().Unmap(), p.Bits()-96)
		}
	}
	return func(addr string) error {
		if err := HostPort(addr); err != nil {
			return err
		}
		host, _, _ := net.SplitHostPort(addr)
		ip, err := netip.ParseAddr(host)
		if err != nil {
			return inputError("address", addr, "only IP addresses in %v are allowed, not host names", prefixes)
		}
		ip = ip.Unmap()
		if !slices.ContainsFunc(prefixes, func(p netip.Prefix) bool { return p.Contains(ip) }) {
			return inputError("address", addr, "it is not in %v", prefixes)
		}
		return nil
	}
}

// isHostName reports whether host is a name as in DNS and container networks: labels of
// letters, digits, "-" and "_", each of at most 63 bytes, separated by dots.
func isHostName(host string) bool {
	host = strings.TrimSuffix(host, ".")
	if host == "" || len(host) > 253 {
		return false
	}
	for label := range strings.SplitSeq(host, ".") {
		if label == "" || len(label) > 63 {
			return false
		}
		for _, c := range []byte(label) {
			switch {
			case 'a' <= c && c <= 'z', 'A' <= c && c <= 'Z', '0' <= c && c <= '9', c == '-', c == '_':
			default:
				return false
			}
		}
	}
	return true
}
