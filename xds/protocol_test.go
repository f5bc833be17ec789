// SPDX-FileCopyrightText: The Rollcall Authors
// SPDX-License-Identifier: Apache-2.0

package xds_test

import (
	"bytes"
	"context"
	"fmt"
	"log/slog"
	"maps"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	clusterv3 "github.com/envoyproxy/go-control-plane/envoy/config/cluster/v3"
	corev3 "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	endpointv3 "github.com/envoyproxy/go-control-plane/envoy/config/endpoint/v3"
	listenerv3 "github.com/envoyproxy/go-control-plane/envoy/config/listener/v3"
	discoveryv3 "github.com/envoyproxy/go-control-plane/envoy/service/discovery/v3"
	statuspb "google.golang.org/genproto/googleapis/rpc/status"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/structpb"

	"github.com/rollcall-grpc/rollcall/xds"
)

const (
	listenerType   = "type.googleapis.com/envoy.config.listener.v3.Listener"
	routeType      = "type.googleapis.com/envoy.config.route.v3.RouteConfiguration"
	clusterType    = "type.googleapis.com/envoy.config.cluster.v3.Cluster"
	assignmentType = "type.googleapis.com/envoy.config.endpoint.v3.ClusterLoadAssignment"
)

// client speaks the protocol by hand.
type client struct {
	t         *testing.T
	stream    discoveryv3.AggregatedDiscoveryService_StreamAggregatedResourcesClient
	responses chan *discoveryv3.DiscoveryResponse
	ended     chan error
	node      *corev3.Node // sent with the first request
}

func (l *lab) stub(t *testing.T) discoveryv3.AggregatedDiscoveryServiceClient {
	t.Helper()
	conn, err := grpc.NewClient(l.addr, grpc.WithTransportCredentials(insecure.NewCredentials()))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = conn.Close() })
	return discoveryv3.NewAggregatedDiscoveryServiceClient(conn)
}

func (l *lab) connect(t *testing.T, id string) *client {
	t.Helper()
	ctx, cancel := context.WithCancel(context.Background())
	t.Cleanup(cancel)
	stream, err := l.stub(t).StreamAggregatedResources(ctx)
	if err != nil {
		t.Fatal(err)
	}
	c := &client{t: t, stream: stream, responses: make(chan *discoveryv3.DiscoveryResponse, 100), ended: make(chan error, 1), node: &corev3.Node{Id: id}}
	go func() {
		for {
			resp, err := stream.Recv()
			if err != nil {
				c.ended <- err
				return
			}
			c.responses <- resp
		}
	}()
	return c
}

// ask sends a request; last is the response that it is about, nil for none.
func (c *client) ask(typeURL string, last *discoveryv3.DiscoveryResponse, nack string, names ...string) {
	c.t.Helper()
	req := &discoveryv3.DiscoveryRequest{TypeUrl: typeURL, ResourceNames: names, Node: c.node, VersionInfo: last.GetVersionInfo(), ResponseNonce: last.GetNonce()}
	c.node = nil
	if nack != "" {
		req.ErrorDetail = &statuspb.Status{Message: nack}
	}
	if err := c.stream.Send(req); err != nil {
		c.t.Fatal(err)
	}
}

// answer returns the next response, which must be of a type.
func (c *client) answer(typeURL string) *discoveryv3.DiscoveryResponse {
	c.t.Helper()
	select {
	case resp := <-c.responses:
		if resp.TypeUrl != typeURL {
			c.t.Fatalf("answer of type %s, want %s", resp.TypeUrl, typeURL)
		}
		return resp
	case err := <-c.ended:
		c.t.Fatalf("the stream ended: %v", err)
	case <-time.After(10 * time.Second):
		c.t.Fatalf("no answer of type %s", typeURL)
	}
	return nil
}

// silent fails if there is a response soon.
func (c *client) silent() {
	c.t.Helper()
	select {
	case resp := <-c.responses:
		c.t.Fatalf("unexpected response: %v", resp)
	case err := <-c.ended:
		c.t.Fatalf("the stream ended: %v", err)
	case <-time.After(150 * time.Millisecond):
	}
}

