// SPDX-FileCopyrightText: The Rollcall Authors
// SPDX-License-Identifier: Apache-2.0

package xds

import (
	discoveryv3 "github.com/envoyproxy/go-control-plane/envoy/service/discovery/v3"
	statuspb "google.golang.org/genproto/googleapis/rpc/status"
	"google.golang.org/protobuf/types/known/anypb"
)

// StreamAggregatedResources implements the state of the world variant.
func (s *Server) StreamAggregatedResources(stream discoveryv3.AggregatedDiscoveryService_StreamAggregatedResourcesServer) error {
	return s.serve(stateOfTheWorld{stream})
}

// DeltaAggregatedResources implements the incremental variant.
func (s *Server) DeltaAggregatedResources(stream discoveryv3.AggregatedDiscoveryService_DeltaAggregatedResourcesServer) error {
	return s.serve(incremental{stream})
}

type stateOfTheWorld struct {
	discoveryv3.AggregatedDiscoveryService_StreamAggregatedResourcesServer
}

func (stateOfTheWorld) incremental() bool { return false }

func (t stateOfTheWorld) receive() (*request, error) {
	req, err := t.Recv()
	if err != nil {
		return nil, err
	}
	return &request{typeURL: req.TypeUrl, nonce: req.ResponseNonce, node: req.Node, nack: nack(req.ErrorDetail),
		names: req.ResourceNames, version: req.VersionInfo}, nil
}

func (t stateOfTheWorld) send(r *response) error {
	resp := &discoveryv3.DiscoveryResponse{TypeUrl: r.kind.typeURL(), VersionInfo: r.version, Nonce: r.nonce,
		Resources: make([]*anypb.Any, len(r.resources))}
	for i, res := range r.resources {
		resp.Resources[i] = res.body
	}
	return t.Send(resp)
}

type incremental struct {
	discoveryv3.AggregatedDiscoveryService_DeltaAggregatedResourcesServer
}

func (incremental) incremental() bool { return true }

func (t incremental) receive() (*request, error) {
	req, err := t.Recv()
	if err != nil {
		return nil, err
	}
	return &request{typeURL: req.TypeUrl, nonce: req.ResponseNonce, node: req.Node, nack: nack(req.ErrorDetail),
		subscribe: req.ResourceNamesSubscribe, unsubscribe: req.ResourceNamesUnsubscribe, versions: req.InitialResourceVersions}, nil
}

func (t incremental) send(r *response) error {
	resp := &discoveryv3.DeltaDiscoveryResponse{TypeUrl: r.kind.typeURL(), SystemVersionInfo: r.version, Nonce: r.nonce,
		Resources: make([]*discoveryv3.Resource, len(r.resources))}
	for i, res := range r.resources {
		resp.Resources[i] = &discoveryv3.Resource{Name: res.watch.view.name, Version: res.version, Resource: res.body}
	}
	return t.Send(resp)
}

// maxNack is how much is kept of why a client rejects a response, in bytes.
const maxNack = 1 << 10

// nack returns why a client rejects a response, "" if it does not.
func nack(detail *statuspb.Status) string {
	if detail == nil {
		return ""
	}
	if detail.Message == "" {
		return "no reason given"
	}
	return validUTF8(detail.Message[:min(len(detail.Message), maxNack)])
}
