// SPDX-FileCopyrightText: The Rollcall Authors
// SPDX-License-Identifier: Apache-2.0

package xds_test

import (
	"context"
	"encoding/binary"
	"errors"
	"log/slog"
	"testing"
	"time"

	corev3 "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	discoveryv3 "github.com/envoyproxy/go-control-plane/envoy/service/discovery/v3"
	statuspb "google.golang.org/genproto/googleapis/rpc/status"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/proto"

	"github.com/rollcall-grpc/rollcall"
	"github.com/rollcall-grpc/rollcall/internal/test/fakeetcd"
	"github.com/rollcall-grpc/rollcall/xds"
)

// FuzzStream has a stream of any requests served: it goes on or ends with a status, and a
// neighbour is served as ever.
func FuzzStream(f *testing.F) {
	for _, reqs := range [][]*discoveryv3.DiscoveryRequest{
		{{TypeUrl: listenerType, ResourceNames: []string{"a", "a", "", "b?zone=x", "xdstp://h/x/y?z"}, Node: &corev3.Node{Id: "n"}}},
		{{TypeUrl: clusterType}, {TypeUrl: clusterType, ResponseNonce: "1", ErrorDetail: &statuspb.Status{Code: 3}}, {TypeUrl: clusterType, ResourceNames: []string{"*"}}},
		{{TypeUrl: assignmentType, ResourceNames: []string{"a"}, VersionInfo: "x", ResponseNonce: "7"}, {TypeUrl: assignmentType, ResourceNames: []string{"grpc/server?xds.resource.listening_address=:1"}}},
		{{TypeUrl: "nonsense"}},
	} {
		var data []byte
		for _, req := range reqs {
			b, err := proto.Marshal(req)
			if err != nil {
				f.Fatal(err)
			}
			data = append(binary.BigEndian.AppendUint16(data, uint16(len(b))), b...)
		}
		f.Add(data)
	}
	etcd := fakeetcd.New()
	defer etcd.Close()
	conn := etcd.Connect(context.Background())
	defer conn.Close()
	directory, err := rollcall.NewDirectory(conn.Client, rollcall.DirectoryOptions{Logger: slog.New(slog.DiscardHandler)})
	if err != nil {
		f.Fatal(err)
	}
	defer directory.Close()
	server, err := xds.NewServer(directory, xds.Options{MaxNames: 20})
	if err != nil {
		f.Fatal(err)
	}
	defer server.Close()
	etcd.Put("a/1", `{"Addr":"10.0.0.1:80"}`)
	f.Fuzz(func(t *testing.T, data []byte) {
		var reqs []*discoveryv3.DiscoveryRequest
		for len(data) > 2 {
			n := min(int(binary.BigEndian.Uint16(data)), len(data)-2)
			req := new(discoveryv3.DiscoveryRequest)
			if proto.Unmarshal(data[2:2+n], req) == nil {
				reqs = append(reqs, req)
			}
			data = data[2+n:]
		}
		if _, err := play(t, server, reqs); err != nil && !errors.Is(err, context.Canceled) && status.Code(err) != codes.Canceled && status.Code(err) != codes.InvalidArgument && status.Code(err) != codes.ResourceExhausted {
			t.Errorf("the stream ended with %v", err)
		}
		responses, _ := play(t, server, []*discoveryv3.DiscoveryRequest{{TypeUrl: assignmentType, ResourceNames: []string{"a"}}})
		if len(responses) != 1 {
			t.Errorf("a neighbour has %d responses", len(responses))
		}
	})
}

// play sends requests, waits for a response to the last, and returns all responses.
func play(t *testing.T, server *xds.Server, reqs []*discoveryv3.DiscoveryRequest) ([]*discoveryv3.DiscoveryResponse, error) {
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	v := &virtual{ctx: ctx, requests: make(chan *discoveryv3.DiscoveryRequest)}
	ended := make(chan error, 1)
	go func() { ended <- server.StreamAggregatedResources(v) }()
	for _, req := range reqs {
		select {
		case v.requests <- req:
		case err := <-ended:
			return v.all(), err
		}
	}
	deadline := time.Now().Add(20 * time.Millisecond)
	if len(reqs) == 1 {
		deadline = deadline.Add(5 * time.Second)
	}
	for time.Now().Before(deadline) {
		if len(v.all()) > 0 || len(reqs) == 0 {
			break
		}
		select {
		case err := <-ended:
			return v.all(), err
		case <-time.After(100 * time.Microsecond):
		}
	}
	cancel()
	err := <-ended
	return v.all(), err
}