// refused returns the status that the stream ends with.
func (c *client) refused() *status.Status {
	c.t.Helper()
	for {
		select {
		case <-c.responses:
		case err := <-c.ended:
			return status.Convert(err)
		case <-time.After(10 * time.Second):
			c.t.Fatal("the stream goes on")
		}
	}
}

// names returns the names of a response's resources.
func names(t *testing.T, resp *discoveryv3.DiscoveryResponse) (names []string) {
	t.Helper()
	for _, r := range resp.Resources {
		m, err := r.UnmarshalNew()
		if err != nil {
			t.Fatal(err)
		}
		switch m := m.(type) {
		case *listenerv3.Listener:
			names = append(names, m.Name)
		case *clusterv3.Cluster:
			names = append(names, m.Name)
		case *endpointv3.ClusterLoadAssignment:
			names = append(names, m.ClusterName)
		}
	}
	return names
}

// addrs returns the addresses in a response with one assignment, and the reason of a refusal.
func addrs(t *testing.T, resp *discoveryv3.DiscoveryResponse) (addrs []string) {
	t.Helper()
	a := new(endpointv3.ClusterLoadAssignment)
	if len(resp.Resources) != 1 {
		t.Fatalf("%d resources", len(resp.Resources))
	}
	if err := resp.Resources[0].UnmarshalTo(a); err != nil {
		t.Fatal(err)
	}
	for _, d := range a.GetPolicy().GetDropOverloads() {
		addrs = append(addrs, "refused: "+d.Category)
	}
	for _, l := range a.Endpoints {
		for _, e := range l.LbEndpoints {
			addrs = append(addrs, e.GetEndpoint().Address.GetSocketAddress().Address)
		}
	}
	return addrs
}

func wantAddrs(t *testing.T, resp *discoveryv3.DiscoveryResponse, want ...string) {
	t.Helper()
	if got := addrs(t, resp); !slices.Equal(got, want) {
		t.Errorf("addresses %q, want %q", got, want)
	}
}

func wantNames(t *testing.T, resp *discoveryv3.DiscoveryResponse, want ...string) {
	t.Helper()
	if got := names(t, resp); !slices.Equal(got, want) {
		t.Errorf("resources %q, want %q", got, want)
	}
}

func TestStateOfTheWorld(t *testing.T) {
	l := newLab(t, xds.Options{PushInterval: time.Nanosecond})
	l.put("a/1", "10.0.0.1:80", "null")
	l.put("b/1", "10.0.0.2:80", "null")
	c := l.connect(t, "client")

	c.ask(listenerType, nil, "", "a")
	lds := c.answer(listenerType)
	wantNames(t, lds, "a")
	c.ask(listenerType, lds, "", "a") // an ACK has no answer
	c.silent()
	c.ask(listenerType, lds, "", "a", "b") // all of them: those left out would be deleted
	lds = c.answer(listenerType)
	wantNames(t, lds, "a", "b")

	c.ask(assignmentType, nil, "", "a")
	eds := c.answer(assignmentType)
	wantAddrs(t, eds, "10.0.0.1")
	c.ask(assignmentType, eds, "", "a")
	c.ask(assignmentType, eds, "", "a", "b") // only what is new
	eds = c.answer(assignmentType)
	wantNames(t, eds, "b")
	c.ask(assignmentType, eds, "", "a", "b")
	l.put("a/2", "10.0.0.3:80", "null") // only what has changed
	stale := eds
	eds = c.answer(assignmentType)
	wantAddrs(t, eds, "10.0.0.1", "10.0.0.3")

	c.ask(assignmentType, stale, "", "b") // sent before the last response arrived
	c.silent()
	c.ask(assignmentType, eds, "", "b")
	c.silent()
	l.put("a/3", "10.0.0.4:80", "null") // nobody asks for it any more
	c.silent()
	c.ask(assignmentType, eds, "", "a", "b")
	eds = c.answer(assignmentType)
	wantAddrs(t, eds, "10.0.0.1", "10.0.0.3", "10.0.0.4")

	c.ask(assignmentType, eds, "", "a", "b")
	c.silent()
	c.ask(assignmentType, eds, "", "a", "b") // no ACK: the client has forgotten something
	eds = c.answer(assignmentType)
	wantNames(t, eds, "a", "b")

	c.ask(routeType, nil, "", "a")
	c.answer(routeType)
	c.ask(clusterType, nil, "", "b", "a")
	wantNames(t, c.answer(clusterType), "a", "b")
	c.ask(listenerType, lds, "", "a", "b")
	c.ask(listenerType, lds, "") // no Listener any more
	c.silent()
}

