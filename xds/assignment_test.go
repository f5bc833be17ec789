// SPDX-FileCopyrightText: The Rollcall Authors
// SPDX-License-Identifier: Apache-2.0

package xds

import (
	"fmt"
	"math"
	"net/netip"
	"slices"
	"strings"
	"testing"

	corev3 "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	endpointv3 "github.com/envoyproxy/go-control-plane/envoy/config/endpoint/v3"
	"google.golang.org/protobuf/proto"

	"github.com/rollcall-grpc/rollcall"
)

// ep returns an endpoint at 10.0.0.0 plus n.
func ep(n int, weight uint32, locality ...string) endpoint {
	addr := netip.AddrFrom4([4]byte{10, byte(n >> 16), byte(n >> 8), byte(n)})
	parts := append(locality, "", "", "")
	d := &description{weight: weight, locality: rollcall.Locality{Region: parts[0], Zone: parts[1], Subzone: parts[2]}}
	return endpoint{description: d, addr: netip.AddrPortFrom(addr, 80)}
}

func draining(ep endpoint) endpoint {
	ep.draining = true
	return ep
}

func in(region, zone, subzone string) audience {
	return audience{locality: rollcall.Locality{Region: region, Zone: zone, Subzone: subzone}}
}

// text renders an assignment, a line a locality.
func text(a *endpointv3.ClusterLoadAssignment) string {
	var b strings.Builder
	for _, l := range a.Endpoints {
		fmt.Fprintf(&b, "%d %s/%s/%s %d:", l.Priority, l.Locality.Region, l.Locality.Zone, l.Locality.SubZone, l.LoadBalancingWeight.GetValue())
		for _, e := range l.LbEndpoints {
			fmt.Fprintf(&b, " %s", e.GetEndpoint().Address.GetSocketAddress().Address)
			if w := e.LoadBalancingWeight; w != nil {
				fmt.Fprintf(&b, "*%d", w.Value)
			}
			if e.HealthStatus != corev3.HealthStatus_UNKNOWN {
				fmt.Fprintf(&b, " %v", e.HealthStatus)
			}
		}
		b.WriteString("\n")
	}
	if f := a.GetPolicy().GetOverprovisioningFactor(); f != nil {
		fmt.Fprintf(&b, "overprovisioning %d\n", f.Value)
	}
	return b.String()
}

// wantAccepted checks what clients reject an assignment for.
func wantAccepted(t *testing.T, a *endpointv3.ClusterLoadAssignment) {
	t.Helper()
	if err := a.ValidateAll(); err != nil {
		t.Error(err)
	}
	localities, addrs := make(map[string]bool), make(map[string]bool)
	once := func(seen map[string]bool, what string) {
		if seen[what] {
			t.Errorf("%s is there twice", what)
		}
		seen[what] = true
	}
	sums := make(map[uint32]uint64)
	for _, l := range a.Endpoints {
		once(localities, fmt.Sprint(l.Priority, l.Locality))
		sums[l.Priority] += uint64(l.LoadBalancingWeight.Value)
		var sum uint64
		for _, e := range l.LbEndpoints {
			once(addrs, e.GetEndpoint().Address.String())
			for _, more := range e.GetEndpoint().AdditionalAddresses {
				once(addrs, more.Address.String())
			}
			sum += uint64(max(e.GetLoadBalancingWeight().GetValue(), 1))
		}
		if sum > math.MaxUint32 {
			t.Errorf("the endpoints of %v weigh %d", l.Locality, sum)
		}
	}
	for priority, sum := range sums {
		if sum > math.MaxUint32 {
			t.Errorf("the localities of priority %d weigh %d", priority, sum)
		}
	}
}

