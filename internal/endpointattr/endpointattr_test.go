// SPDX-FileCopyrightText: The Rollcall Authors
// SPDX-License-Identifier: Apache-2.0

package endpointattr

import (
	"strings"
	"testing"

	"google.golang.org/grpc/experimental/balancer/weight"
	grpcresolver "google.golang.org/grpc/resolver"

	"github.com/rollcall-grpc/rollcall"
)

func endpoint(key, addr, metadata string, revision int64) grpcresolver.Endpoint {
	return Set(grpcresolver.Endpoint{}, &rollcall.Instance{Key: key, Addr: addr, Metadata: []byte(metadata), ModRevision: revision})
}

func TestGet(t *testing.T) {
	ep := endpoint("svc/a", "a:1", `{"weight":3,"zone":"z"}`, 1)
	if inst := Instance(ep); inst == nil || inst.Key != "svc/a" {
		t.Errorf("instance %v", inst)
	}
	if a := Attributes(ep); a.Weight != 3 || a.Locality.Zone != "z" {
		t.Errorf("attributes %+v", a)
	}
	if got, want := ep.Attributes.String(), `"instance": "svc/a"`; !strings.Contains(got, want) {
		t.Errorf("attributes are written as %s, want %s in it", got, want)
	}
}

// Endpoints of other resolvers have no instance, and may have gRPC's own weight.
func TestGetForeign(t *testing.T) {
	if inst := Instance(grpcresolver.Endpoint{}); inst != nil {
		t.Errorf("instance %v", inst)
	}
	if a := Attributes(grpcresolver.Endpoint{}); a.Weight != 1 {
		t.Errorf("weight %d, want 1", a.Weight)
	}
	ep := weight.Set(grpcresolver.Endpoint{}, weight.EndpointInfo{Weight: 7})
	if a := Attributes(ep); a.Weight != 7 {
		t.Errorf("weight %d, want 7", a.Weight)
	}
}

// gRPC compares attributes to decide whether to tell a balancer of a state.
func TestEqual(t *testing.T) {
	ep := endpoint("svc/a", "a:1", `{}`, 1)
	for _, row := range []struct {
		name string
		ep   grpcresolver.Endpoint
		want bool
	}{
		{"written again", endpoint("svc/a", "a:1", `{}`, 2), true},
		{"another key", endpoint("svc/b", "a:1", `{}`, 1), false},
		{"another address", endpoint("svc/a", "b:1", `{}`, 1), false},
		{"other metadata", endpoint("svc/a", "a:1", `{"zone":"z"}`, 1), false},
		{"none", grpcresolver.Endpoint{}, false},
	} {
		if got := ep.Attributes.Equal(row.ep.Attributes); got != row.want {
			t.Errorf("%s: equal is %v, want %v", row.name, got, row.want)
		}
	}
}