// What a client rejects is told in its own words, and not sent again until it changes.
func TestRejection(t *testing.T) {
	var log lockedBuffer
	l := newLab(t, xds.Options{PushInterval: time.Nanosecond, Logger: slog.New(slog.NewTextHandler(&log, nil))})
	l.put("a/1", "10.0.0.1:80", "null")
	c := l.connect(t, "picky")
	c.ask(assignmentType, nil, "", "a")
	first := c.answer(assignmentType)
	c.ask(assignmentType, first, "", "a")
	l.put("a/2", "10.0.0.2:80", "null")
	second := c.answer(assignmentType)
	c.ask(assignmentType, second, "I do not like it", "a")
	c.silent()
	sub := l.server.Clients()[0].Resources[0]
	if sub.Accepted != first.VersionInfo || sub.Sent != second.VersionInfo || sub.Rejected == nil || sub.Rejected.Message != "I do not like it" || sub.Rejected.Version != second.VersionInfo {
		t.Errorf("reported as %+v", sub)
	}
	if n := l.server.Stats().Rejections; n != 1 {
		t.Errorf("%d rejections", n)
	}
	if text := log.String(); !strings.Contains(text, "client=picky") || !strings.Contains(text, "I do not like it") {
		t.Errorf("log %q", text)
	}
	l.put("a/3", "10.0.0.3:80", "null")
	wantAddrs(t, c.answer(assignmentType), "10.0.0.1", "10.0.0.2", "10.0.0.3")
}

// Versions are the same on every replica, whatever the revisions.
func TestVersions(t *testing.T) {
	var versions []map[string]string
	for i := range 2 {
		l := newLab(t, xds.Options{})
		for range i {
			l.etcd.Put("other", "its revisions differ")
		}
		l.etcd.Put("_grpc_config/a", `{"loadBalancingConfig":[{"pick_first":{}}]}`)
		l.put("a/1", "10.0.0.1:80", `{"zone":"z"}`)
		l.put("a/2", "10.0.0.2:80", `{"weight":7}`)
		c := l.connect(t, "client")
		c.ask(assignmentType, nil, "", "a") // answered once the service config is known
		has := map[string]string{assignmentType: c.answer(assignmentType).VersionInfo}
		for _, typeURL := range []string{listenerType, clusterType, routeType} {
			c.ask(typeURL, nil, "", "a")
			has[typeURL] = c.answer(typeURL).VersionInfo
		}
		versions = append(versions, has)
	}
	if !maps.Equal(versions[0], versions[1]) {
		t.Errorf("versions %v and %v", versions[0], versions[1])
	}
}

// A client that comes back is sent everything: it may have dropped a resource since it was sent
// the version that it names.
func TestResumeIsComplete(t *testing.T) {
	l := newLab(t, xds.Options{})
	l.put("a/1", "10.0.0.1:80", "null")
	l.put("b/1", "10.0.0.2:80", "null")
	c := l.connect(t, "client")
	c.ask(assignmentType, nil, "", "a", "b")
	eds := c.answer(assignmentType)
	if len(eds.Resources) == 1 { // one came first
		eds = c.answer(assignmentType)
	}
	c.ask(assignmentType, eds, "", "b")
	back := l.connect(t, "client")
	back.ask(assignmentType, &discoveryv3.DiscoveryResponse{VersionInfo: eds.VersionInfo}, "", "a", "b")
	wantNames(t, back.answer(assignmentType), "a", "b")
}

