// SPDX-FileCopyrightText: The Rollcall Authors
// SPDX-License-Identifier: Apache-2.0

package resolving_test

import (
	"context"
	"fmt"
	"sync/atomic"
	"testing"

	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
	clientv3 "go.etcd.io/etcd/client/v3"
	"go.etcd.io/etcd/client/v3/namespace"
	"google.golang.org/grpc"
	"google.golang.org/grpc/stats"

	"github.com/rollcall-grpc/rollcall"
	"github.com/rollcall-grpc/rollcall/internal/test/e2e/lab"
	"github.com/rollcall-grpc/rollcall/internal/test/etcdtest"
)

// streamed counts the messages of streamed lists that a client receives, and the key-values that are
// in them once they are unmarshalled.
type streamed struct{ parts, kvs atomic.Int64 }

func (s *streamed) HandleRPC(_ context.Context, event stats.RPCStats) {
	if in, ok := event.(*stats.InPayload); ok {
		if part, ok := in.Payload.(*pb.RangeStreamResponse); ok {
			s.parts.Add(1)
			s.kvs.Add(int64(len(part.GetRangeResponse().GetKvs())))
		}
	}
}

func (*streamed) TagRPC(ctx context.Context, _ *stats.RPCTagInfo) context.Context   { return ctx }
func (*streamed) TagConn(ctx context.Context, _ *stats.ConnTagInfo) context.Context { return ctx }
func (*streamed) HandleConn(context.Context, stats.ConnStats)                       {}

// What the first page of a list leaves is streamed, and decoded while it is received. A client with a
// namespace lists in pages.
func TestLongListIsStreamed(t *testing.T) {
	t.Parallel()
	e := lab.NewEnv(t, lab.Rollcall, etcdtest.New(t, etcdtest.Options{}), "svc")
	const batches, batch = 50, 100
	for i := range batches {
		var puts []clientv3.Op
		for j := range batch {
			puts = append(puts, clientv3.OpPut(fmt.Sprintf("svc/%02d-%02d", i, j), fmt.Sprintf(`{"Addr":"10.0.%d.%d:80","Metadata":{"weight":%d}}`, i, j, j+1)))
		}
		if _, err := e.Client.Txn(e.Ctx).Then(puts...).Commit(); err != nil {
			t.Fatal(err)
		}
	}
	var seen streamed
	client := e.ClientWith(func(cfg *clientv3.Config) {
		cfg.DialOptions = append(cfg.DialOptions, grpc.WithStatsHandler(&seen))
	})
	lists := func(service string) {
		t.Helper()
		d, err := rollcall.NewDirectory(client, rollcall.DirectoryOptions{})
		if err != nil {
			t.Fatal(err)
		}
		defer d.Close()
		snap, err := d.List(e.Ctx, service)
		if err != nil {
			t.Fatal(err)
		}
		n := 0
		for inst := range snap.All() {
			i, j := n/batch, n%batch
			if inst.Key != fmt.Sprintf("%s/%02d-%02d", service, i, j) || inst.Addr != fmt.Sprintf("10.0.%d.%d:80", i, j) ||
				inst.Attributes().Weight != uint32(j+1) || inst.ModRevision != int64(i)+2 {
				t.Fatalf("endpoint %d is %s at %s, %s, revision %d", n, inst.Key, inst.Addr, inst.Metadata, inst.ModRevision)
			}
			n++
		}
		if n != batches*batch {
			t.Errorf("%d endpoints, want %d", n, batches*batch)
		}
	}
	lists("svc")
	parts := seen.parts.Load()
	if parts < 2 || seen.kvs.Load() != 0 {
		t.Errorf("%d parts with %d key-values, want several without", parts, seen.kvs.Load())
	}
	client.KV = namespace.NewKV(client.KV, "sv")
	lists("c")
	if more := seen.parts.Load() - parts; more != 0 {
		t.Errorf("%d parts were streamed past the namespace", more)
	}
}
