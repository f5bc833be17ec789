// SPDX-FileCopyrightText: The Rollcall Authors
// SPDX-License-Identifier: Apache-2.0

package steering_test

import (
	"fmt"
	"slices"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/rollcall-grpc/rollcall/internal/test/e2e/lab"
)

// zoned starts n servers in each zone.
func (f *fleet) zoned(n int, zones ...string) {
	f.t.Helper()
	for _, zone := range zones {
		for i := range n {
			name := fmt.Sprintf("%s-%d", zone, i)
			f.start(name)
			f.put(name, map[string]any{"zone": zone})
		}
	}
}

// even returns shares: so much of the calls, evenly among servers.
func even(into map[string]float64, share float64, names ...string) {
	for _, name := range names {
		into[name] = share / float64(len(names))
	}
}

// The measured share of a zone follows the curve that the package documents.
func TestZones(t *testing.T) {
	t.Parallel()
	f := newFleet(t)
	f.zoned(4, "a", "b")
	conn := f.dial("etcd:///svc", policy("rollcall_zone", `{"zone":"a"}`))
	all := make(map[string]float64)
	even(all, 1, "a-0", "a-1", "a-2", "a-3")
	f.becomes(conn, 400, 0.01, all)
	got, failed := f.shares(conn, 4000)
	if off := differs(got, all, 0.03); off != "" || failed > 0 {
		t.Errorf("with all healthy: %v, %d failed: %s", got, failed, off)
	}
	for _, name := range []string{"b-0", "b-1", "b-2", "b-3"} {
		if n := f.servers[name].accepts.Load(); n != 0 {
			t.Errorf("%s, in another zone, has %d connections, and nobody needs it", name, n)
		}
	}

	// Two of four are dead, and still in etcd: what is usual is (2*2+4*4)/(2+4), and 2/(0.9*3.33) stay.
	f.servers["a-0"].grpc.Stop()
	f.servers["a-1"].grpc.Stop()
	half := make(map[string]float64)
	even(half, 2./3, "a-2", "a-3")
	even(half, 1./3, "b-0", "b-1", "b-2", "b-3")
	f.becomes(conn, 400, 0.03, half)
	got, failed = f.shares(conn, 4000)
	if off := differs(got, half, 0.03); off != "" || failed > 0 {
		t.Errorf("with half of the zone dead: %v, %d failed: %s", got, failed, off)
	}
	t.Logf("with half of the zone dead: %v", got)

	// That they leave etcd as well changes nothing.
	f.remove("a-0")
	f.remove("a-1")
	time.Sleep(200 * time.Millisecond)
	got, failed = f.shares(conn, 4000)
	if off := differs(got, half, 0.03); off != "" || failed > 0 {
		t.Errorf("with half of the zone gone: %v, %d failed: %s", got, failed, off)
	}

	// Back to what it was, with as many.
	f.start("a-4", "a-5")
	f.put("a-4", map[string]any{"zone": "a"})
	f.put("a-5", map[string]any{"zone": "a"})
	all = make(map[string]float64)
	even(all, 1, "a-2", "a-3", "a-4", "a-5")
	f.becomes(conn, 400, 0.01, all)
}

// When a zone dies at once, no call fails but those that were on its connections.
func TestZoneGone(t *testing.T) {
	t.Parallel()
	f := newFleet(t)
	f.zoned(3, "a", "b")
	conn := f.dial("etcd:///svc", policy("rollcall_zone", `{"zone":"a"}`))
	all := make(map[string]float64)
	even(all, 1, "a-0", "a-1", "a-2")
	f.becomes(conn, 300, 0.01, all)
	const callers = 4
	var calls, failed atomic.Int64
	var stop atomic.Bool
	var wg sync.WaitGroup
	for range callers {
		wg.Go(func() {
			for !stop.Load() {
				if _, err := lab.Call(t, conn); err != nil {
					failed.Add(1)
				}
				calls.Add(1)
			}
		})
	}
	time.Sleep(200 * time.Millisecond)
	broken := 0 // each caller has one call under way at most, and each server breaks once
	for _, name := range []string{"a-0", "a-1", "a-2"} {
		f.servers[name].grpc.Stop()
		broken += callers
	}
	reached := func() (n int64) {
		for _, name := range []string{"b-0", "b-1", "b-2"} {
			n += f.servers[name].calls.Load()
		}
		return n
	}
	for began := time.Now(); reached() < 1000; time.Sleep(10 * time.Millisecond) {
		if time.Since(began) > lab.WaitMost {
			t.Fatal("the other zone is not called")
		}
	}
	stop.Store(true)
	wg.Wait()
	t.Logf("%d calls, %d failed", calls.Load(), failed.Load())
	if n := failed.Load(); n > int64(broken) {
		t.Errorf("%d calls failed, of at most %d on connections that broke", n, broken)
	}
}

