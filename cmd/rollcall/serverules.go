// SPDX-FileCopyrightText: The Rollcall Authors
// SPDX-License-Identifier: Apache-2.0

package main

import (
	"bytes"
	"context"
	"crypto/x509"
	"fmt"
	"strings"
	"unicode/utf8"

	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/peer"
)

// rules are what --xds-allow holds: prefixes of services by a name in a client's certificate,
// "*" for any.
type rules map[string][]string

// parseRules reads a file of rules, a line each: a name, and prefixes of services.
func parseRules(contents [][]byte) (*rules, error) {
	r := make(rules)
	number := 0
	for line := range bytes.Lines(contents[0]) {
		number++
		if !utf8.Valid(line) {
			return nil, fmt.Errorf("line %d is not UTF-8", number)
		}
		text, _, _ := strings.Cut(" "+string(line), " #") // a "#" within a word is part of it
		fields := strings.Fields(text)
		switch len(fields) {
		case 0:
			continue
		case 1:
			return nil, fmt.Errorf("line %d: %q has no prefix of services behind it; write NAME PREFIX..., * for any", number, fields[0])
		}
		for _, prefix := range fields[1:] {
			if prefix != "*" && strings.Contains(prefix, "*") {
				return nil, fmt.Errorf("line %d: prefix %q: a * stands alone, for any service", number, prefix)
			}
		}
		if name := fields[0]; name != "*" && strings.Contains(name, "*") {
			return nil, fmt.Errorf("line %d: name %q: a * stands alone, for any client", number, name)
		}
		r[fields[0]] = append(r[fields[0]], fields[1:]...)
	}
	return &r, nil
}

// allow reports whether a client with some names may ask for a service.
func (r rules) allow(names []string, service string) bool {
	for _, name := range append([]string{"*"}, names...) {
		for _, prefix := range r[name] {
			if prefix == "*" || strings.HasPrefix(service, prefix) {
				return true
			}
		}
	}
	return false
}

// authorize returns why the client of a stream may not ask for a service.
func (r rules) authorize(ctx context.Context, service string) error {
	names := clientNames(ctx)
	switch {
	case r.allow(names, service):
		return nil
	case len(names) == 0:
		return fmt.Errorf("clients without a name in their certificate may not ask for %q", service)
	}
	return fmt.Errorf("%s may not ask for %q", strings.Join(names, ", "), service)
}

// clientNames returns the DNS names and URIs of the certificate that a stream's client has shown.
func clientNames(ctx context.Context) (names []string) {
	cert := clientCertificate(ctx)
	if cert == nil {
		return nil
	}
	names = append(names, cert.DNSNames...)
	for _, uri := range cert.URIs {
		names = append(names, uri.String())
	}
	return names
}

// clientCertificate returns nil where there is none.
func clientCertificate(ctx context.Context) *x509.Certificate {
	p, ok := peer.FromContext(ctx)
	if !ok {
		return nil
	}
	info, ok := p.AuthInfo.(credentials.TLSInfo)
	if !ok || len(info.State.VerifiedChains) == 0 {
		return nil
	}
	return info.State.VerifiedChains[0][0]
}
