// SPDX-FileCopyrightText: The Rollcall Authors
// SPDX-License-Identifier: Apache-2.0

package etcdkv

import (
	"bytes"
	"fmt"
	"slices"
	"testing"

	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
	"go.etcd.io/etcd/api/v3/mvccpb"
	"go.etcd.io/etcd/client/v3/namespace"
	"google.golang.org/grpc/encoding"
	protocodec "google.golang.org/grpc/encoding/proto"
	"google.golang.org/grpc/mem"
	"google.golang.org/protobuf/encoding/protowire"
	"google.golang.org/protobuf/proto"
	"pgregory.net/rapid"

	"github.com/rollcall-grpc/rollcall/internal/test/fakeetcd"
)

// decodePart decodes a message in buffers of some size, and returns it with what was added put back.
func decodePart(data []byte, size int) (*pb.RangeStreamResponse, error) {
	var kvs []*mvccpb.KeyValue
	codec := &rangeCodec{CodecV2: encoding.GetCodecV2(protocodec.Name), add: func(some []*mvccpb.KeyValue) {
		for _, kv := range some { // Key and Value may be kept
			kvs = append(kvs, &mvccpb.KeyValue{Key: kv.Key, CreateRevision: kv.CreateRevision, ModRevision: kv.ModRevision,
				Version: kv.Version, Value: kv.Value, Lease: kv.Lease})
		}
	}}
	var buffers mem.BufferSlice
	for chunk := range slices.Chunk(slices.Clone(data), size) {
		buffers = append(buffers, mem.SliceBuffer(chunk))
	}
	part := new(pb.RangeStreamResponse)
	if err := codec.Unmarshal(buffers, part); err != nil {
		return nil, err
	}
	if len(kvs) > 0 {
		part.RangeResponse.Kvs = append(kvs, part.RangeResponse.Kvs...)
	}
	return part, nil
}

// Whatever etcd sends, in whatever pieces, is read as gRPC's own codec does.
func TestRangeCodec(t *testing.T) {
	text := rapid.Custom(func(t *rapid.T) []byte { return []byte(rapid.StringN(0, 40, -1).Draw(t, "text")) })
	rapid.Check(t, func(t *rapid.T) {
		resp := new(pb.RangeResponse)
		for i := range rapid.IntRange(0, 600).Draw(t, "keys") {
			resp.Kvs = append(resp.Kvs, &mvccpb.KeyValue{Key: fmt.Appendf(text.Draw(t, "key"), "%d", i), Value: text.Draw(t, "value"),
				CreateRevision: rapid.Int64().Draw(t, "created"), ModRevision: rapid.Int64().Draw(t, "modified"), Lease: rapid.Int64().Draw(t, "lease")})
		}
		if rapid.Bool().Draw(t, "last") {
			resp.Header = &pb.ResponseHeader{Revision: rapid.Int64Min(1).Draw(t, "revision"), RaftTerm: 7}
			resp.Count, resp.More = rapid.Int64Min(0).Draw(t, "count"), rapid.Bool().Draw(t, "more")
		}
		want := &pb.RangeStreamResponse{RangeResponse: resp}
		data, err := proto.Marshal(want)
		if err != nil {
			t.Fatal(err)
		}
		if got, err := decodePart(data, rapid.IntRange(1, 1000).Draw(t, "buffer")); err != nil || !proto.Equal(got, want) {
			t.Errorf("got %v, %v, want %v", got, err, want)
		}
	})
}

