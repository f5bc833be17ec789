// SPDX-FileCopyrightText: The Rollcall Authors
// SPDX-License-Identifier: Apache-2.0

// Package resolver resolves gRPC targets such as "etcd:///my-service" from etcd, as a
// drop-in for go.etcd.io/etcd/client/v3/naming/resolver: changing the import path is
// the migration.
//
// A target names a service; its endpoints are the keys under "<service>/". The
// authority and one trailing "/" are ignored; percent-escapes are decoded. A query selects
// by metadata, as [rollcall.ParseSelector] has it: "etcd:///my-service?version=v2&zone=eu-1".
// Channels of one etcd client share one watch a service, whatever they select. A channel
// sees, in this order: the instances that it selects and whose address the policy takes,
// without those that are draining (unless all are), one an address; the first eight in an
// order of the channel's own.
//
// # Metadata
//
// An endpoint's metadata reaches balancing policies by [AttributesOf] and [InstanceOf].
// gRPC's own attributes are set from it too: the weight that pick_first's shuffle and
// ring_hash go by, and ring_hash's key, the field "hash_key" or else the endpoint's id. Of
// endpoints with the same "hash_key" the one with the least id gets it; the others get it
// with their id appended, since ring_hash calls only one endpoint of each key. A change of
// metadata alone reconnects nothing.
//
// # Service config
//
// The key "_grpc_config/<service>" holds a service config as JSON. It is laid over
// [Options].DefaultServiceConfig, field by field of its top level, and followed as it
// changes. What gRPC refuses is logged and changes nothing; a deleted one gives way to the
// default, or to an empty one. Without either nothing is sent, so that
// grpc.WithDefaultServiceConfig applies. A channel with grpc.WithDisableServiceConfig reads
// none; one that may not read it resolves as without. The first state waits for it 1 s.
//
// # Errors
//
// Build does no I/O. While etcd has not answered, calls fail with UNAVAILABLE and
// etcd's own error after 1 s. Calls to a service without endpoints fail with an error that
// names service, prefix, revision and reason. Both heal by themselves. Once endpoints are
// known they are kept while etcd cannot be reached.
//
// When the last endpoint of a service leaves, the channel is told of one endpoint without
// addresses, and then of the error: with no endpoint at all, gRPC's policies fail calls with
// errors of their own. A balancer must expect endpoints without addresses; see gRFC A61 and
// grpc's resolver.ValidateEndpoints. Channels through an HTTP proxy are told of no endpoint
// instead, and their calls fail with the policy's own error.
//
// # Concurrency
//
// A channel is told of one thing at a time, by a goroutine that ends in Close, and one that
// is slow delays no other. What channels of one builder see of a service is worked out once
// for all of them. Where more than a few share a service, idle ones hold no goroutine.
package resolver
