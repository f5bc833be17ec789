// SPDX-FileCopyrightText: The Rollcall Authors
// SPDX-License-Identifier: Apache-2.0

// Package xds serves the services of a Directory as xDS, for gRPC in any language and for Envoy:
// xds:///my-service is what etcd:///my-service is to Go.
//
//	directory, err := rollcall.NewDirectory(client, rollcall.DirectoryOptions{})
//	...
//	server, err := xds.NewServer(directory, xds.Options{})
//	...
//	server.Register(grpcServer)
//
// A client's Listener, RouteConfiguration and Cluster are functions of the service's name and
// its service config. They are answered at once and never deleted. Its ClusterLoadAssignment is
// a function of the Directory's snapshot and of where the client is. It is empty only where
// etcd has no endpoints; while etcd cannot be reached it stays what it was.
package xds
