// SPDX-FileCopyrightText: The Rollcall Authors
// SPDX-License-Identifier: Apache-2.0

package xds

import (
	"strings"
	"testing"

	discoveryv3 "github.com/envoyproxy/go-control-plane/envoy/service/discovery/v3"
	"google.golang.org/grpc/encoding"
	protocodec "google.golang.org/grpc/encoding/proto"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/anypb"
)

// A client reads the same from both codecs, and a resource is not copied.
func TestCodec(t *testing.T) {
	large := &anypb.Any{TypeUrl: assignments.typeURL(), Value: []byte(strings.Repeat("resource", 10_000))}
	for name, resources := range map[string][]*anypb.Any{
		"none":  nil,
		"one":   {large},
		"some":  {{TypeUrl: "a", Value: []byte("b")}, large, {TypeUrl: clusters.typeURL()}, {}},
		"empty": {{}},
	} {
		want := &discoveryv3.DiscoveryResponse{TypeUrl: assignments.typeURL(), VersionInfo: "v", Nonce: "7", Resources: resources}
		data, err := codec{encoding.GetCodecV2(protocodec.Name)}.Marshal(want)
		if err != nil {
			t.Fatal(err)
		}
		got := new(discoveryv3.DiscoveryResponse)
		if err := proto.Unmarshal(data.Materialize(), got); err != nil || !proto.Equal(got, want) {
			t.Errorf("%s: %d resources, %v, differ from the %d sent", name, len(got.GetResources()), err, len(resources))
		}
		shared := false
		for _, b := range data {
			part := b.ReadOnlyData()
			shared = shared || len(part) > 0 && &part[0] == &large.Value[0]
		}
		if want := name == "one" || name == "some"; shared != want {
			t.Errorf("%s: the large resource is shared: %v, want %v", name, shared, want)
		}
	}
}