// A replica that has not heard of etcd yet sends nothing to clients that have something, and what
// it can to others.
func TestReplicaWithoutEtcd(t *testing.T) {
	l := newLab(t, xds.Options{})
	l.put("a/1", "10.0.0.1:80", "null")
	l.etcd.Put("_grpc_config/a", `{"loadBalancingConfig":[{"pick_first":{}}]}`)
	l.conn.Cut()
	back, fresh := l.connect(t, "back"), l.connect(t, "fresh")
	for _, typeURL := range []string{listenerType, clusterType, assignmentType} {
		back.ask(typeURL, &discoveryv3.DiscoveryResponse{VersionInfo: "something"}, "", "a")
		fresh.ask(typeURL, nil, "", "a")
	}
	fresh.answer(listenerType)
	fresh.answer(clusterType)
	if got := addrs(t, fresh.answer(assignmentType)); len(got) != 1 || !strings.HasPrefix(got[0], "refused: ") {
		t.Errorf("a new client is sent %q", got)
	}
	time.Sleep(200 * time.Millisecond)
	back.silent()
	l.conn.Mend()
	for range 3 { // each once
		select {
		case resp := <-back.responses:
			if resp.TypeUrl == assignmentType {
				wantAddrs(t, resp, "10.0.0.1")
			}
		case <-time.After(10 * time.Second):
			t.Fatal("nothing is sent once etcd is there")
		}
	}
	back.silent()
}

// That a service was empty once is no reason to say so when etcd is away.
func TestStaleEmptiness(t *testing.T) {
	l := newLab(t, xds.Options{Linger: 10 * time.Millisecond})
	c := l.connect(t, "client")
	c.ask(assignmentType, nil, "", "a")
	empty := c.answer(assignmentType)
	wantAddrs(t, empty)
	c.ask(assignmentType, empty, "")
	eventually(t, func() string {
		if n := l.directory.Stats().Services; n > 0 {
			return "the service is still followed"
		}
		return ""
	})
	l.put("a/1", "10.0.0.1:80", "null")
	l.conn.Cut()
	back, fresh := l.connect(t, "back"), l.connect(t, "fresh")
	back.ask(assignmentType, &discoveryv3.DiscoveryResponse{VersionInfo: "something"}, "", "a")
	fresh.ask(assignmentType, nil, "", "a")
	if got := addrs(t, fresh.answer(assignmentType)); len(got) != 1 || !strings.HasPrefix(got[0], "refused: ") {
		t.Errorf("a new client is sent %q", got)
	}
	back.silent()
	l.conn.Mend()
	wantAddrs(t, back.answer(assignmentType), "10.0.0.1")
}

// A response is not larger than clients take: the rest comes in the next.
func TestLargeResponses(t *testing.T) {
	l := newLab(t, xds.Options{})
	zone := strings.Repeat("z", 2000)
	var services []string
	for i := range 10 {
		service := fmt.Sprint("s", i)
		services = append(services, service)
		for j := range 100 {
			l.put(fmt.Sprint(service, "/", j), fmt.Sprintf("10.0.%d.%d:80", i, j), fmt.Sprintf(`{"zone":"%d%s"}`, j, zone))
		}
	}
	var responses int
	for range 2 { // the second client finds all of them known
		c := l.connect(t, "client")
		c.ask(assignmentType, nil, "", services...)
		responses = 0
		for got := 0; got < len(services); responses++ {
			resp := c.answer(assignmentType)
			if n := proto.Size(resp); n > 3<<19 {
				t.Errorf("a response of %d bytes", n)
			}
			got += len(resp.Resources)
		}
	}
	if responses < 2 {
		t.Errorf("%d responses", responses)
	}
}

