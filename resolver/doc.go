// SPDX-FileCopyrightText: The Rollcall Authors
// SPDX-License-Identifier: Apache-2.0

// Package resolver resolves gRPC targets such as "etcd:///my-service" from etcd, as a
// drop-in for go.etcd.io/etcd/client/v3/naming/resolver: changing the import path is
// the migration. [NewClient] is the shortest way to a channel.
//
// A target names a service; its endpoints are the keys under "<service>/". The
// authority and one trailing "/" are ignored; percent-escapes are decoded. A query selects
// by metadata, as in "etcd:///my-service?version=v2&zone=eu-1"; see
// [rollcall.ParseSelector]. Channels of one etcd client share one watch a service, whatever
// they select.
//
// A channel sees the instances that its selector matches and whose address the policy
// allows, without those that are draining, one an address: the newest. If all are draining
// it sees those. Retained instances (see [rollcall.SelfPreservation]) are seen too. The first
// eight endpoints are shuffled, for each channel differently.
//
// # Metadata
//
// An endpoint's metadata reaches balancing policies by [AttributesFromEndpoint] and
// [InstanceFromEndpoint]. gRPC's own attributes are set from it too: the weight that
// pick_first's shuffle and ring_hash read, and ring_hash's key, which is the field "hash_key"
// or else the endpoint's id. Of endpoints with the same "hash_key" the one with the least id
// gets it; the others get it with their id appended, since ring_hash calls only one endpoint
// of each key. A change of metadata alone reconnects nothing.
//
// # Service config
//
// The key "_grpc_config/<service>" has a service config, as JSON. Its top-level fields replace
// those of [Options].DefaultServiceConfig. Channels follow its changes. A config that gRPC rejects is logged and changes nothing. A deleted one gives way
// to the default, or to an empty one. Without either nothing is sent, so that
// grpc.WithDefaultServiceConfig applies. A channel with grpc.WithDisableServiceConfig reads
// none; a client without permission to read it resolves without it. The first state waits
// up to 1 s for it.
//
// # Errors
//
// Build does no I/O. While etcd has not answered, calls fail with UNAVAILABLE and
// etcd's own error after 1 s. Calls to a service without endpoints fail with an error that
// names service, prefix, revision and reason. Both recover by themselves. While etcd is
// unreachable the last known endpoints stay.
//
// When the last endpoint of a service leaves, the channel is given one endpoint without
// addresses, and then the error: with no endpoint at all, gRPC's policies fail calls with
// errors of their own. A balancer must expect endpoints without addresses; see gRFC A61 and
// grpc's resolver.ValidateEndpoints. A channel that uses an HTTP proxy gets an empty list instead,
// and its calls fail with the policy's own error.
//
// # Concurrency
//
// A channel is updated by one goroutine at a time, which ends in Close; a slow channel
// delays no other. The channels of one builder with the same service and selector share
// one selection. If more than a few channels share a service, an idle one has no goroutine.
package resolver
