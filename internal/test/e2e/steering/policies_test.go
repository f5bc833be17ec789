// SPDX-FileCopyrightText: The Rollcall Authors
// SPDX-License-Identifier: Apache-2.0

package steering_test

import (
	"context"
	"fmt"
	"math"
	"os"
	"regexp"
	"strings"
	"testing"
	"time"

	_ "google.golang.org/grpc/balancer/leastrequest"
	_ "google.golang.org/grpc/balancer/randomsubsetting"
	_ "google.golang.org/grpc/balancer/ringhash"
	_ "google.golang.org/grpc/balancer/weightedroundrobin"
	"google.golang.org/grpc/metadata"
	_ "google.golang.org/grpc/xds" // outlier detection

	"github.com/rollcall-grpc/rollcall/internal/test/e2e/lab"
	"github.com/rollcall-grpc/rollcall/resolver"
)

// TestDocumentedConfigs runs every config of docs/balancing.md.
func TestDocumentedConfigs(t *testing.T) {
	t.Parallel()
	text, err := os.ReadFile("../../../../docs/balancing.md")
	if err != nil {
		t.Fatal(err)
	}
	f := newFleet(t)
	f.start("a", "b", "c")
	for name, weight := range map[string]int{"a": 1, "b": 2, "c": 7} {
		f.put(name, map[string]any{"weight": weight, "region": "eu", "zone": "eu-1"})
	}
	blocks := regexp.MustCompile("(?s)```json\n(.*?)```").FindAllStringSubmatch(string(text), -1)
	if len(blocks) < 9 {
		t.Fatalf("docs/balancing.md has %d configs", len(blocks))
	}
	weighted := map[string]float64{"a": 0.1, "b": 0.2, "c": 0.7}
	alike := map[string]float64{"a": 1. / 3, "b": 1. / 3, "c": 1. / 3}
	seen := make(map[string]int)
	for _, block := range blocks {
		config := block[1]
		name := regexp.MustCompile(`"loadBalancingConfig": \[\{"(\w+)"`).FindStringSubmatch(config)[1]
		if err := resolver.CheckServiceConfig(config); err != nil {
			t.Errorf("%s: %v", name, err)
			continue
		}
		seen[name]++
		conn := f.dial("etcd:///svc", config)
		switch {
		case name == "rollcall_weighted", name == "rollcall_zone" && strings.Contains(config, "rollcall_weighted"):
			f.becomes(conn, 100, 0.02, weighted)
		case name == "pick_first":
			f.reaches(conn, name, onlyIt)
		case name == "least_request_experimental", name == "ring_hash_experimental":
			f.reaches(conn, name, func(got map[string]float64) bool { return len(got) == 3 })
		default:
			f.becomes(conn, 120, 0.05, alike)
		}
	}
	if len(seen) < 9 {
		t.Errorf("documented are only %v", seen)
	}
}

// gRPC's own weight attribute is set: the shuffle of pick_first follows it.
func TestShuffleFollowsWeights(t *testing.T) {
	t.Parallel()
	f := newFleet(t)
	f.start("light", "heavy")
	f.put("light", nil)
	f.put("heavy", map[string]any{"weight": 4})
	const channels = 400
	heavy := 0
	for range channels {
		conn := f.dial("etcd:///svc", policy("pick_first", `{"shuffleAddressList":true}`))
		name, err := lab.Call(t, conn)
		if err != nil {
			t.Fatal(err)
		}
		if name == "heavy" {
			heavy++
		}
		conn.Close()
	}
	share := float64(heavy) / channels
	t.Logf("weight 4 of 5 is first for %.3f of %d channels", share, channels)
	if math.Abs(share-0.8) > 0.1 { // five standard deviations
		t.Errorf("weight 4 of 5 is first for %.3f of the channels", share)
	}
}

// ring_hash follows weights and hash keys: a key keeps its server, also where that moves
// to another address.
func TestRingHash(t *testing.T) {
	t.Parallel()
	f := newFleet(t)
	f.start("a", "b", "c")
	for name, weight := range map[string]int{"a": 1, "b": 2, "c": 2} {
		f.put(name, map[string]any{"weight": weight})
	}
	conn := f.dial("etcd:///svc", policy("ring_hash_experimental", `{"minRingSize":4096,"maxRingSize":4096,"requestHashHeader":"user"}`))
	const keys = 2000
	placed := func() map[string]string {
		got := make(map[string]string)
		for i := range keys {
			key := fmt.Sprint("user-", i)
			ctx, cancel := context.WithTimeout(metadata.AppendToOutgoingContext(t.Context(), "user", key), 20*time.Second)
			name, err := lab.CallNamed(ctx, conn)
			cancel()
			if err != nil {
				t.Fatal(err)
			}
			got[key] = name
		}
		return got
	}
	before := placed()
	shares := make(map[string]float64)
	for _, name := range before {
		shares[name] += 1. / keys
	}
	t.Logf("shares of weights 1:2:2 on the ring: %v", shares)
	if off := differs(shares, map[string]float64{"a": 0.2, "b": 0.4, "c": 0.4}, 0.06); off != "" {
		t.Errorf("%v: %s", shares, off)
	}
	f.start("c") // at another address
	f.put("c", map[string]any{"weight": 2})
	for began := time.Now(); f.servers["c"].calls.Load() == 0; {
		placed()
		if time.Since(began) > lab.WaitMost {
			t.Fatal("the moved server is not called")
		}
	}
	for key, name := range placed() {
		if before[key] != name {
			t.Fatalf("%s moved from %s to %s, and all that changed is an address", key, before[key], name)
		}
	}
}

// Outlier detection works from a service config, also above our own policies.
func TestOutlierDetection(t *testing.T) {
	t.Parallel()
	f := newFleet(t)
	f.start("a", "b", "c")
	for name, weight := range map[string]int{"a": 2, "b": 1, "c": 1} {
		f.put(name, map[string]any{"weight": weight})
	}
	conn := f.dial("etcd:///svc", policy("outlier_detection_experimental", `{
		"interval": "0.2s", "baseEjectionTime": "60s", "maxEjectionPercent": 50,
		"failurePercentageEjection": {"threshold": 50, "enforcementPercentage": 100, "minimumHosts": 3, "requestVolume": 10},
		"childPolicy": [{"rollcall_weighted": {}}]}`))
	f.becomes(conn, 100, 0.02, map[string]float64{"a": 0.5, "b": 0.25, "c": 0.25})
	f.servers["a"].failing.Store(true)
	f.becomes(conn, 100, 0.02, map[string]float64{"b": 0.5, "c": 0.5})
}
