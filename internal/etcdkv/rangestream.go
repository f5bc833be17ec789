// SPDX-FileCopyrightText: The Rollcall Authors
// SPDX-License-Identifier: Apache-2.0

package etcdkv

import (
	"cmp"
	"context"
	"encoding/binary"
	"errors"
	"io"
	"reflect"
	"slices"
	"time"

	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
	"go.etcd.io/etcd/api/v3/mvccpb"
	clientv3 "go.etcd.io/etcd/client/v3"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/encoding"
	protocodec "google.golang.org/grpc/encoding/proto"
	"google.golang.org/grpc/mem"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/encoding/protowire"
	"google.golang.org/protobuf/proto"
)

// stream lists the rest of the range by RangeStream. It returns codes.Unimplemented if the server
// (etcd before 3.7, a grpc-proxy) or the client's KV has none. Each part must arrive within CallTimeout
// of the one before. The channel is always drained: the client's goroutine behind it would wait for
// ever otherwise. Begin is called before the first part is added.
func (l List) stream(ctx context.Context, rest KeyRange, revision int64, begin func()) (err error) {
	remote := kvClient(l.Client)
	if remote == nil {
		return status.Error(codes.Unimplemented, "the client's KV has no RangeStream")
	}
	parent := ctx
	ctx, cancel := context.WithCancel(l.context(ctx))
	defer cancel()
	silence := time.AfterFunc(CallTimeout, cancel)
	defer silence.Stop()
	add := func(kvs []*mvccpb.KeyValue) {
		silence.Stop()
		l.Add(kvs)
		silence.Reset(CallTimeout)
	}
	kv := clientv3.NewKVFromKVClient(rangeStreamer{remote, begin, add}, l.Client)
	parts, err := kv.GetStream(ctx, rest.Key, l.options(rest, clientv3.WithRev(revision))...)
	if err != nil {
		return Explain(parent, l.Client, err)
	}
	ended := false
	for part := range parts {
		if err != nil {
			continue
		}
		if err = part.Err(); err != nil {
			continue
		}
		l.Answered()
		if kvs := part.GetKvs(); len(kvs) > 0 { // that the codec has left
			add(kvs)
		}
		ended = part.GetHeader().GetRevision() > 0
	}
	if err := Explain(parent, l.Client, cmp.Or(err, ctx.Err())); err != nil {
		return err
	}
	if !ended {
		return errors.New("list ended without a revision")
	}
	return nil
}

// etcdKV is the type of clientv3's own KV.
var etcdKV = reflect.TypeOf(clientv3.NewKVFromKVClient(nil, nil))

// kvClient returns the service that a client's KV asks; nil where the KV does more, as one of a
// namespace does, which prefixes keys. A KV of clientv3 is taken to ask over the client's connection.
func kvClient(client *clientv3.Client) pb.KVClient {
	if kv, ok := client.KV.(interface{ KVClient() pb.KVClient }); ok { // fakeetcd's
		return kv.KVClient()
	}
	if conn := client.ActiveConnection(); conn != nil && reflect.TypeOf(client.KV) == etcdKV {
		return pb.NewKVClient(conn)
	}
	return nil
}

// rangeStreamer opens streams of which a rangeCodec adds the key-values.
type rangeStreamer struct {
	pb.KVClient
	opened func()
	add    func(kvs []*mvccpb.KeyValue)
}

// RangeStream implements etcdserverpb.KVClient.
func (s rangeStreamer) RangeStream(ctx context.Context, in *pb.RangeRequest, opts ...grpc.CallOption) (pb.KV_RangeStreamClient, error) {
	if library := encoding.GetCodecV2(protocodec.Name); library != nil { // none where a program has registered one of version 1
		opts = append(slices.Clip(opts), grpc.ForceCodecV2(&rangeCodec{CodecV2: library, add: s.add}))
	}
	stream, err := s.KVClient.RangeStream(ctx, in, opts...)
	s.opened()
	return stream, err
}

// rangeCodec passes on the key-values of a RangeStreamResponse while it reads them, instead of
// collecting them in the message: a part of a stream may be a megabyte, and touching fresh memory for
// it can take longer than decoding it. See the scenarios cold of module bench.
type rangeCodec struct {
	encoding.CodecV2 // of other messages

	add  func(kvs []*mvccpb.KeyValue) // may keep their Key and Value, and nothing else of them
	kvs  [256]*mvccpb.KeyValue        // are used again and again
	n    int                          // of kvs, to be added
	text []byte                       // of a field
}

// Name implements encoding.CodecV2. The content type stays the one of calls without a codec of their own.
func (*rangeCodec) Name() string { return "" }

// The tags of what a RangeStreamResponse has, and of what that has.
var (
	rangeResponseTag = protowire.EncodeTag(1, protowire.BytesType)
	kvsTag           = protowire.EncodeTag(2, protowire.BytesType)
)

// Unmarshal implements encoding.CodecV2. It leaves key-values in the message only if that is written in
// an order that is not etcd's.
func (c *rangeCodec) Unmarshal(data mem.BufferSlice, v any) error {
	part, ok := v.(*pb.RangeStreamResponse)
	r := data.Reader()
	defer r.Close()
	tag, _ := binary.ReadUvarint(r)
	if size, err := binary.ReadUvarint(r); !ok || err != nil || tag != rangeResponseTag || size != uint64(r.Remaining()) {
		return c.CodecV2.Unmarshal(data, v)
	}
	var others []byte // fields that are not key-values
	for r.Remaining() > 0 {
		tag, err := binary.ReadUvarint(r)
		if err != nil {
			return err
		}
		if tag != kvsTag {
			others = protowire.AppendVarint(others, tag)
		}
		if protowire.Type(tag&7) != protowire.BytesType { // a number, behind all key-values
			rest, err := io.ReadAll(r)
			if err != nil {
				return err
			}
			others = append(others, rest...)
			break
		}
		text, err := c.readText(r)
		if err != nil {
			return err
		}
		if tag != kvsTag {
			others = protowire.AppendBytes(others, text)
			continue
		}
		if c.n == len(c.kvs) {
			c.flush()
		}
		if c.kvs[c.n] == nil {
			c.kvs[c.n] = new(mvccpb.KeyValue)
		}
		if err := proto.Unmarshal(text, c.kvs[c.n]); err != nil {
			return err
		}
		c.n++
	}
	c.flush()
	part.RangeResponse = new(pb.RangeResponse)
	return proto.Unmarshal(others, part.RangeResponse)
}

// readText returns the next field behind its tag, until the next call.
func (c *rangeCodec) readText(r *mem.Reader) ([]byte, error) {
	size, err := binary.ReadUvarint(r)
	if err != nil {
		return nil, err
	}
	if size > uint64(r.Remaining()) {
		return nil, io.ErrUnexpectedEOF
	}
	c.text = slices.Grow(c.text[:0], int(size))[:size]
	_, err = io.ReadFull(r, c.text)
	return c.text, err
}

func (c *rangeCodec) flush() {
	if c.n > 0 {
		c.add(c.kvs[:c.n])
		c.n = 0
	}
}
