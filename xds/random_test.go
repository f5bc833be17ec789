// SPDX-FileCopyrightText: The Rollcall Authors
// SPDX-License-Identifier: Apache-2.0

package xds_test

import (
	"context"
	"flag"
	"fmt"
	"log/slog"

	"math/rand/v2"

	"testing"
	"testing/synctest"
	"time"

	corev3 "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	discoveryv3 "github.com/envoyproxy/go-control-plane/envoy/service/discovery/v3"
	statuspb "google.golang.org/genproto/googleapis/rpc/status"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/anypb"

	"github.com/rollcall-grpc/rollcall"
	"github.com/rollcall-grpc/rollcall/internal/test/fakeetcd"
	"github.com/rollcall-grpc/rollcall/xds"
)

var seeds = flag.Int("seeds", 100, "histories that TestRandom plays")

// randomClient asks for random services, acknowledges late, rejects, leaves and comes back.
type randomClient struct {
	rand    *rand.Rand
	server  *xds.Server
	node    *corev3.Node
	has     map[string]map[string]*anypb.Any // by type and name
	version map[string]string
	nonce   map[string]string
	wants   []string
	stream  *virtual
	ended   chan struct{}
	cancel  context.CancelFunc
}

var allTypes = []string{listenerType, clusterType, assignmentType}

func (c *randomClient) connect() {
	ctx, cancel := context.WithCancel(context.Background())
	c.stream, c.cancel, c.ended = &virtual{ctx: ctx, requests: make(chan *discoveryv3.DiscoveryRequest)}, cancel, make(chan struct{})
	clear(c.nonce)
	stream, ended := c.stream, c.ended
	go func() {
		defer close(ended)
		_ = c.server.StreamAggregatedResources(stream)
	}()
	for _, typeURL := range allTypes {
		c.ask(typeURL, "")
	}
}

func (c *randomClient) leave() {
	c.cancel()
	<-c.ended
}

func (c *randomClient) ask(typeURL, nack string) {
	req := &discoveryv3.DiscoveryRequest{Node: c.node, TypeUrl: typeURL, ResourceNames: c.wants, VersionInfo: c.version[typeURL], ResponseNonce: c.nonce[typeURL]}
	if nack != "" {
		req.ErrorDetail = &statuspb.Status{Message: nack}
	}
	select {
	case c.stream.requests <- req:
	case <-c.ended:
	}
}

// take applies what has arrived, as a client does: of Listeners and Clusters a response has all.
func (c *randomClient) take(t *testing.T) {
	c.stream.mu.Lock()
	responses := c.stream.responses
	c.stream.responses = nil
	c.stream.mu.Unlock()
	for _, resp := range responses {
		if resp.TypeUrl != assignmentType {
			c.has[resp.TypeUrl] = make(map[string]*anypb.Any)
		}
		for i, name := range names(t, resp) {
			c.has[resp.TypeUrl][name] = resp.Resources[i]
		}
		c.version[resp.TypeUrl], c.nonce[resp.TypeUrl] = resp.VersionInfo, resp.Nonce
		nack := ""
		if c.rand.IntN(20) == 0 {
			nack = "no"
		}
		c.ask(resp.TypeUrl, nack)
	}
}

func (c *randomClient) step(t *testing.T) {
	switch c.rand.IntN(8) {
	case 0:
		c.leave()
		c.connect()
	case 1:
		c.wants = nil
		for i := range 5 {
			if c.rand.IntN(2) == 0 {
				c.wants = append(c.wants, fmt.Sprint("s", i))
			}
		}
		for _, typeURL := range allTypes {
			c.ask(typeURL, "")
		}
	default:
		c.take(t)
	}
}