func TestIncremental(t *testing.T) {
	l := newLab(t, xds.Options{PushInterval: time.Nanosecond})
	l.put("a/1", "10.0.0.1:80", "null")
	l.put("b/1", "10.0.0.2:80", "null")
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
	defer cancel()
	stream, err := l.stub(t).DeltaAggregatedResources(ctx)
	if err != nil {
		t.Fatal(err)
	}
	ask := func(req *discoveryv3.DeltaDiscoveryRequest) {
		t.Helper()
		if err := stream.Send(req); err != nil {
			t.Fatal(err)
		}
	}
	want := func(names ...string) *discoveryv3.DeltaDiscoveryResponse {
		t.Helper()
		resp, err := stream.Recv()
		if err != nil {
			t.Fatal(err)
		}
		var got []string
		for _, r := range resp.Resources {
			got = append(got, r.Name)
		}
		if !slices.Equal(got, names) {
			t.Errorf("%s: resources %q, want %q", resp.TypeUrl, got, names)
		}
		return resp
	}
	node := &corev3.Node{Id: "envoy", Metadata: &structpb.Struct{Fields: map[string]*structpb.Value{
		"services": structpb.NewListValue(&structpb.ListValue{Values: []*structpb.Value{structpb.NewStringValue("a"), structpb.NewStringValue("b")}}),
	}}}
	ask(&discoveryv3.DeltaDiscoveryRequest{TypeUrl: clusterType, Node: node}) // Envoy asks for all clusters
	resp := want("a", "b")
	ask(&discoveryv3.DeltaDiscoveryRequest{TypeUrl: clusterType, ResponseNonce: resp.Nonce})
	ask(&discoveryv3.DeltaDiscoveryRequest{TypeUrl: assignmentType, ResourceNamesSubscribe: []string{"a"}})
	version := want("a").Resources[0].Version
	ask(&discoveryv3.DeltaDiscoveryRequest{TypeUrl: assignmentType, ResourceNamesSubscribe: []string{"b"}})
	want("b")
	l.put("a/2", "10.0.0.3:80", "null")
	want("a")
	ask(&discoveryv3.DeltaDiscoveryRequest{TypeUrl: assignmentType, ResourceNamesUnsubscribe: []string{"a"}, ResourceNamesSubscribe: []string{"b"}})
	want("b") // again, since it was asked for: the server has taken in the request
	l.put("b/2", "10.0.0.4:80", "null")
	want("b")
	l.put("a/4", "10.0.0.5:80", "null") // nobody asks for it any more
	ask(&discoveryv3.DeltaDiscoveryRequest{TypeUrl: clusterType, ResourceNamesUnsubscribe: []string{"*"}})
	ask(&discoveryv3.DeltaDiscoveryRequest{TypeUrl: clusterType, ResourceNamesSubscribe: []string{"c"}})
	want("c")
	l.etcd.Put("_grpc_config/a", `{"loadBalancingConfig":[{"pick_first":{}}]}`)
	ask(&discoveryv3.DeltaDiscoveryRequest{TypeUrl: clusterType, ResourceNamesSubscribe: []string{"d"}})
	want("d")

	if stream, err = l.stub(t).DeltaAggregatedResources(ctx); err != nil { // back, with what it has
		t.Fatal(err)
	}
	l.etcd.Delete("a/2")
	l.etcd.Delete("a/4")
	time.Sleep(100 * time.Millisecond)
	ask(&discoveryv3.DeltaDiscoveryRequest{TypeUrl: assignmentType, ResourceNamesSubscribe: []string{"a", "b"}, InitialResourceVersions: map[string]string{"a": version, "b": "old"}})
	want("b")
}

