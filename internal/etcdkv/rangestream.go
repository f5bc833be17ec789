// SPDX-FileCopyrightText: The Rollcall Authors
// SPDX-License-Identifier: Apache-2.0

package etcdkv

import (
	"context"
	"encoding/binary"
	"errors"
	"io"
	"math"
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

// stream lists the rest of the range by RangeStream, which servers before 3.7 do not have, nor
// clients whose KV does more than ask etcd: codes.Unimplemented. Each part must arrive within
// CallTimeout of the one before. Begin is called before the first part is added.
func (l List) stream(ctx context.Context, rest KeyRange, revision int64, begin func()) (err error) {
	remote := kvClient(l.Client)
	if remote == nil {
		return status.Error(codes.Unimplemented, "the client has a KV of its own")
	}
	parent := ctx
	ctx, cancel := context.WithCancel(l.context(ctx))
	defer cancel()
	silence := time.AfterFunc(CallTimeout, cancel)
	defer silence.Stop()
	add := func(kvs []*mvccpb.KeyValue) {
		silence.Stop()
		l.Add(kvs)
	}
	op := clientv3.OpGet(rest.Key, rest.options()...)
	parts, err := remote.RangeStream(ctx,
		&pb.RangeRequest{Key: op.KeyBytes(), RangeEnd: op.RangeBytes(), Revision: revision, Serializable: l.Serializable},
		grpc.MaxCallRecvMsgSize(math.MaxInt32), // clientv3's default
		grpc.ForceCodecV2(&rangeCodec{CodecV2: encoding.GetCodecV2(protocodec.Name), add: add}))
	begin()
	ended := false
	for err == nil {
		var part *pb.RangeStreamResponse
		if part, err = parts.Recv(); err == nil {
			l.Answered()
			if kvs := part.GetRangeResponse().GetKvs(); len(kvs) > 0 {
				add(kvs)
			}
			silence.Reset(CallTimeout)
			ended = part.GetRangeResponse().GetHeader().GetRevision() > 0
		}
	}
	switch {
	case !errors.Is(err, io.EOF):
		return Explain(parent, l.Client, clientv3.ContextError(ctx, err))
	case !ended:
		return errors.New("list ended without a revision")
	}
	return nil
}

// etcdKV is the type of clientv3's own KV.
var etcdKV = reflect.TypeOf(clientv3.NewKVFromKVClient(nil, nil))

// kvClient returns the service that a client's KV asks; nil where the KV does more, as one of a
// namespace does, which prefixes keys.
func kvClient(client *clientv3.Client) pb.KVClient {
	if kv, ok := client.KV.(interface{ KVClient() pb.KVClient }); ok {
		return kv.KVClient()
	}
	if conn := client.ActiveConnection(); conn != nil && reflect.TypeOf(client.KV) == etcdKV {
		return pb.NewKVClient(conn)
	}
	return nil
}

// rangeCodec adds the key-values of a RangeStreamResponse while it reads them, instead of
// collecting them in the message: half of a stream is one part, and the memory for it takes longer
// than decoding it. See the scenarios cold of module bench.
type rangeCodec struct {
	encoding.CodecV2 // of other messages

	add  func(kvs []*mvccpb.KeyValue) // must keep none of them, but may keep their Key and Value
	kvs  [256]*mvccpb.KeyValue        // are used again and again
	n    int                          // of kvs, to be added
	text []byte                       // of a field
}

// The tags of what a RangeStreamResponse has, and of what that has.
var (
	rangeResponseTag = protowire.EncodeTag(1, protowire.BytesType)
	kvsTag           = protowire.EncodeTag(2, protowire.BytesType)
)

// Unmarshal leaves key-values in the message only if it is written in an order that is not etcd's.
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
