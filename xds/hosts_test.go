// SPDX-FileCopyrightText: The Rollcall Authors
// SPDX-License-Identifier: Apache-2.0

package xds_test

import (
	"context"
	"fmt"
	"net"
	"net/netip"
	"slices"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"google.golang.org/grpc/metadata"

	corev3 "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	endpointv3 "github.com/envoyproxy/go-control-plane/envoy/config/endpoint/v3"
	discoveryv3 "github.com/envoyproxy/go-control-plane/envoy/service/discovery/v3"

	"github.com/rollcall-grpc/rollcall"
	"github.com/rollcall-grpc/rollcall/internal/test/fakeetcd"
	"github.com/rollcall-grpc/rollcall/xds"
)

// dns answers lookups.
type dns struct {
	mu      sync.Mutex
	hosts   map[string][]netip.Addr // nil: there is no answer
	lookups map[string]int
}

func (d *dns) set(host string, addrs ...string) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.hosts == nil {
		d.hosts, d.lookups = make(map[string][]netip.Addr), make(map[string]int)
	}
	d.hosts[host] = nil
	for _, a := range addrs {
		d.hosts[host] = append(d.hosts[host], netip.MustParseAddr(a))
	}
}

func (d *dns) lookup(ctx context.Context, host string) ([]netip.Addr, error) {
	d.mu.Lock()
	addrs, known := d.hosts[host]
	d.lookups[host]++
	d.mu.Unlock()
	switch {
	case !known:
		<-ctx.Done()
		return nil, ctx.Err()
	case addrs == nil:
		return nil, &net.DNSError{Err: fmt.Sprintf("read udp 10.0.0.5:%d->10.0.0.2:53: connection refused", d.count(host)), Name: host, IsTemporary: true}
	}
	return slices.Clone(addrs), nil
}

func (d *dns) count(host string) int {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.lookups[host]
}

// virtual is a stream in virtual time.
type virtual struct {
	discoveryv3.AggregatedDiscoveryService_StreamAggregatedResourcesServer
	ctx      context.Context
	requests chan *discoveryv3.DiscoveryRequest

	mu        sync.Mutex
	responses []*discoveryv3.DiscoveryResponse
}

func (v *virtual) Context() context.Context     { return v.ctx }
func (v *virtual) SetHeader(metadata.MD) error  { return nil }
func (v *virtual) SendHeader(metadata.MD) error { return nil }

func (v *virtual) Recv() (*discoveryv3.DiscoveryRequest, error) {
	select {
	case req := <-v.requests:
		return req, nil
	case <-v.ctx.Done():
		return nil, v.ctx.Err()
	}
}

func (v *virtual) Send(resp *discoveryv3.DiscoveryResponse) error {
	v.mu.Lock()
	defer v.mu.Unlock()
	v.responses = append(v.responses, resp)
	return nil
}

// all returns the responses so far.
func (v *virtual) all() []*discoveryv3.DiscoveryResponse {
	v.mu.Lock()
	defer v.mu.Unlock()
	return slices.Clone(v.responses)
}

// addrs returns the addresses of the latest response, or nil where there is none.
func (v *virtual) addrs(t *testing.T) []string {
	t.Helper()
	synctest.Wait()
	v.mu.Lock()
	defer v.mu.Unlock()
	if len(v.responses) == 0 {
		return nil
	}
	return addrs(t, v.responses[len(v.responses)-1])
}

// inVirtualTime plays a test with a client of the service "svc".
func inVirtualTime(t *testing.T, opts xds.Options, prepare func(*fakeetcd.Store, *fakeetcd.Conn), test func(t *testing.T, etcd *fakeetcd.Store, v *virtual)) {
	t.Helper()
	inVirtualTimeOf(t, rollcall.DirectoryOptions{}, opts, prepare, test)
}

func inVirtualTimeOf(t *testing.T, directoryOpts rollcall.DirectoryOptions, opts xds.Options, prepare func(*fakeetcd.Store, *fakeetcd.Conn), test func(t *testing.T, etcd *fakeetcd.Store, v *virtual)) {
	t.Helper()
	synctest.Test(t, func(t *testing.T) {
		etcd := fakeetcd.New()
		defer etcd.Close()
		conn := etcd.Connect(context.Background())
		defer conn.Close()
		prepare(etcd, conn)
		directory, err := rollcall.NewDirectory(conn.Client, directoryOpts)
		if err != nil {
			t.Fatal(err)
		}
		defer directory.Close()
		opts.WriteTimeout = 24 * time.Hour // the client acknowledges nothing
		server, err := xds.NewServer(directory, opts)
		if err != nil {
			t.Fatal(err)
		}
		defer server.Close()
		ctx, cancel := context.WithCancel(context.Background())
		v := &virtual{ctx: ctx, requests: make(chan *discoveryv3.DiscoveryRequest)}
		ended := make(chan struct{})
		go func() {
			defer close(ended)
			_ = server.StreamAggregatedResources(v)
		}()
		v.requests <- &discoveryv3.DiscoveryRequest{TypeUrl: assignmentType, ResourceNames: []string{"svc"}}
		test(t, etcd, v)
		cancel()
		<-ended
	})
}

