// SPDX-FileCopyrightText: The Rollcall Authors
// SPDX-License-Identifier: Apache-2.0

package xds

import (
	"fmt"
	"net"
	"strconv"
	"strings"

	corev3 "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	listenerv3 "github.com/envoyproxy/go-control-plane/envoy/config/listener/v3"
	routev3 "github.com/envoyproxy/go-control-plane/envoy/config/route/v3"
	routerv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/http/router/v3"
	managerv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/network/http_connection_manager/v3"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/anypb"

	"github.com/rollcall-grpc/rollcall"
)

// clientListener returns the Listener of a channel's target. It has the routes with it, which
// saves the client a round trip.
func clientListener(n resourceName, config *serviceConfig) *listenerv3.Listener {
	return &listenerv3.Listener{
		Name: n.text,
		ApiListener: &listenerv3.ApiListener{
			ApiListener: toAny(connectionManager(routeConfiguration(n.as(routes), n.as(clusters), config))),
		},
	}
}

// serverListener returns the Listener of a gRPC server, by which it serves as it would without
// xDS. A client checks the address in it against its own.
func serverListener(n resourceName) (*listenerv3.Listener, error) {
	host, port, err := net.SplitHostPort(n.listening)
	if err != nil {
		return nil, nameError(n.text, "it must end with an address such as 127.0.0.1:50051")
	}
	number, err := strconv.ParseUint(port, 10, 16)
	if err != nil {
		return nil, nameError(n.text, fmt.Sprintf("%q is not a port", port))
	}
	accept := &routev3.RouteConfiguration{
		Name: "inbound",
		VirtualHosts: []*routev3.VirtualHost{{
			Name:    "all",
			Domains: []string{"*"},
			Routes:  []*routev3.Route{{Match: prefixMatch(""), Action: &routev3.Route_NonForwardingAction{NonForwardingAction: &routev3.NonForwardingAction{}}}},
		}},
	}
	return &listenerv3.Listener{
		Name:    n.text,
		Address: socketAddress(host, uint32(number)),
		FilterChains: []*listenerv3.FilterChain{{
			Name: "default",
			Filters: []*listenerv3.Filter{{
				Name:       "http_connection_manager",
				ConfigType: &listenerv3.Filter_TypedConfig{TypedConfig: toAny(connectionManager(accept))},
			}},
		}},
	}, nil
}

func connectionManager(rc *routev3.RouteConfiguration) *managerv3.HttpConnectionManager {
	return &managerv3.HttpConnectionManager{
		StatPrefix:     "rollcall",
		RouteSpecifier: &managerv3.HttpConnectionManager_RouteConfig{RouteConfig: rc},
		HttpFilters: []*managerv3.HttpFilter{{
			Name:       "router", // has to be the last
			ConfigType: &managerv3.HttpFilter_TypedConfig{TypedConfig: toAny(&routerv3.Router{})},
		}},
	}
}

// routeConfiguration sends all calls to a cluster, with the time-outs and retries of the
// service config.
func routeConfiguration(name, cluster string, config *serviceConfig) *routev3.RouteConfiguration {
	host := &routev3.VirtualHost{Name: "all", Domains: []string{"*"}}
	for _, r := range config.routes {
		action := &routev3.RouteAction{
			ClusterSpecifier:  &routev3.RouteAction_Cluster{Cluster: cluster},
			MaxStreamDuration: r.timeout,
			RetryPolicy:       r.retry,
		}
		if config.hash != nil {
			action.HashPolicy = []*routev3.RouteAction_HashPolicy{config.hash}
		}
		host.Routes = append(host.Routes, &routev3.Route{Match: r.match, Action: &routev3.Route_Route{Route: action}})
	}
	return &routev3.RouteConfiguration{Name: name, VirtualHosts: []*routev3.VirtualHost{host}}
}

func prefixMatch(prefix string) *routev3.RouteMatch {
	return &routev3.RouteMatch{PathSpecifier: &routev3.RouteMatch_Prefix{Prefix: prefix}}
}

func socketAddress(host string, port uint32) *corev3.Address {
	return &corev3.Address{Address: &corev3.Address_SocketAddress{SocketAddress: &corev3.SocketAddress{
		Address:       host,
		PortSpecifier: &corev3.SocketAddress_PortValue{PortValue: port},
	}}}
}

// localityProto returns a locality as xDS has it.
func localityProto(l rollcall.Locality) *corev3.Locality {
	return &corev3.Locality{Region: validUTF8(l.Region), Zone: validUTF8(l.Zone), SubZone: validUTF8(l.Subzone)}
}

// validUTF8 returns text as protocol buffers can carry it.
func validUTF8(text string) string { return strings.ToValidUTF8(text, "\uFFFD") }

// toAny marshals a message, in the same way on every replica.
func toAny(m proto.Message) *anypb.Any {
	packed := new(anypb.Any)
	if err := anypb.MarshalFrom(packed, m, proto.MarshalOptions{Deterministic: true}); err != nil {
		panic(err) // a message of ours: only invalid UTF-8 can fail, and what comes from etcd or a client was checked
	}
	return packed
}
