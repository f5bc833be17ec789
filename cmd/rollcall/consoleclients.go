// SPDX-FileCopyrightText: The Rollcall Authors
// SPDX-License-Identifier: Apache-2.0

package main

import (
	"slices"
	"strings"
	"time"

	"github.com/rollcall-grpc/rollcall/internal/console"
	"github.com/rollcall-grpc/rollcall/xds"
)

// consoleClients returns the clients of an xDS server as the page shows them.
func consoleClients(clients []xds.Client, now time.Time) []console.Client {
	shown := make([]console.Client, len(clients))
	for i, c := range clients {
		s := console.Client{ID: c.ID, Peer: c.Peer, UserAgent: c.UserAgent, Zone: c.Locality.Zone, Since: c.Since,
			State: stateOf(c.Resources), Reason: reasonText(c.Resources, now), Services: servicesOf(c.Resources)}
		for _, r := range c.Resources {
			short := r.Type[strings.LastIndexByte(r.Type, '.')+1:]
			s.Sent = append(s.Sent, console.Sent{Type: short, Version: r.Sent, Accepted: r.Sent != "" && r.Accepted == r.Sent})
		}
		shown[i] = s
	}
	return shown
}

// servicesOf returns the services that a client has asked for, sorted.
func servicesOf(resources []xds.Subscribed) (services []string) {
	for _, r := range resources {
		for _, name := range r.Names {
			if service, _, err := xds.ParseName(name); err == nil {
				services = append(services, service)
			}
		}
	}
	slices.Sort(services)
	return slices.Compact(services)
}
