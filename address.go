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

// AddressPolicy says which addresses may be dialled or advertised: nil takes the
// address, an error refuses it. A nil policy is HostPort. The codec knows no
// policy: what etcd holds is read as it is and refused where it would be used.
type AddressPolicy func(addr string) error

// Check applies the policy.
func (p AddressPolicy) Check(addr string) error {
	if p == nil {
		return HostPort(addr)
	}
	return p(addr)
}

// HostPort is the default AddressPolicy. It takes "host:port" with a numeric port
// from 1 to 65535 and, as host, a name or an IP address that one peer can reach:
// not unspecified, multicast or link-local. gRPC would dial "unix:..." as a socket
// and a URL as whatever it names, so neither is a host here. Errors are *InputError.
func HostPort(addr string) error {
	if ip, err := netip.ParseAddrPort(addr); err == nil && ip.Port() != 0 && reachable(ip.Addr()) {
		return nil // nearly all
	}
	if scheme, _, _ := strings.Cut(addr, ":"); strings.EqualFold(scheme, "unix") || strings.EqualFold(scheme, "unix-abstract") {
		return inputError("address", addr, "a machine's own sockets cannot be shared through etcd; it must be host:port")
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
			return inputError("address", addr, "the host is unspecified, multicast or link-local; give one that clients can reach")
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

// AllowCIDR returns a policy that takes what HostPort takes and that is an IP address in
// one of the prefixes. Host names are refused: what they resolve to is not known yet.
// With it, whoever can write to etcd cannot have clients dial just anybody.
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
			return inputError("address", addr, "only IP addresses in %v are allowed, no host names", prefixes)
		}
		ip = ip.Unmap()
		if !slices.ContainsFunc(prefixes, func(p netip.Prefix) bool { return p.Contains(ip) }) {
			return inputError("address", addr, "it is not in %v", prefixes)
		}
		return nil
	}
}

// isHostName takes letters, digits, "-", "_" and dots between labels of at most
// 63 bytes: names as DNS and container networks have them.
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