// check compares what a client has with what it is to have.
func (c *randomClient) check(t *testing.T, d *rollcall.Directory) {
	for _, name := range c.wants {
		snap, err := d.List(t.Context(), name)
		if err != nil {
			t.Fatal(err)
		}
		config, err := d.ServiceConfig(t.Context(), name)
		if err != nil {
			t.Fatal(err)
		}
		node := xds.Node{ID: c.node.Id, Locality: rollcall.Locality{Zone: c.node.Locality.Zone}}
		want, err := xds.Explain(t.Context(), snap, config, name, node, xds.Options{Subset: 8})
		if err != nil {
			t.Fatal(err)
		}
		for typeURL, m := range map[string]proto.Message{listenerType: want.Listener, clusterType: want.Cluster, assignmentType: want.Assignment} {
			got := c.has[typeURL][name]
			if got == nil {
				t.Errorf("client %s has no %s %q", c.node.Id, typeURL, name)
				continue
			}
			if is, err := got.UnmarshalNew(); err != nil || !proto.Equal(is, m) {
				t.Errorf("client %s has\n%v\nwant\n%v", c.node.Id, is, m)
			}
		}
	}
}

func randomChange(r *rand.Rand, etcd *fakeetcd.Store, conn *fakeetcd.Conn) {
	key := fmt.Sprintf("s%d/%d", r.IntN(5), r.IntN(12))
	switch r.IntN(30) {
	case 0:
		conn.Cut()
	case 1, 2:
		conn.Mend()
	case 3:
		_ = etcd.Compact(etcd.Revision())
	case 4:
		etcd.Put("_grpc_config/"+key[:2], []string{`{"loadBalancingConfig":[{"pick_first":{}}]}`, `{`, `{"methodConfig":[{"name":[{}],"timeout":"1s"}]}`}[r.IntN(3)])
	case 5:
		etcd.Delete("_grpc_config/" + key[:2])
	case 6, 7, 8, 9:
		etcd.Delete(key)
	default:
		etcd.Put(key, fmt.Sprintf(`{"Addr":"10.0.0.%d:80","Metadata":{"zone":"z%d","weight":%d,"status":%q}}`,
			r.IntN(20), r.IntN(3), 1+r.IntN(3), []string{"serving", "serving", "draining", "?"}[r.IntN(4)]))
	}
}

// Whatever happens to etcd and to clients, in the end each has what etcd says.
func TestRandom(t *testing.T) {
	for seed := range *seeds {
		synctest.Test(t, func(t *testing.T) { playRandom(t, uint64(seed)) })
		if t.Failed() {
			t.Fatalf("seed %d", seed)
		}
	}
}

func playRandom(t *testing.T, seed uint64) {
	r := rand.New(rand.NewPCG(seed, 0))
	etcd := fakeetcd.New()
	defer etcd.Close()
	conn := etcd.Connect(context.Background())
	defer conn.Close()
	log := slog.New(slog.DiscardHandler)
	directory, err := rollcall.NewDirectory(conn.Client, rollcall.DirectoryOptions{Logger: log})
	if err != nil {
		t.Fatal(err)
	}
	defer directory.Close()
	server, err := xds.NewServer(directory, xds.Options{Subset: 8, Linger: 5 * time.Second, WriteTimeout: 24 * time.Hour})
	if err != nil {
		t.Fatal(err)
	}
	defer server.Close()
	var clients []*randomClient
	for i := range 4 {
		c := &randomClient{rand: r, server: server, has: make(map[string]map[string]*anypb.Any), version: make(map[string]string), nonce: make(map[string]string),
			node: &corev3.Node{Id: fmt.Sprint("client-", i), Locality: &corev3.Locality{Zone: fmt.Sprint("z", i)}}}
		for _, typeURL := range allTypes {
			c.has[typeURL] = make(map[string]*anypb.Any)
		}
		c.connect()
		defer c.leave()
		clients = append(clients, c)
	}
	for range 300 {
		if r.IntN(3) == 0 {
			randomChange(r, etcd, conn)
		} else {
			clients[r.IntN(len(clients))].step(t)
		}
		if r.IntN(4) == 0 {
			time.Sleep(time.Duration(r.ExpFloat64() * float64(time.Second)))
		}
	}
	conn.Mend()
	for range 100 { // until nothing is under way
		time.Sleep(3 * time.Second)
		synctest.Wait()
		for _, c := range clients {
			c.take(t)
		}
	}
	for _, c := range clients {
		c.check(t, directory)
	}
}