func TestAssignment(t *testing.T) {
	for name, c := range map[string]struct {
		endpoints []endpoint
		to        audience
		want      string
	}{
		"none": {nil, audience{}, ""},
		"one locality": {[]endpoint{ep(1, 1), ep(2, 1)}, audience{},
			"0 // 2: 10.0.0.1 10.0.0.2\n"},
		"weights": {[]endpoint{ep(1, 1), ep(2, 10), ep(3, 10), ep(4, 1)}, audience{},
			"0 // 2: 10.0.0.1 10.0.0.4\n0 //weight=10 20: 10.0.0.2*10 10.0.0.3*10\n"},
		"weights in a subzone": {[]endpoint{ep(1, 3, "eu", "a", "rack")}, audience{},
			"0 eu/a/rack,weight=3 3: 10.0.0.1*3\n"},
		"zones, for nobody in particular": {[]endpoint{ep(1, 1, "", "a"), ep(2, 1, "", "b")}, audience{},
			"0 /a/ 1: 10.0.0.1\n0 /b/ 1: 10.0.0.2\n"},
		"zones, near and far": {[]endpoint{ep(1, 1, "eu", "a"), ep(2, 1, "eu", "b"), ep(3, 1, "us", "a"), ep(4, 1, "eu", "b", "r")}, in("eu", "b", "r"),
			"0 eu/b/r 1: 10.0.0.4\n1 eu/b/ 1: 10.0.0.2\n2 eu/a/ 1: 10.0.0.1\n3 us/a/ 1: 10.0.0.3\noverprovisioning 111\n"},
		"no gap where none is near": {[]endpoint{ep(1, 1, "eu", "a"), ep(2, 1, "us", "b")}, in("eu", "b", ""),
			"0 eu/a/ 1: 10.0.0.1\n1 us/b/ 1: 10.0.0.2\noverprovisioning 111\n"},
		"draining": {[]endpoint{ep(1, 1), draining(ep(2, 1)), ep(3, 1)}, audience{},
			"0 // 2: 10.0.0.1 10.0.0.2 DRAINING 10.0.0.3\n"},
		"a locality that drains": {[]endpoint{draining(ep(1, 2, "", "a")), ep(2, 1, "", "b")}, audience{},
			"0 /a/weight=2 2: 10.0.0.1*2 DRAINING\n0 /b/ 1: 10.0.0.2\n"},
		"the nearest zone drains": {[]endpoint{draining(ep(1, 1, "", "a")), ep(2, 1, "", "b"), ep(3, 1, "x", "c")}, in("", "a", ""),
			"0 /a/ 1: 10.0.0.1 DRAINING\n0 /b/ 1: 10.0.0.2\n0 x/c/ 1: 10.0.0.3\n"},
		"the farthest zone drains": {[]endpoint{ep(1, 1, "", "a"), draining(ep(2, 1, "", "b"))}, in("", "a", ""),
			"0 /a/ 1: 10.0.0.1\n0 /b/ 1: 10.0.0.2 DRAINING\n"},
		"a subzone named like a weight": {[]endpoint{ep(1, 1, "", "", "weight=2"), ep(2, 2), ep(3, 3)}, in("", "", "weight=2"),
			"0 //weight=2 3: 10.0.0.1 10.0.0.2*2\n1 //weight=3 3: 10.0.0.3*3\noverprovisioning 111\n"},
		"zones that are not text": {[]endpoint{ep(1, 1, "", "\xfe"), ep(2, 1, "", "\xff")}, audience{},
			"0 /\uFFFD/ 2: 10.0.0.1 10.0.0.2\n"},
	} {
		a := assignment("svc", c.endpoints, c.to, mapServiceConfig(nil), 2000)
		wantAccepted(t, a)
		if got := text(a); got != c.want {
			t.Errorf("%s:\n%swant\n%s", name, got, c.want)
		}
	}
}

// Clients add up weights in 32 bits, those of localities and those of endpoints.
func TestLargeWeights(t *testing.T) {
	var endpoints []endpoint
	for i := range 10 {
		endpoints = append(endpoints, ep(i, math.MaxUint32, "", fmt.Sprint(i%2)))
	}
	a := assignment("svc", append(endpoints, ep(99, 1)), audience{}, mapServiceConfig(nil), 2000)
	wantAccepted(t, a)
	var sum uint64
	for _, l := range a.Endpoints {
		sum += uint64(l.LoadBalancingWeight.Value)
	}
	if sum < math.MaxUint32/2 {
		t.Errorf("the localities weigh %d", sum)
	}
	wantAccepted(t, assignment("svc", []endpoint{ep(1, 3e9), draining(ep(2, 3e9))}, audience{}, mapServiceConfig(nil), 2000))

	const light = 1000 // of the least weight, which is not divided
	oneClass := configOf(`{"loadBalancingConfig":[{"ring_hash_experimental":{}}]}`)
	endpoints = []endpoint{ep(1, math.MaxUint32), ep(2, math.MaxUint32), ep(3, math.MaxUint32-2*light-10)}
	for i := range light {
		endpoints = append(endpoints, ep(10+i, 1))
	}
	wantAccepted(t, assignment("svc", endpoints, audience{}, oneClass, 2000))
}

// An endpoint gets its share within 2 %, whatever the weights: those of a class share theirs.
func TestWeightClasses(t *testing.T) {
	var endpoints []endpoint
	total := 0.0
	for w := uint32(1); w < 5_000; w += 1 + w/200 {
		endpoints = append(endpoints, ep(int(w), w))
		total += float64(w)
	}
	a := assignment("svc", endpoints, audience{}, mapServiceConfig(nil), 1<<20)
	weights := make(map[string]uint32)
	for _, ep := range endpoints {
		weights[ep.addr.Addr().String()] = ep.weight
	}
	for _, l := range a.Endpoints {
		share := float64(l.LoadBalancingWeight.Value) / total / float64(len(l.LbEndpoints))
		for _, e := range l.LbEndpoints {
			asked := float64(weights[e.GetEndpoint().Address.GetSocketAddress().Address]) / total
			if off := math.Abs(share/asked - 1); off > 0.02 {
				t.Errorf("in %q a weight of %v has %.4f of what it asks for", l.Locality.SubZone, asked*total, 1+off)
			}
		}
	}
	if n := len(a.Endpoints); n > 350 {
		t.Errorf("%d classes for %d weights", n, len(endpoints))
	}
}