// Host names are resolved, and those that cannot be harm no neighbour.
func TestHosts(t *testing.T) {
	var d dns
	d.set("good", "2001:db8::1", "10.0.0.2", "10.0.0.1")
	d.set("bad")
	d.set("local", "169.254.0.1")
	inVirtualTime(t, xds.Options{LookupHost: d.lookup}, func(s *fakeetcd.Store, _ *fakeetcd.Conn) {
		s.Put("svc/1", `{"Addr":"good:80"}`)
		s.Put("svc/2", `{"Addr":"bad:80"}`)
		s.Put("svc/3", `{"Addr":"10.0.0.3:80"}`)
		s.Put("svc/4", `{"Addr":"local:80"}`)
	}, func(t *testing.T, s *fakeetcd.Store, v *virtual) {
		want := func(want ...string) {
			t.Helper()
			if got := v.addrs(t); !slices.Equal(got, want) {
				t.Errorf("addresses %q, want %q", got, want)
			}
		}
		time.Sleep(time.Second)
		want("10.0.0.1", "10.0.0.3")
		a := new(endpointv3.ClusterLoadAssignment)
		if err := v.responses[len(v.responses)-1].Resources[0].UnmarshalTo(a); err != nil {
			t.Fatal(err)
		}
		if more := a.Endpoints[0].LbEndpoints[0].GetEndpoint().AdditionalAddresses; len(more) != 2 || more[1].Address.GetSocketAddress().Address != "2001:db8::1" {
			t.Errorf("additional addresses %v", more)
		}
		d.set("good", "10.0.0.9")
		d.set("bad", "10.0.0.4")
		time.Sleep(time.Minute)
		want("10.0.0.3", "10.0.0.4", "10.0.0.9")
		d.set("good") // fails: the last answer stays
		time.Sleep(time.Minute)
		want("10.0.0.3", "10.0.0.4", "10.0.0.9")
		s.Put("svc/5", `{"Addr":"10.0.0.9:80"}`) // one endpoint an address
		s.Delete("svc/2")
		time.Sleep(time.Second)
		want("10.0.0.3", "10.0.0.9")
		before := d.count("bad")
		time.Sleep(10 * time.Minute)
		if n := d.count("bad") - before; n > 0 {
			t.Errorf("a host that nobody has was looked up %d times", n)
		}
		if n := d.count("good"); n < 18 || n > 40 {
			t.Errorf("a host was looked up %d times in 12 min", n)
		}
	})
}

// A host that is slow to resolve is waited for, but not for long, and others are not.
func TestSlowHost(t *testing.T) {
	var d dns
	d.set("other", "10.0.0.2")
	inVirtualTime(t, xds.Options{LookupHost: d.lookup}, func(s *fakeetcd.Store, _ *fakeetcd.Conn) {
		s.Put("svc/1", `{"Addr":"slow:80"}`)
		s.Put("svc/2", `{"Addr":"10.0.0.1:80"}`)
	}, func(t *testing.T, s *fakeetcd.Store, v *virtual) {
		time.Sleep(900 * time.Millisecond)
		if got := v.addrs(t); got != nil {
			t.Errorf("answered at once: %q", got)
		}
		time.Sleep(200 * time.Millisecond)
		if got := v.addrs(t); !slices.Equal(got, []string{"10.0.0.1"}) {
			t.Errorf("after a second: %q", got)
		}
		s.Put("svc/3", `{"Addr":"10.0.0.3:80"}`)
		time.Sleep(200 * time.Millisecond)
		if got := v.addrs(t); !slices.Equal(got, []string{"10.0.0.1", "10.0.0.3"}) {
			t.Errorf("a change was shown as %q", got)
		}
	})
}

// Where no endpoint can be sent, calls fail with the reason.
func TestNoHost(t *testing.T) {
	var d dns
	d.set("bad")
	inVirtualTime(t, xds.Options{LookupHost: d.lookup}, func(s *fakeetcd.Store, _ *fakeetcd.Conn) {
		s.Put("svc/1", `{"Addr":"bad:80"}`)
		s.Put("svc/2", `{"Addr":"unix:/run/x"}`)
	}, func(t *testing.T, _ *fakeetcd.Store, v *virtual) {
		time.Sleep(10 * time.Minute) // the text stays
		if got := v.addrs(t); len(got) != 1 || got[0] != `refused: rollcall: no endpoint of "svc" can be called; the first of 2, "svc/1": the host name "bad" cannot be resolved` {
			t.Errorf("%q", got)
		}
		if n := len(v.responses); n != 1 {
			t.Errorf("%d responses", n)
		}
	})
}

