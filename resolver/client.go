// SPDX-FileCopyrightText: The Rollcall Authors
// SPDX-License-Identifier: Apache-2.0

package resolver

import (
	"net/url"
	"strings"

	clientv3 "go.etcd.io/etcd/client/v3"
	"google.golang.org/grpc"

	"github.com/rollcall-grpc/rollcall"
)

const roundRobin = `{"loadBalancingConfig":[{"round_robin":{}}]}`

// NewClient returns a channel to a service, as grpc.NewClient does to a target; close it
// before the etcd client. Calls go to all endpoints in turn, unless the service config in
// etcd names another policy, or grpc.WithDefaultServiceConfig in opts does while there is
// none in etcd. The options must include transport credentials.
//
// Channels of one etcd client share its watches. Those that select by metadata, and
// programs with many channels to a large service, which share more, take a builder and
// grpc.NewClient.
func NewClient(client *clientv3.Client, service string, opts ...grpc.DialOption) (*grpc.ClientConn, error) {
	service, err := rollcall.ParseService(service)
	if err != nil {
		return nil, err
	}
	if strings.Contains(service, "://") {
		return nil, &rollcall.InputError{Field: "service", Value: service,
			Reason: "give the name alone, such as my-service; a target goes to grpc.NewClient, with a builder of NewBuilder"}
	}
	directory, err := rollcall.SharedDirectory(client)
	if err != nil {
		return nil, err
	}
	builder, err := newBuilder(directory, Options{})
	if err != nil {
		return nil, err
	}
	builder.under = roundRobin
	target := url.URL{Scheme: Scheme, Path: "/" + service}
	defaults := []grpc.DialOption{grpc.WithResolvers(builder), grpc.WithDefaultServiceConfig(roundRobin)}
	return grpc.NewClient(target.String(), append(defaults, opts...)...)
}
