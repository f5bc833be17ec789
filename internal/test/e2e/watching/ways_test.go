// SPDX-FileCopyrightText: The Rollcall Authors
// SPDX-License-Identifier: Apache-2.0

package watching_test

import (
	"testing"
	"time"

	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
	clientv3 "go.etcd.io/etcd/client/v3"

	"github.com/rollcall-grpc/rollcall/internal/test/e2e/lab"
	"github.com/rollcall-grpc/rollcall/internal/test/etcdtest"
)

// The same rows through etcd's grpc-proxy, which answers watches by itself, ...

func TestProxyW1HistoryCompactedWhileCutOff(t *testing.T) {
	t.Parallel()
	lab.Proxied(t, etcdtest.Options{}, cutOffAndCompacted)
}

// A watch through the proxy joins one of the same range there, even one that etcd has ended because
// its revision was compacted, and then never hears of anything. A client that does not close such a
// watch keeps it there.
func TestProxyJoinsAnEndedWatch(t *testing.T) {
	t.Parallel()
	lab.Proxied(t, etcdtest.Options{}, func(e *lab.Env) {
		link := etcdtest.NewLink(e.T, e.Reach[0])
		put(e, "a")
		lab.Compact(e.T, e.Client)
		f := lab.Follow(e.T, e.ClientWith(lab.At(link.Addr())), e.Target)
		f.Holds("a")
		link.Cut()
		f.GoesStale()
		put(e, "b")
		lab.Compact(e.T, e.Client)
		endedWatch(e, e.Target+"/")
		link.Mend()
		mended := time.Now()
		f.Holds("a", "b")
		e.Within("compared after the link was mended", mended, 5*time.Second)
		put(e, "c")
		f.Holds("a", "b", "c")
	})
}

// endedWatch leaves a watch of a prefix at the proxy that etcd has ended.
func endedWatch(e *lab.Env, prefix string) {
	stream, err := pb.NewWatchClient(e.ClientWith().ActiveConnection()).Watch(e.Ctx)
	e.OK(err)
	e.OK(stream.Send(&pb.WatchRequest{RequestUnion: &pb.WatchRequest_CreateRequest{CreateRequest: &pb.WatchCreateRequest{
		Key: []byte(prefix), RangeEnd: []byte(clientv3.GetPrefixRangeEnd(prefix)), StartRevision: 1,
	}}}))
	for {
		resp, err := stream.Recv()
		e.OK(err)
		if resp.CompactRevision > 0 {
			return
		}
	}
}

func TestProxyW5DataLost(t *testing.T) {
	t.Parallel()
	lab.Proxied(t, etcdtest.Options{}, func(e *lab.Env) { wiped(e, 15*time.Second) }) // compared every 10 s
}

func TestProxyW8MembersKilledInTurn(t *testing.T) {
	t.Parallel()
	etcd := lab.Start(t, etcdtest.Options{Members: 3})
	killedInTurn(t, etcd, lab.Client(t, etcdtest.StartProxy(t, etcd.Endpoints()...).Addr()))
}

func TestProxyW9Outage(t *testing.T) {
	t.Parallel()
	etcd := lab.Start(t, etcdtest.Options{})
	proxy := etcdtest.StartProxy(t, etcd.Endpoints()...)
	outage(t, etcd, lab.Client(t, proxy.Addr()), func() {
		etcd.WaitReady()
		began := time.Now()
		proxy.WaitReady() // it dials again after up to 120 s, as etcd's client does by default
		lab.Note(t, "the proxy itself was back %v after etcd", time.Since(began).Round(time.Millisecond))
	})
}

func TestProxyIdleStaysLive(t *testing.T) {
	t.Parallel()
	etcd := lab.Start(t, etcdtest.Options{})
	idles(t, etcd, lab.Client(t, etcdtest.StartProxy(t, etcd.Endpoints()...).Addr()))
}

// ... and against etcd 3.6, which streams no lists.

func old(t *testing.T) etcdtest.Options {
	return etcdtest.Options{Etcd: etcdtest.Binary(t, "etcd-3.6")}
}

func TestEtcd36W1HistoryCompactedWhileCutOff(t *testing.T) {
	t.Parallel()
	cutOffAndCompacted(lab.NewEnv(t, lab.Rollcall, lab.Start(t, old(t)), "svc"))
}

func TestEtcd36W2CompactedBetweenListAndWatch(t *testing.T) {
	t.Parallel()
	compactedBetween(lab.NewEnv(t, lab.Rollcall, lab.Start(t, old(t)), "svc"))
}

func TestEtcd36W4HalfOpenIsMarkedStale(t *testing.T) {
	t.Parallel()
	frozen(t, lab.Start(t, old(t)))
}

func TestEtcd36W5DataLost(t *testing.T) {
	t.Parallel()
	wiped(lab.NewEnv(t, lab.Rollcall, lab.Start(t, old(t)), "svc"), 5*time.Second)
}

func TestEtcd36W12VeryLargeService(t *testing.T) {
	t.Parallel()
	large(lab.NewEnv(t, lab.Rollcall, lab.Start(t, old(t)), "svc"), lab.Size(50_000, 6_000)) // more than a page
}

func TestEtcd36IdleStaysLive(t *testing.T) {
	t.Parallel()
	etcd := lab.Start(t, old(t))
	idles(t, etcd, lab.Client(t, etcd.Endpoints()...))
}
