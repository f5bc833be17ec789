// SPDX-FileCopyrightText: The Rollcall Authors
// SPDX-License-Identifier: Apache-2.0

package access_test

import (
	"context"
	"slices"
	"sync/atomic"
	"testing"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/stats"

	"github.com/rollcall-grpc/rollcall"
	"github.com/rollcall-grpc/rollcall/internal/test/e2e/lab"
	"github.com/rollcall-grpc/rollcall/internal/test/etcdtest"
)

// etcd tells its clients, if they ask, URLs that not all of them can reach.
func TestA5NoAutoSync(t *testing.T) {
	t.Parallel()
	etcd := etcdtest.New(t, etcdtest.Options{Flags: []string{"--advertise-client-urls=http://192.0.2.1:2379"}})
	cfg := rollcall.ClientConfig(etcd.Endpoints()...)
	if cfg.AutoSyncInterval != 0 {
		t.Errorf("AutoSyncInterval %v, want none", cfg.AutoSyncInterval)
	}
	client := lab.ClientOf(t, cfg)
	lab.Put(t, client, "svc", "a", nil)
	f := lab.Follow(t, client, "svc")
	f.Holds("a")
	etcd.Member(0).Stop()
	f.GoesStale()
	etcd.Member(0).Start()
	etcd.WaitReady()
	f.Holds("a")
	if got := client.Endpoints(); !slices.Equal(got, etcd.Endpoints()) {
		t.Errorf("endpoints became %v", got)
	}
}

// connections counts those that a client makes.
type connections struct{ begun atomic.Int64 }

func (*connections) TagRPC(ctx context.Context, _ *stats.RPCTagInfo) context.Context   { return ctx }
func (*connections) HandleRPC(context.Context, stats.RPCStats)                         {}
func (*connections) TagConn(ctx context.Context, _ *stats.ConnTagInfo) context.Context { return ctx }
func (c *connections) HandleConn(_ context.Context, s stats.ConnStats) {
	if _, ok := s.(*stats.ConnBegin); ok {
		c.begun.Add(1)
	}
}

// A server takes one ping in 5 s, none while nothing is under way, and answers what is
// too much with GOAWAY: the connection would have to be made again.
func TestA6PingsAreNotTooEager(t *testing.T) {
	t.Parallel()
	etcd := etcdtest.New(t, etcdtest.Options{})
	var watching, idle connections
	dial := func(c *connections) *rollcall.Directory {
		cfg := rollcall.ClientConfig(etcd.Endpoints()...)
		cfg.DialOptions = append(cfg.DialOptions, grpc.WithStatsHandler(c))
		client := lab.ClientOf(t, cfg)
		lab.Put(t, client, "svc", "a", nil)
		d, err := rollcall.NewDirectory(client, rollcall.DirectoryOptions{})
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(d.Close)
		return d
	}
	sub, err := dial(&watching).Subscribe("svc")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(sub.Close)
	dial(&idle)
	time.Sleep(45 * time.Second) // four pings; a server takes two that are too early
	if w, i := watching.begun.Load(), idle.begun.Load(); w != 1 || i != 1 {
		t.Errorf("%d connections with a watch, %d without, want 1 each", w, i)
	}
	if snap := sub.Latest(); snap == nil || snap.Staleness() != nil {
		t.Errorf("snapshot %+v", snap)
	}
}
