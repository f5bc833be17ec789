// SPDX-FileCopyrightText: The Rollcall Authors
// SPDX-License-Identifier: Apache-2.0

package xds_test

import (
	"context"
	"flag"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"runtime"
	"slices"
	"testing"
	"time"

	corev3 "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	discoveryv3 "github.com/envoyproxy/go-control-plane/envoy/service/discovery/v3"
	clientv3 "go.etcd.io/etcd/client/v3"
	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/anypb"

	"github.com/rollcall-grpc/rollcall"
	"github.com/rollcall-grpc/rollcall/internal/test/etcdtest"
	"github.com/rollcall-grpc/rollcall/xds"
)

var soak = flag.Duration("soak", 0, "how long TestSoak runs on real etcd; 0: a short while")

// soakClient follows one service on a real stream, acknowledging all, and comes back when its
// stream ends.
type soakClient struct {
	stub    discoveryv3.AggregatedDiscoveryServiceClient
	id      string
	service string
	version string
	has     *anypb.Any
	leave   context.CancelFunc
	left    chan struct{}
}

func (c *soakClient) start() {
	ctx, cancel := context.WithCancel(context.Background())
	c.leave, c.left = cancel, make(chan struct{})
	go func() {
		defer close(c.left)
		for ctx.Err() == nil {
			c.follow(ctx)
			time.Sleep(10 * time.Millisecond)
		}
	}()
}

func (c *soakClient) follow(ctx context.Context) {
	stream, err := c.stub.StreamAggregatedResources(ctx)
	if err != nil {
		return
	}
	req := &discoveryv3.DiscoveryRequest{Node: &corev3.Node{Id: c.id}, TypeUrl: assignmentType, ResourceNames: []string{c.service}, VersionInfo: c.version}
	for stream.Send(req) == nil {
		resp, err := stream.Recv()
		if err != nil {
			return
		}
		if c.version = resp.VersionInfo; len(resp.Resources) == 1 {
			c.has = resp.Resources[0]
		}
		req = &discoveryv3.DiscoveryRequest{TypeUrl: assignmentType, ResourceNames: req.ResourceNames, VersionInfo: resp.VersionInfo, ResponseNonce: resp.Nonce}
	}
}

// TestSoak has clients come and go while services change and etcd is killed, paused and wiped: in the
// end each has what a linearizable list says, and memory is what it was.
func TestSoak(t *testing.T) {
	etcd := etcdtest.New(t, etcdtest.Options{})
	writer := etcd.Client(t)
	cfg := rollcall.ClientConfig(etcd.Endpoints()...)
	reader, err := rollcall.NewClient(cfg)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = reader.Close() })
	directory, err := rollcall.NewDirectory(reader, rollcall.DirectoryOptions{Logger: slog.New(slog.DiscardHandler)})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(directory.Close)
	server, err := xds.NewServer(directory, xds.Options{Linger: time.Second})
	if err != nil {
		t.Fatal(err)
	}
	addr := serve(t, func(srv *grpc.Server) { server.Register(srv) })
	t.Cleanup(server.Close)
	conn, err := grpc.NewClient(addr, grpc.WithTransportCredentials(insecure.NewCredentials()))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = conn.Close() })
	clients := make([]*soakClient, 40)
	for i := range clients {
		clients[i] = &soakClient{stub: discoveryv3.NewAggregatedDiscoveryServiceClient(conn), id: fmt.Sprint("client-", i), service: fmt.Sprint("s", i%8)}
		clients[i].start()
	}
	most := max(*soak, 8*time.Second)
	var early, late uint64
	began := time.Now()
	r := rand.New(rand.NewPCG(uint64(began.UnixNano()), 0))
	for writes, faults := 0, 0; time.Since(began) < most; {
		if change(r, writer) {
			writes++
		}
		if c := clients[r.IntN(len(clients))]; r.IntN(5) == 0 {
			c.leave()
			<-c.left
			c.start()
		}
		if time.Since(began) > time.Duration(faults+1)*4*time.Second {
			faults++
			fault(r, etcd)
			late = heap()
			if early == 0 && time.Since(began) > most/4 {
				early = late
			}
			t.Logf("%v: %d writes, %d faults, %.1f MiB, %d goroutines, %+v", time.Since(began).Round(time.Second), writes, faults, float64(late)/(1<<20), runtime.NumGoroutine(), server.Stats())
		}
		time.Sleep(time.Duration(r.IntN(20)) * time.Millisecond)
	}
	for _, c := range clients {
		c.check(t, directory)
		c.leave()
		<-c.left
	}
	if *soak > time.Minute && late > early*3/2+4<<20 {
		t.Errorf("the heap grew from %d to %d bytes", early, late)
	}
}

// check waits until a client has what a linearizable list says.
func (c *soakClient) check(t *testing.T, d *rollcall.Directory) {
	deadline := time.Now().Add(60 * time.Second)
	for {
		c.leave() // to read what it has
		<-c.left
		snap, err := d.List(t.Context(), c.service)
		if err == nil && c.has != nil {
			want, err := xds.Explain(t.Context(), snap, nil, c.service, xds.Node{ID: c.id}, xds.Options{})
			if err != nil {
				t.Fatal(err)
			}
			if got, err := c.has.UnmarshalNew(); err == nil && proto.Equal(got, want.Assignment) {
				break
			}
		}
		if time.Now().After(deadline) {
			t.Fatalf("client %s of %s has %v; etcd %v %v", c.id, c.service, c.has, slices.Collect(snap.All()), err)
		}
		c.start()
		time.Sleep(500 * time.Millisecond)
	}
	c.start()
}

func change(r *rand.Rand, writer *clientv3.Client) bool {
	ctx, cancel := context.WithTimeout(context.Background(), 200*time.Millisecond)
	defer cancel()
	key := fmt.Sprintf("s%d/%d", r.IntN(8), r.IntN(30))
	var err error
	if r.IntN(3) == 0 {
		_, err = writer.Delete(ctx, key)
	} else {
		_, err = writer.Put(ctx, key, fmt.Sprintf(`{"Addr":"10.0.0.%d:80","Metadata":{"weight":%d}}`, r.IntN(40), 1+r.IntN(4)))
	}
	return err == nil
}

func fault(r *rand.Rand, etcd *etcdtest.Cluster) {
	m := etcd.Member(0)
	switch r.IntN(3) {
	case 0:
		m.Pause()
		time.Sleep(time.Duration(r.IntN(2000)) * time.Millisecond)
		m.Resume()
	case 1:
		m.Kill()
		time.Sleep(time.Duration(r.IntN(2000)) * time.Millisecond)
		m.Start()
	case 2:
		m.Kill()
		m.Wipe()
		m.Start()
	}
	etcd.WaitReady()
}

func heap() uint64 {
	runtime.GC()
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	return m.HeapAlloc
}
