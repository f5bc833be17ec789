// SPDX-FileCopyrightText: The Rollcall Authors
// SPDX-License-Identifier: Apache-2.0

package xds

import "strings"

// kind is a type of resource.
type kind struct {
	name  string // of the message, as in "xdstp:" names
	whole bool   // a response has all resources of a stream: what it lacks is deleted
}

const typePrefix = "type.googleapis.com/"

func (k *kind) typeURL() string { return typePrefix + k.name }

var (
	listeners   = &kind{"envoy.config.listener.v3.Listener", true}
	routes      = &kind{"envoy.config.route.v3.RouteConfiguration", false}
	clusters    = &kind{"envoy.config.cluster.v3.Cluster", true}
	assignments = &kind{"envoy.config.endpoint.v3.ClusterLoadAssignment", false}

	// kinds are all of them, in the order in which they are sent: a client has the policy and the
	// routes of a service before it has the endpoints to call.
	kinds = []*kind{clusters, listeners, routes, assignments}
)

// kindOf returns nil for a type that is not served.
func kindOf(typeURL string) *kind {
	name, ok := strings.CutPrefix(typeURL, typePrefix)
	for _, k := range kinds {
		if ok && k.name == name {
			return k
		}
	}
	return nil
}