// What another server may write is read all the same, and what is cut off is an error.
func TestRangeCodecOfOtherMessages(t *testing.T) {
	kv, err := proto.Marshal(&pb.RangeResponse{Kvs: []*mvccpb.KeyValue{{Key: []byte("k"), Value: []byte("v"), ModRevision: 3}}})
	if err != nil {
		t.Fatal(err)
	}
	unknown := protowire.AppendBytes(protowire.AppendTag(nil, 100, protowire.BytesType), []byte("new"))
	more := protowire.AppendVarint(protowire.AppendTag(nil, 3, protowire.VarintType), 1)
	response := func(fields ...[]byte) []byte {
		return protowire.AppendBytes(protowire.AppendTag(nil, 1, protowire.BytesType), slices.Concat(fields...))
	}
	for name, data := range map[string][]byte{
		"nothing":                                nil,
		"an empty response":                      response(),
		"key-values behind a number":             response(kv, more, kv, kv),
		"an unknown field":                       response(unknown, kv, more),
		"an unknown field beside":                append(response(kv, more), unknown...),
		"an unknown field before":                append(slices.Clone(unknown), response(kv)...),
		"a response in two pieces":               append(response(kv), response(kv, more)...),
		"an invalid key-value":                   response(protowire.AppendBytes(protowire.AppendTag(nil, 2, protowire.BytesType), []byte{0xff})),
		"a key-value that is cut off":            response(kv[:len(kv)-1]),
		"a length that is cut off":               response(kv, []byte{kvsTagByte, 0x80}),
		"a length of a gigabyte and more":        response(kv, protowire.AppendVarint([]byte{kvsTagByte}, 1<<50)),
		"300 key-values and one that is cut off": response(bytes.Repeat(kv, 300), kv[:len(kv)-1]),
		"a tag that is cut off":                  response(kv, []byte{0x80}),
		"a response that is cut off":             response(kv, kv)[:12],
	} {
		want := new(pb.RangeStreamResponse)
		wantErr := proto.Unmarshal(data, want)
		got, err := decodePart(data, 5)
		if (err != nil) != (wantErr != nil) || err == nil && !proto.Equal(got, want) {
			t.Errorf("%s: got %v, %v, want %v, %v", name, got, err, want, wantErr)
		}
	}
}

const kvsTagByte = 2<<3 | byte(protowire.BytesType)

// A client with a namespace is asked through it, in pages.
func TestNamespacedList(t *testing.T) {
	bubble(t, func(t *testing.T, store *fakeetcd.Store, conn *fakeetcd.Conn) {
		const n = firstPage + pageSize + 5
		fill(store, "team/p/", n)
		conn.StreamRanges(1000)
		conn.Client.KV = namespace.NewKV(conn.Client.KV, "team/")
		var got result
		if _, err := got.list(conn, false).Read(t.Context(), nil); err != nil {
			t.Fatal(err)
		}
		got.wantAll(t, "p/", n, 3)
		if streams := conn.Calls(fakeetcd.GetStream); streams != 0 {
			t.Errorf("%d streams past the namespace", streams)
		}
	})
}

// BenchmarkRangeCodec decodes parts of a stream.
func BenchmarkRangeCodec(b *testing.B) {
	for _, n := range []int{10, 1_000, 10_000} {
		resp := new(pb.RangeResponse)
		for i := range n {
			resp.Kvs = append(resp.Kvs, &mvccpb.KeyValue{Key: fmt.Appendf(nil, "my-service/10.0.%d.%d:50051", i>>8, i&255), ModRevision: int64(i), CreateRevision: int64(i),
				Version: 1, Value: fmt.Appendf(nil, `{"Op":0,"Addr":"10.0.%d.%d:50051","Metadata":{"weight":7,"zone":"eu-1"}}`, i>>8, i&255), Lease: 1 << 60})
		}
		library := encoding.GetCodecV2(protocodec.Name)
		data, err := library.Marshal(&pb.RangeStreamResponse{RangeResponse: resp})
		if err != nil {
			b.Fatal(err)
		}
		for name, codec := range map[string]encoding.CodecV2{"ours": &rangeCodec{CodecV2: library, add: func([]*mvccpb.KeyValue) {}}, "library": library} {
			b.Run(fmt.Sprintf("%s/%d", name, n), func(b *testing.B) {
				b.ReportAllocs()
				for b.Loop() {
					if err := codec.Unmarshal(data, new(pb.RangeStreamResponse)); err != nil {
						b.Fatal(err)
					}
				}
			})
		}
	}
}