// Envoy asks for all Clusters and Listeners, and then for what it was told of.
func TestWildcard(t *testing.T) {
	l := newLab(t, xds.Options{PushInterval: time.Nanosecond})
	l.put("a/1", "10.0.0.1:80", "null")
	c := l.connect(t, "envoy")
	c.node.Metadata = &structpb.Struct{Fields: map[string]*structpb.Value{
		"services": structpb.NewListValue(&structpb.ListValue{Values: []*structpb.Value{structpb.NewStringValue("a"), structpb.NewStringValue("b"), structpb.NewNumberValue(1)}}),
	}}
	c.ask(clusterType, nil, "")
	cds := c.answer(clusterType)
	wantNames(t, cds, "a", "b")
	c.ask(clusterType, cds, "")
	c.ask(assignmentType, nil, "", "a")
	wantAddrs(t, c.answer(assignmentType), "10.0.0.1")
	c.ask(listenerType, nil, "")
	lds := c.answer(listenerType)
	wantNames(t, lds)
	c.ask(listenerType, lds, "")
	c.silent()
	l.etcd.Put("_grpc_config/a", `{"loadBalancingConfig":[{"pick_first":{}}]}`)
	wantNames(t, c.answer(clusterType), "a", "b")

	both := l.connect(t, "envoy that asks for more on demand")
	both.node.Metadata = &structpb.Struct{Fields: map[string]*structpb.Value{
		"services": structpb.NewListValue(&structpb.ListValue{Values: []*structpb.Value{structpb.NewStringValue("b")}}),
	}}
	both.ask(clusterType, nil, "", "*", "a")
	cds = both.answer(clusterType)
	wantNames(t, cds, "a", "b")
	both.ask(clusterType, cds, "", "*", "a")
	both.silent()
	none := l.connect(t, "envoy without services")
	none.ask(clusterType, nil, "", "a")
	cds = none.answer(clusterType)
	none.ask(clusterType, cds, "", "*", "a")
	none.silent() // nothing new: all that it has stays
	none.ask(assignmentType, nil, "", "*", "a")
	eds := none.answer(assignmentType)
	none.ask(assignmentType, eds, "", "*", "a")
	none.silent()
}

// While etcd is away, the last state is served, also to new streams; calls to a service that was
// never seen fail with the reason, soon.
func TestOutage(t *testing.T) {
	l := newLab(t, xds.Options{PushInterval: time.Nanosecond})
	l.put("seen/1", "10.0.0.1:80", "null")
	c := l.connect(t, "client")
	c.ask(assignmentType, nil, "", "seen")
	eds := c.answer(assignmentType)
	c.ask(assignmentType, eds, "", "seen")
	l.conn.Cut()
	began := time.Now()
	other := l.connect(t, "new")
	other.ask(listenerType, nil, "", "seen", "unseen")
	wantNames(t, other.answer(listenerType), "seen", "unseen")
	other.ask(assignmentType, nil, "", "seen")
	seen := other.answer(assignmentType)
	wantAddrs(t, seen, "10.0.0.1")
	other.ask(assignmentType, seen, "", "seen", "unseen")
	unseen := other.answer(assignmentType)
	if waited := time.Since(began); waited > 1500*time.Millisecond {
		t.Errorf("refused after %v", waited)
	}
	if got := addrs(t, unseen); len(got) != 1 || !strings.HasPrefix(got[0], `refused: rollcall: etcd`) {
		t.Errorf("addresses %q, want a refusal", got)
	}
	other.ask(assignmentType, unseen, "", "seen", "unseen")
	c.silent() // nothing becomes empty
	l.conn.Mend()
	for { // the reason may change before it is over
		resp := other.answer(assignmentType)
		if got := addrs(t, resp); len(got) == 0 {
			break // as etcd says
		} else if !strings.HasPrefix(got[0], "refused") {
			t.Fatalf("addresses %q", got)
		}
	}
}