// ring_hash weighs endpoints itself.
func TestOneClass(t *testing.T) {
	config := mapServiceConfig(&rollcall.ServiceConfig{JSON: []byte(`{"loadBalancingConfig":[{"ring_hash_experimental":{}}]}`)})
	got := text(assignment("svc", []endpoint{ep(1, 1), ep(2, 5)}, audience{}, config, 2000))
	if want := "0 // 6: 10.0.0.1 10.0.0.2*5\n"; got != want {
		t.Errorf("%swant %s", got, want)
	}
}

// The subsets of a service call all endpoints about as often, whatever their weights and zones;
// one that comes or goes changes few.
func TestSubsets(t *testing.T) {
	var endpoints []endpoint
	asked := make(map[string]float64)
	total := 0.0
	for i := range 3000 {
		e := ep(i, 1, "", fmt.Sprint("z", i%3))
		switch {
		case i == 0:
			e.weight = 1000 // a quarter of all
		case i%10 == 0:
			e.weight = 2
		}
		endpoints = append(endpoints, e)
		asked[e.addr.Addr().String()] = float64(e.weight)
		total += float64(e.weight)
	}
	config := mapServiceConfig(nil)
	shares := make(map[string]float64)
	var before, after [subsets]map[string]bool
	collect := func(endpoints []endpoint, into *[subsets]map[string]bool, add bool) {
		for s := range subsets {
			into[s] = make(map[string]bool)
			a := assignment("svc", endpoints, audience{subset: uint16(s)}, config, 1000)
			for _, l := range a.Endpoints {
				for _, e := range l.LbEndpoints {
					addr := e.GetEndpoint().Address.GetSocketAddress().Address
					if into[s][addr] = true; add {
						shares[addr] += float64(l.LoadBalancingWeight.Value) / total / float64(len(l.LbEndpoints)) / subsets
					}
				}
			}
			if n := len(into[s]); n > 1000 || n <= 1000-len(a.Endpoints) {
				t.Fatalf("subset %d has %d endpoints", s, n)
			}
		}
	}
	collect(endpoints, &before, true)
	var worst float64
	for addr, w := range asked {
		off := shares[addr]/(w/total) - 1
		worst = max(worst, math.Abs(off))
	}
	if off := shares["10.0.0.0"]/(asked["10.0.0.0"]/total) - 1; math.Abs(off) > 0.001 {
		t.Errorf("the heaviest endpoint has %.3f of its share", 1+off)
	}
	t.Logf("the endpoint that is farthest from its share is off by %.0f %%, with %d clients", 100*worst, subsets)
	if worst > 0.45 { // 256 draws at a third: 4.5 standard deviations are 40 %
		t.Errorf("an endpoint is off its share by %.0f %%", 100*worst)
	}
	collect(slices.Delete(slices.Clone(endpoints), 2321, 2322), &after, false)
	moved := 0
	for s := range subsets {
		changed := 0
		for addr := range before[s] {
			if !after[s][addr] {
				changed++
			}
		}
		if moved += changed; changed > 4 {
			t.Errorf("subset %d has lost %d endpoints", s, changed)
		}
	}
	t.Logf("an endpoint that leaves changes %d connections of %d clients with 1000 each", moved, subsets)
	if moved > subsets {
		t.Errorf("%d connections moved", moved)
	}
}

// A subset keeps what drains for those that had it.
func TestSubsetDrains(t *testing.T) {
	var endpoints []endpoint
	for i := range 100 {
		endpoints = append(endpoints, ep(i, 1))
	}
	before := subsetOf(endpoints, 10, 7)
	drained := slices.Clone(endpoints)
	for i := range drained {
		drained[i].draining = drained[i].addr == before[0].addr
	}
	after := subsetOf(drained, 10, 7)
	if len(after) != 11 || !slices.ContainsFunc(after, func(e endpoint) bool { return e.draining }) {
		t.Errorf("%d endpoints after one of 10 began to drain, want 11", len(after))
	}
}

// Each locality is called, even where there are more of them than a client is to be sent.
func TestSubsetOfLocalities(t *testing.T) {
	var endpoints []endpoint
	for i := range 60 {
		endpoints = append(endpoints, ep(i, 1, "", fmt.Sprint(i%20)))
	}
	for limit, want := range map[int]int{10: 20, 20: 20, 39: 20, 40: 40, 59: 40, 60: 60} {
		n := 0
		a := assignment("svc", endpoints, audience{}, mapServiceConfig(nil), limit)
		for _, l := range a.Endpoints {
			n += len(l.LbEndpoints)
		}
		if n != want || len(a.Endpoints) != 20 {
			t.Errorf("of 60 endpoints in 20 zones a subset of %d has %d in %d, want %d", limit, n, len(a.Endpoints), want)
		}
	}
}

func TestRefusal(t *testing.T) {
	a := refusal("svc", "bad \xff text")
	if err := a.ValidateAll(); err != nil {
		t.Error(err)
	}
	if _, err := proto.Marshal(a); err != nil {
		t.Error(err)
	}
}
