// SPDX-FileCopyrightText: The Rollcall Authors
// SPDX-License-Identifier: Apache-2.0

package xds

import (
	discoveryv3 "github.com/envoyproxy/go-control-plane/envoy/service/discovery/v3"
	"google.golang.org/grpc"
	"google.golang.org/grpc/encoding"
	protocodec "google.golang.org/grpc/encoding/proto"
	"google.golang.org/grpc/mem"
	"google.golang.org/protobuf/encoding/protowire"
	"google.golang.org/protobuf/proto"
)

// ServerOption has a gRPC server send resources to all streams from the same memory, instead of a
// copy for each. It is worth it where many streams are sent large resources: the scenarios
// xds/1x1000 of module bench show it. Other messages are sent as they would be without it.
func ServerOption() grpc.ServerOption {
	return grpc.ForceServerCodecV2(codec{encoding.GetCodecV2(protocodec.Name)})
}

// codec marshals the responses of the state of the world around their resources.
type codec struct{ encoding.CodecV2 }

func (c codec) Marshal(v any) (mem.BufferSlice, error) {
	resp, ok := v.(*discoveryv3.DiscoveryResponse)
	if !ok {
		return c.CodecV2.Marshal(v)
	}
	b, err := proto.Marshal(&discoveryv3.DiscoveryResponse{VersionInfo: resp.VersionInfo, TypeUrl: resp.TypeUrl, Nonce: resp.Nonce})
	if err != nil {
		return nil, err
	}
	var all mem.BufferSlice
	for _, r := range resp.Resources {
		before := protowire.AppendTag(nil, 1, protowire.BytesType) // the Any's type_url
		before = protowire.AppendString(before, r.TypeUrl)
		before = protowire.AppendTag(before, 2, protowire.BytesType) // its value
		before = protowire.AppendVarint(before, uint64(len(r.Value)))
		b = protowire.AppendTag(b, 2, protowire.BytesType) // resources
		b = protowire.AppendVarint(b, uint64(len(before)+len(r.Value)))
		all = append(all, mem.SliceBuffer(append(b, before...)), mem.SliceBuffer(r.Value))
		b = nil
	}
	if len(b) == 0 {
		return all, nil
	}
	return append(all, mem.SliceBuffer(b)), nil
}