// Limits end the stream that is over them, and no other.
func TestLimits(t *testing.T) {
	l := newLab(t, xds.Options{MaxNames: 3, MaxStreams: 2})
	l.put("a/1", "10.0.0.1:80", "null")
	good := l.connect(t, "good")
	good.ask(assignmentType, nil, "", "a")
	good.ask(assignmentType, good.answer(assignmentType), "", "a")
	for name, c := range map[string]struct {
		ask  func(*client)
		code codes.Code
		text string
	}{
		"names":     {func(c *client) { c.ask(assignmentType, nil, "", "a", "b", "c", "d") }, codes.ResourceExhausted, "more than 3 resources"},
		"type":      {func(c *client) { c.ask("type.googleapis.com/envoy.Nonsense", nil, "", "a") }, codes.InvalidArgument, `"type.googleapis.com/envoy.Nonsense" are not served`},
		"no type":   {func(c *client) { c.ask("", nil, "", "a") }, codes.InvalidArgument, "not served"},
		"long name": {func(c *client) { c.ask(listenerType, nil, "", strings.Repeat("x", 5_000)) }, codes.InvalidArgument, "at most 4096"},
	} {
		bad := l.connect(t, "bad")
		c.ask(bad)
		if s := bad.refused(); s.Code() != c.code || !strings.Contains(s.Message(), c.text) {
			t.Errorf("%s: %v, want %v with %q", name, s, c.code, c.text)
		}
	}
	second := l.connect(t, "second")
	second.ask(listenerType, nil, "", "a")
	second.answer(listenerType)
	if s := l.connect(t, "third").refused(); s.Code() != codes.ResourceExhausted || !strings.Contains(s.Message(), "2 streams") {
		t.Errorf("a stream too many: %v", s)
	}
	l.put("a/2", "10.0.0.2:80", "null")
	wantAddrs(t, good.answer(assignmentType), "10.0.0.1", "10.0.0.2")
}

// Names that are none are answered by a refusal, next to good ones.
func TestBadNames(t *testing.T) {
	l := newLab(t, xds.Options{Authorize: func(_ context.Context, service string) error {
		if service == "secret" {
			return fmt.Errorf("only its friends may ask for %q", service)
		}
		return nil
	}})
	l.put("a/1", "10.0.0.1:80", "null")
	for name, want := range map[string]string{
		"":                       "names no service",
		"///":                    "names no service",
		"a?color=red":            `unknown field "color"`,
		"secret":                 `only its friends may ask for "secret"`,
		"xdstp://x/wrong.Type/a": `it is of type "wrong.Type"`,
		"xdstp:%zz":              "invalid URL escape",
		"a%ff":                   "not UTF-8",
	} {
		c := l.connect(t, "client")
		for _, typeURL := range []string{listenerType, clusterType, routeType} {
			c.ask(typeURL, nil, "", name)
			c.answer(typeURL)
		}
		c.ask(assignmentType, nil, "", name)
		if got := addrs(t, c.answer(assignmentType)); len(got) != 1 || !strings.Contains(got[0], "refused: rollcall: ") || !strings.Contains(got[0], want) {
			t.Errorf("%q: %q, want a refusal with %q", name, got, want)
		}
		clients := l.server.Clients()
		for _, r := range clients[len(clients)-1].Resources {
			if len(r.Refused) != 1 || r.Refused[0].Name != name || !strings.Contains(r.Refused[0].Reason, want) && r.Type == assignmentType {
				t.Errorf("%q is reported as %+v", name, r)
			}
		}
	}
}