// An address is sent once, whoever has it: clients reject an assignment that has one twice.
func TestSharedAddresses(t *testing.T) {
	var d dns
	d.set("a", "10.0.0.1", "10.0.0.2", "10.0.0.3", "10.0.0.4")
	d.set("b", "10.0.0.2", "10.0.0.3")
	d.set("c", "10.0.0.0", "10.0.0.3", "10.0.0.5")
	inVirtualTime(t, xds.Options{LookupHost: d.lookup}, func(s *fakeetcd.Store, _ *fakeetcd.Conn) {
		s.Put("svc/1", `{"Addr":"a:80"}`)
		s.Put("svc/2", `{"Addr":"b:80"}`)
		s.Put("svc/3", `{"Addr":"c:80"}`)
		s.Put("svc/4", `{"Addr":"10.0.0.4:80"}`)
		s.Put("svc/5", `{"Addr":"10.0.0.5:81"}`)
	}, func(t *testing.T, _ *fakeetcd.Store, v *virtual) {
		time.Sleep(time.Second)
		synctest.Wait()
		a := new(endpointv3.ClusterLoadAssignment)
		if err := v.responses[len(v.responses)-1].Resources[0].UnmarshalTo(a); err != nil {
			t.Fatal(err)
		}
		var got []string
		for _, e := range a.Endpoints[0].LbEndpoints {
			line := e.GetEndpoint().Address.GetSocketAddress().Address
			for _, more := range e.GetEndpoint().AdditionalAddresses {
				line += " " + more.Address.GetSocketAddress().Address
			}
			got = append(got, line)
		}
		if want := []string{"10.0.0.0 10.0.0.3 10.0.0.5", "10.0.0.1", "10.0.0.2", "10.0.0.4", "10.0.0.5"}; !slices.Equal(got, want) {
			t.Errorf("addresses %q, want %q", got, want)
		}
	})
}

// Endpoints that drain are called where none of the others can be.
func TestOnlyDrainingResolve(t *testing.T) {
	var d dns
	d.set("bad")
	inVirtualTime(t, xds.Options{LookupHost: d.lookup}, func(s *fakeetcd.Store, _ *fakeetcd.Conn) {
		s.Put("svc/1", `{"Addr":"bad:80"}`)
		s.Put("svc/2", `{"Addr":"10.0.0.2:80","Metadata":{"status":"draining"}}`)
	}, func(t *testing.T, _ *fakeetcd.Store, v *virtual) {
		time.Sleep(time.Second)
		if got := v.addrs(t); !slices.Equal(got, []string{"10.0.0.2"}) {
			t.Errorf("addresses %q", got)
		}
		a := new(endpointv3.ClusterLoadAssignment)
		if err := v.responses[len(v.responses)-1].Resources[0].UnmarshalTo(a); err != nil {
			t.Fatal(err)
		}
		if status := a.Endpoints[0].LbEndpoints[0].HealthStatus; status != corev3.HealthStatus_UNKNOWN {
			t.Errorf("it is sent as %v", status)
		}
	})
}

// Hosts of instances that SelfPreservation retains are still looked up.
func TestRetainedHosts(t *testing.T) {
	var d dns
	directory := rollcall.DirectoryOptions{SelfPreservation: rollcall.SelfPreservation{Share: 0.5, Retain: time.Hour}}
	d.set("a", "10.0.0.1")
	d.set("b", "10.0.0.2")
	inVirtualTimeOf(t, directory, xds.Options{LookupHost: d.lookup}, func(s *fakeetcd.Store, _ *fakeetcd.Conn) {
		s.Put("svc/1", `{"Addr":"a:80"}`)
		s.Put("svc/2", `{"Addr":"b:80"}`)
	}, func(t *testing.T, s *fakeetcd.Store, v *virtual) {
		time.Sleep(time.Second)
		s.Delete("svc/1")
		s.Delete("svc/2")
		time.Sleep(time.Second)
		if got := v.addrs(t); !slices.Equal(got, []string{"10.0.0.1", "10.0.0.2"}) {
			t.Errorf("retained addresses %q", got)
		}
		d.set("a", "10.0.0.3")
		time.Sleep(time.Minute)
		if got := v.addrs(t); !slices.Equal(got, []string{"10.0.0.2", "10.0.0.3"}) {
			t.Errorf("after one moved: %q", got)
		}
	})
}

// A stream of a service that etcd says nothing of is told so after a second, and of what etcd
// says as soon as it does.
func TestFirstAnswer(t *testing.T) {
	inVirtualTime(t, xds.Options{}, func(s *fakeetcd.Store, conn *fakeetcd.Conn) {
		s.Put("svc/1", `{"Addr":"10.0.0.1:80"}`)
		conn.Cut()
		time.AfterFunc(5*time.Second, conn.Mend)
	}, func(t *testing.T, _ *fakeetcd.Store, v *virtual) {
		time.Sleep(990 * time.Millisecond)
		if got := v.addrs(t); got != nil {
			t.Errorf("answered at once: %q", got)
		}
		time.Sleep(20 * time.Millisecond)
		if got := v.addrs(t); len(got) != 1 || got[0][:8] != "refused:" {
			t.Errorf("after a second: %q", got)
		}
		time.Sleep(10 * time.Second)
		if got := v.addrs(t); !slices.Equal(got, []string{"10.0.0.1"}) {
			t.Errorf("once etcd is back: %q", got)
		}
	})
}