// The child policy is any, and can be changed while calls go on; weights count as capacity.
func TestZoneChildPolicy(t *testing.T) {
	t.Parallel()
	f := newFleet(t)
	f.start("a-0", "a-1", "b-0")
	f.put("a-0", map[string]any{"zone": "a", "weight": 3})
	f.put("a-1", map[string]any{"zone": "a"})
	f.put("b-0", map[string]any{"zone": "b", "weight": 4})
	const config = `{"loadBalancingConfig":[{"rollcall_zone":{"zone":"a","childPolicy":[{%q:{}}]}}]}`
	lab.PutValue(t, f.etcd, "_grpc_config/svc", fmt.Sprintf(config, "rollcall_weighted"))
	conn := f.dial("etcd:///svc", "{}")
	f.becomes(conn, 400, 0.01, map[string]float64{"a-0": 0.75, "a-1": 0.25})
	lab.PutValue(t, f.etcd, "_grpc_config/svc", fmt.Sprintf(config, "round_robin"))
	f.becomes(conn, 400, 0.01, map[string]float64{"a-0": 0.5, "a-1": 0.5})
	lab.PutValue(t, f.etcd, "_grpc_config/svc", fmt.Sprintf(config, "pick_first"))
	for began := time.Now(); ; {
		got, failed := f.shares(conn, 100)
		if failed > 0 {
			t.Fatalf("%d calls failed", failed)
		}
		if len(got) == 1 && !slices.Contains([]float64{got["b-0"]}, 1) {
			break
		}
		if time.Since(began) > lab.WaitMost {
			t.Fatalf("pick_first calls %v", got)
		}
	}
}

// A child that connects only when it is asked to pick gets its share too, and one that went
// idle while nobody needed it is connected again.
func TestZoneIdleChildren(t *testing.T) {
	t.Parallel()
	for child, settings := range map[string]string{
		"round_robin":            `{}`,
		"ring_hash_experimental": `{"requestHashHeader":"user"}`, // without the header, at random
		"pick_first":             `{}`,
	} {
		t.Run(child, func(t *testing.T) {
			t.Parallel()
			f := newFleet(t)
			f.start("a", "b")
			weigh := func(a, b int) {
				f.put("a", map[string]any{"zone": "a", "weight": a})
				f.put("b", map[string]any{"zone": "b", "weight": b})
			}
			weigh(1, 3) // what is usual is (1*1+3*3)/(1+3), and 1/(0.9*2.5) stay
			conn := f.dial("etcd:///svc", policy("rollcall_zone", fmt.Sprintf(`{"zone":"a","childPolicy":[{%q:%s}]}`, child, settings)))
			spills := map[string]float64{"a": 0.444, "b": 0.556}
			f.becomes(conn, 2000, 0.03, spills)
			weigh(3, 3)
			f.becomes(conn, 400, 0.01, map[string]float64{"a": 1})
			f.restart("b")
			for weight := range 4 { // updates that b's child hears of, while nobody calls it
				f.put("b", map[string]any{"zone": "b", "weight": 3 - weight%2, "version": fmt.Sprint(weight)})
				time.Sleep(50 * time.Millisecond)
			}
			weigh(1, 3)
			f.becomes(conn, 2000, 0.03, spills)
		})
	}
}
