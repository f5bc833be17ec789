// SPDX-FileCopyrightText: The Rollcall Authors
// SPDX-License-Identifier: Apache-2.0

package xds_test

import (
	"context"
	"fmt"
	"io"
	"log/slog"
	"math"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	discoveryv3 "github.com/envoyproxy/go-control-plane/envoy/service/discovery/v3"

	"github.com/rollcall-grpc/rollcall"
	"github.com/rollcall-grpc/rollcall/internal/test/fakeetcd"
	"github.com/rollcall-grpc/rollcall/xds"
)

// costly is a client whose responses take the time of one of a few cores.
type costly struct {
	discoveryv3.AggregatedDiscoveryService_StreamAggregatedResourcesServer
	ctx      context.Context
	cores    chan struct{}
	cost     time.Duration
	requests chan *discoveryv3.DiscoveryRequest
	sent     *atomic.Int64
}

func (c *costly) Context() context.Context { return c.ctx }

func (c *costly) Recv() (*discoveryv3.DiscoveryRequest, error) {
	select {
	case req := <-c.requests:
		return req, nil
	case <-c.ctx.Done():
		return nil, io.EOF
	}
}

func (c *costly) Send(resp *discoveryv3.DiscoveryResponse) error {
	c.cores <- struct{}{}
	time.Sleep(c.cost)
	<-c.cores
	c.sent.Add(1)
	select {
	case c.requests <- &discoveryv3.DiscoveryRequest{TypeUrl: resp.TypeUrl, ResourceNames: []string{"svc"}, VersionInfo: resp.VersionInfo, ResponseNonce: resp.Nonce}:
	case <-c.ctx.Done():
	}
	return nil
}

// The arithmetic of docs/scaling.md: while a service changes without a pause, a push to all is
// followed by a rest of PushInterval, or of four times what the push took, which is at most maxPush;
// or, where the cores cannot do that, streams get what they can.
func TestFanOut(t *testing.T) {
	const cores, changes, pause, interval = 2, 1000, 10 * time.Millisecond, 100 * time.Millisecond
	for _, row := range []struct {
		streams int
		cost    time.Duration // of a push to a stream
	}{{1, 130 * time.Microsecond}, {100, 130 * time.Microsecond}, {100, 1300 * time.Microsecond}, {300, 1300 * time.Microsecond}, {500, 1300 * time.Microsecond}, {200, 20 * time.Millisecond}} {
		streams, cost := row.streams, row.cost
		t.Run(fmt.Sprint(streams, " ", cost), func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				all := time.Duration(streams) * cost / cores
				push := min(all, 250*time.Millisecond)
				apart := max(push+max(interval, 4*push), all)
				want := float64(changes*pause) / float64(apart)
				got := pushesOf(t, streams, cores, cost, func(etcd *fakeetcd.Store) {
					for i := range changes {
						etcd.Put("svc/a", fmt.Sprintf(`{"Addr":"10.0.%d.%d:80"}`, i>>8, i&255))
						time.Sleep(pause)
					}
				})
				if math.Abs(got-want) > 0.1*want+2 { // the first and the last come sooner
					t.Errorf("%.1f pushes a stream, want %.1f, one in %v", got, want, apart)
				}
				t.Logf("%.1f pushes a stream, calculated %.1f", got, want)
			})
		})
	}
}

// pushesOf returns how many pushes a stream got from changes, on average.
func pushesOf(t *testing.T, streams, cores int, cost time.Duration, change func(*fakeetcd.Store)) float64 {
	etcd := fakeetcd.New()
	defer etcd.Close()
	etcd.Put("svc/a", `{"Addr":"10.1.0.0:80"}`)
	conn := etcd.Connect(context.Background())
	defer conn.Close()
	directory, err := rollcall.NewDirectory(conn.Client, rollcall.DirectoryOptions{Logger: slog.New(slog.DiscardHandler)})
	if err != nil {
		t.Fatal(err)
	}
	defer directory.Close()
	server, err := xds.NewServer(directory, xds.Options{MaxStreams: streams})
	if err != nil {
		t.Fatal(err)
	}
	defer server.Close()
	ctx, cancel := context.WithCancel(context.Background())
	defer cancel()
	var sent atomic.Int64
	slots := make(chan struct{}, cores)
	for range streams {
		c := &costly{ctx: ctx, cores: slots, cost: cost, requests: make(chan *discoveryv3.DiscoveryRequest, 1), sent: &sent}
		c.requests <- &discoveryv3.DiscoveryRequest{TypeUrl: assignmentType, ResourceNames: []string{"svc"}}
		go func() { _ = server.StreamAggregatedResources(c) }()
	}
	time.Sleep(time.Minute)
	before := sent.Load()
	if before != int64(streams) {
		t.Fatalf("%d of %d streams have been answered", before, streams)
	}
	change(etcd)
	time.Sleep(time.Minute)
	return float64(sent.Load()-before) / float64(streams)
}