// A client that does not read is ended, whether there is more for it or not.
func TestSlowReader(t *testing.T) {
	l := newLab(t, xds.Options{WriteTimeout: 300 * time.Millisecond})
	l.put("a/1", "10.0.0.1:80", "null")
	silent := l.connect(t, "reads, and does not acknowledge")
	silent.ask(assignmentType, nil, "", "a")
	if s := silent.refused(); s.Code() != codes.DeadlineExceeded || !strings.Contains(s.Message(), "unanswered for 300ms") {
		t.Errorf("ended with %v", s)
	}
	big := strings.Repeat("x", 30_000)
	for i := range 50 {
		l.put(fmt.Sprintf("big/%d", i), fmt.Sprintf("10.0.0.%d:80", i), fmt.Sprintf(`{"zone":"%d-%s"}`, i, big))
	}
	stream, err := l.stub(t).StreamAggregatedResources(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	if err := stream.Send(&discoveryv3.DiscoveryRequest{TypeUrl: assignmentType, ResourceNames: []string{"big"}, Node: &corev3.Node{Id: "slow"}}); err != nil {
		t.Fatal(err)
	}
	eventually(t, func() string {
		if s := l.server.Stats(); s.Streams < 2 || s.Clients > 0 {
			return "a client that does not read is still served"
		}
		return ""
	})
}

// So many services are followed and no more; those that are stay as they are.
func TestMaxServices(t *testing.T) {
	l := newLab(t, xds.Options{MaxServices: 2})
	c := l.connect(t, "client")
	c.ask(assignmentType, nil, "", "a", "b", "c")
	refused := 0
	for got := 0; got < 3; {
		resp := c.answer(assignmentType)
		got += len(resp.Resources)
		for _, r := range resp.Resources {
			a := new(endpointv3.ClusterLoadAssignment)
			if err := r.UnmarshalTo(a); err != nil {
				t.Fatal(err)
			}
			refused += len(a.GetPolicy().GetDropOverloads())
		}
	}
	if refused != 1 {
		t.Errorf("%d of 3 services are refused, want 1", refused)
	}
}

// A service is followed for a while after its last client, and no longer.
func TestLinger(t *testing.T) {
	l := newLab(t, xds.Options{Linger: time.Second, MaxNames: 5})
	atMost := func(most int) {
		t.Helper()
		eventually(t, func() string {
			if n := l.server.Stats().Services; n > most {
				return fmt.Sprintf("%d services followed, want %d at most", n, most)
			}
			return ""
		})
	}
	l.put("a/1", "10.0.0.1:80", "null")
	c := l.connect(t, "client")
	c.ask(assignmentType, nil, "", "a")
	eds := c.answer(assignmentType)
	c.ask(assignmentType, eds, "")
	time.Sleep(50 * time.Millisecond)
	if n := l.server.Stats().Services; n != 1 {
		t.Errorf("%d services followed", n)
	}
	for i := range 20 { // made-up names end at once where there are too many
		c.ask(assignmentType, eds, "", fmt.Sprint("x", i))
		eds = c.answer(assignmentType)
		atMost(6)
	}
	c.ask(assignmentType, eds, "")
	atMost(0)
	if n := l.directory.Stats().Services; n != 0 {
		t.Errorf("the Directory follows %d services", n)
	}
}

// Changes of a burst are sent together, the first at once.
func TestPushInterval(t *testing.T) {
	l := newLab(t, xds.Options{PushInterval: 500 * time.Millisecond})
	l.put("a/0", "10.0.0.1:80", "null")
	c := l.connect(t, "client")
	c.ask(assignmentType, nil, "", "a")
	c.ask(assignmentType, c.answer(assignmentType), "", "a")
	time.Sleep(50 * time.Millisecond)
	began := time.Now()
	l.put("a/1", "10.0.0.2:80", "null")
	c.answer(assignmentType)
	if waited := time.Since(began); waited > 250*time.Millisecond {
		t.Errorf("the first change was sent after %v", waited)
	}
	for i := range 10 {
		l.put("a/1", fmt.Sprintf("10.0.1.%d:80", i), "null")
		time.Sleep(10 * time.Millisecond)
	}
	resp := c.answer(assignmentType)
	wantAddrs(t, resp, "10.0.0.1", "10.0.1.9")
	if waited := time.Since(began); waited < 450*time.Millisecond {
		t.Errorf("the rest was sent after %v", waited)
	}
	c.silent()
}

// Two equal responses are one resource: nobody is woken for a change that cannot be seen.
func TestUnseenChanges(t *testing.T) {
	l := newLab(t, xds.Options{PushInterval: time.Nanosecond})
	l.put("a/1", "10.0.0.1:80", `{"version":"v1"}`)
	c := l.connect(t, "client")
	c.ask(assignmentType, nil, "", "a")
	c.ask(assignmentType, c.answer(assignmentType), "", "a")
	l.put("a/1", "10.0.0.1:80", `{"version":"v2"}`)
	l.put("a/2", "unix:/run/x", "null")
	l.put("a/3", "", "null")
	c.silent()
}

type lockedBuffer struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (b *lockedBuffer) Write(p []byte) (int, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.b.Write(p)
}

func (b *lockedBuffer) String() string {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.b.String()
}
