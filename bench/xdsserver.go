// SPDX-FileCopyrightText: The Rollcall Authors
// SPDX-License-Identifier: Apache-2.0

package main

import (
	"bufio"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"log/slog"
	"net"
	"os"
	"os/exec"
	"strconv"
	"strings"
	"sync"

	corev3 "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	discoveryv3 "github.com/envoyproxy/go-control-plane/envoy/service/discovery/v3"
	"github.com/envoyproxy/go-control-plane/pkg/cache/types"
	"github.com/envoyproxy/go-control-plane/pkg/cache/v3"
	gcplog "github.com/envoyproxy/go-control-plane/pkg/log"
	"github.com/envoyproxy/go-control-plane/pkg/resource/v3"
	"github.com/envoyproxy/go-control-plane/pkg/server/v3"
	"google.golang.org/grpc"

	"github.com/rollcall-grpc/rollcall"
	"github.com/rollcall-grpc/rollcall/xds"
)

// Subjects of the xDS scenarios: two caches of go-control-plane beside Rollcall's server.
const (
	linear    = "LinearCache"
	snapshots = "SnapshotCache"
)

// xdsChild serves services as xDS, prints its address, and then answers each line of its input.
func xdsChild(address, subject string, services []string) {
	directory := must(rollcall.NewDirectory(connect(address), rollcall.DirectoryOptions{Logger: slog.New(slog.DiscardHandler)}))
	opts := []grpc.ServerOption{grpc.ReadBufferSize(2 << 10)} // write buffers are shared
	if subject == ours {
		opts = append(opts, xds.ServerOption())
	}
	srv := grpc.NewServer(opts...)
	if subject == ours {
		must(xds.NewServer(directory, xds.Options{})).Register(srv)
	} else {
		c, put := newCache(subject)
		discoveryv3.RegisterAggregatedDiscoveryServiceServer(srv, server.NewServer(context.Background(), c, nil))
		for _, service := range services {
			feed(directory, service, put)
		}
	}
	l := must(net.Listen("tcp", "127.0.0.1:0"))
	fmt.Println(l.Addr())
	go func() { check(srv.Serve(l)) }()
	for in := bufio.NewScanner(os.Stdin); in.Scan(); {
		switch in.Text() {
		case "cpu":
			fmt.Println(cpu().Nanoseconds())
		case "memory":
			fmt.Println(int(memory()))
		}
	}
	os.Exit(0)
}

// feed keeps a service in a cache, rendered as Rollcall's server does. It returns once the cache
// has it.
func feed(directory *rollcall.Directory, service string, put func(*xds.Explanation)) {
	var first sync.Once
	has := make(chan struct{})
	must(directory.SubscribeFunc(service, func(snap *rollcall.Snapshot, err error) {
		if err == nil {
			put(must(xds.Explain(context.Background(), snap, nil, service, xds.Node{}, xds.Options{})))
			first.Do(func() { close(has) })
		}
	}))
	<-has
}

// newCache returns a cache of go-control-plane, and what puts a service into it.
func newCache(subject string) (cache.Cache, func(*xds.Explanation)) {
	if subject == snapshots {
		return snapshotCache()
	}
	caches := make(map[string]cache.Cache)
	for _, typeURL := range []string{resource.ListenerType, resource.ClusterType, resource.EndpointType} {
		caches[typeURL] = cache.NewLinearCache(typeURL)
	}
	put := func(typeURL, name string, r types.Resource) {
		check(caches[typeURL].(*cache.LinearCache).UpdateResource(name, r))
	}
	known := new(sync.Map)
	return &cache.MuxCache{Caches: caches, Classify: (*discoveryv3.DiscoveryRequest).GetTypeUrl}, func(e *xds.Explanation) {
		name := e.Listener.Name
		if _, again := known.LoadOrStore(name, true); !again { // they do not change
			put(resource.ListenerType, name, e.Listener)
			put(resource.ClusterType, name, e.Cluster)
		}
		put(resource.EndpointType, name, e.Assignment)
	}
}

// snapshotCache has a snapshot for each service, which the cluster of a client's node names: with
// all services in one, each change would be answered to the clients of all. In its mode for ADS it
// would not answer gRPC clients of more than one service.
func snapshotCache() (cache.Cache, func(*xds.Explanation)) {
	c := cache.NewSnapshotCache(false, byCluster{}, gcplog.NewDefaultLogger())
	var mu sync.Mutex
	versions := make(map[string]int)
	return c, func(e *xds.Explanation) {
		name := e.Listener.Name
		mu.Lock()
		versions[name]++
		version := strconv.Itoa(versions[name])
		mu.Unlock()
		snap := must(cache.NewSnapshot(version, map[resource.Type][]types.Resource{resource.EndpointType: {e.Assignment}}))
		snap.Resources[types.Listener] = cache.NewResources("1", []types.Resource{e.Listener}) // they do not change
		snap.Resources[types.Cluster] = cache.NewResources("1", []types.Resource{e.Cluster})
		check(c.SetSnapshot(context.Background(), name, snap))
	}
}

type byCluster struct{}

func (byCluster) ID(node *corev3.Node) string { return node.GetCluster() }

// xdsServer is a process that xdsChild runs in.
type xdsServer struct {
	address string
	cmd     *exec.Cmd
	in      io.WriteCloser
	out     *bufio.Reader
}

func startXDS(address, subject string, services []string) *xdsServer {
	cmd := exec.Command(must(os.Executable()), append([]string{"child", "xds", address, subject}, services...)...)
	cmd.Stderr = os.Stderr
	s := &xdsServer{cmd: cmd, in: must(cmd.StdinPipe()), out: bufio.NewReader(must(cmd.StdoutPipe()))}
	check(cmd.Start())
	s.address = s.line()
	return s
}

// stop ends the process, while nothing changes and no client sends anything.
func (s *xdsServer) stop(f *fleet) {
	f.over.Store(true)
	check(s.in.Close())
	check(s.cmd.Wait())
}

func (s *xdsServer) line() string { return strings.TrimSpace(must(s.out.ReadString('\n'))) }

// ask returns the process's "cpu" so far in nanoseconds, or its "memory" in bytes.
func (s *xdsServer) ask(what string) float64 {
	must(fmt.Fprintln(s.in, what))
	var n float64
	check(json.Unmarshal([]byte(s.line()), &n))
	return n
}
