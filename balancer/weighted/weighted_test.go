// SPDX-FileCopyrightText: The Rollcall Authors
// SPDX-License-Identifier: Apache-2.0

package weighted

import (
	"errors"
	"maps"
	"slices"
	"sync"
	"sync/atomic"
	"testing"

	"go.uber.org/goleak"
	"google.golang.org/grpc/balancer"
	"google.golang.org/grpc/connectivity"
	"google.golang.org/grpc/experimental/balancer/weight"
	estats "google.golang.org/grpc/experimental/stats"
	grpcresolver "google.golang.org/grpc/resolver"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// channel is a gRPC channel whose connections do what a test says.
type channel struct {
	balancer.ClientConn
	policy balancer.Balancer

	mu    sync.Mutex
	state balancer.State
	conns map[string]*subConn // by address, the last of each
	made  int

	recorder recorder
}

func newChannel(t *testing.T) *channel {
	t.Helper()
	c := &channel{conns: make(map[string]*subConn)}
	c.policy = balancer.Get(Name).Build(c, balancer.BuildOptions{})
	t.Cleanup(c.policy.Close)
	return c
}

func (c *channel) UpdateState(s balancer.State) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.state = s
}

func (c *channel) NewSubConn(addrs []grpcresolver.Address, opts balancer.NewSubConnOptions) (balancer.SubConn, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.made++
	s := &subConn{addr: addrs[0].Addr, listener: opts.StateListener}
	c.conns[s.addr] = s
	return s, nil
}

func (c *channel) MetricsRecorder() estats.MetricsRecorder { return &c.recorder }

// recorder has the sums of what is recorded.
type recorder struct {
	estats.UnimplementedMetricsRecorder
	endpoints, ready atomic.Int64
}

func (r *recorder) RecordInt64UpDownCount(h *estats.Int64UpDownCountHandle, n int64, _ ...string) {
	switch h {
	case endpointsMetric:
		r.endpoints.Add(n)
	case readyMetric:
		r.ready.Add(n)
	}
}

// subConn is a connection of the channel to one address.
type subConn struct {
	balancer.SubConn
	addr     string
	listener func(balancer.SubConnState)

	mu     sync.Mutex
	health func(balancer.SubConnState)
	closed bool
}

func (s *subConn) Connect() {}

func (s *subConn) Shutdown() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.closed = true
}

func (s *subConn) RegisterHealthListener(health func(balancer.SubConnState)) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.health = health
}

// becomes has a connection change its state.
func (c *channel) becomes(addr string, states ...connectivity.State) {
	for _, s := range states {
		c.conn(addr).listener(balancer.SubConnState{ConnectivityState: s, ConnectionError: errors.New("broken")})
	}
}

// checked has a health check of a connection report a state.
func (c *channel) checked(addr string, s connectivity.State) {
	conn := c.conn(addr)
	conn.mu.Lock()
	health := conn.health
	conn.mu.Unlock()
	health(balancer.SubConnState{ConnectivityState: s, ConnectionError: errors.New("unhealthy")})
}

func (c *channel) conn(addr string) *subConn {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.conns[addr]
}

// connect connects to some addresses, where health checks succeed.
func (c *channel) connect(addrs ...string) {
	for _, addr := range addrs {
		c.becomes(addr, connectivity.Connecting, connectivity.Ready)
		c.checked(addr, connectivity.Ready)
	}
}

// update gives the policy endpoints by address, with their weights.
func (c *channel) update(t *testing.T, weights map[string]uint32) {
	t.Helper()
	var endpoints []grpcresolver.Endpoint
	for _, addr := range slices.Sorted(maps.Keys(weights)) {
		ep := grpcresolver.Endpoint{Addresses: []grpcresolver.Address{{Addr: addr}}}
		endpoints = append(endpoints, weight.Set(ep, weight.EndpointInfo{Weight: weights[addr]}))
	}
	if err := c.policy.UpdateClientConnState(balancer.ClientConnState{ResolverState: grpcresolver.State{Endpoints: endpoints}}); err != nil {
		t.Fatal(err)
	}
}

// wantPicks fails unless as many picks as wanted together go to each address.
func (c *channel) wantPicks(t *testing.T, want map[string]int) {
	t.Helper()
	picker := c.picker()
	got, n := make(map[string]int), 0
	for _, picks := range want {
		n += picks
	}
	for range n {
		result, err := picker.Pick(balancer.PickInfo{})
		if err != nil {
			t.Fatal(err)
		}
		got[result.SubConn.(*subConn).addr]++
	}
	if !maps.Equal(got, want) {
		t.Errorf("picks %v, want %v", got, want)
	}
}

func (c *channel) picker() balancer.Picker {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.state.Picker
}

func (c *channel) pick() error {
	_, err := c.picker().Pick(balancer.PickInfo{})
	return err
}

func TestWeights(t *testing.T) {
	c := newChannel(t)
	c.update(t, map[string]uint32{"a": 1, "b": 2, "c": 7})
	c.connect("a", "b", "c")
	c.wantPicks(t, map[string]int{"a": 1, "b": 2, "c": 7})
	c.wantPicks(t, map[string]int{"a": 2, "b": 4, "c": 14})
}

// An endpoint without a weight, or with 0, weighs 1.
func TestZeroWeights(t *testing.T) {
	c := newChannel(t)
	c.update(t, map[string]uint32{"a": 0, "b": 1, "c": 2})
	c.connect("a", "b", "c")
	c.wantPicks(t, map[string]int{"a": 1, "b": 1, "c": 2})
	c.update(t, map[string]uint32{"a": 0, "b": 0, "c": 0})
	c.wantPicks(t, map[string]int{"a": 5, "b": 5, "c": 5})
}

// Calls go to connected endpoints only, wait while none is, and fail once all have failed.
func TestNotReady(t *testing.T) {
	c := newChannel(t)
	c.update(t, map[string]uint32{"a": 1, "b": 2, "c": 7})
	if err := c.pick(); !errors.Is(err, balancer.ErrNoSubConnAvailable) {
		t.Errorf("before any is connected: %v, want ErrNoSubConnAvailable", err)
	}
	c.connect("a", "b")
	c.becomes("c", connectivity.Connecting)
	c.wantPicks(t, map[string]int{"a": 1, "b": 2})
	c.becomes("c", connectivity.TransientFailure)
	c.wantPicks(t, map[string]int{"a": 2, "b": 4})
	c.becomes("b", connectivity.Idle)
	c.wantPicks(t, map[string]int{"a": 5})
	for _, addr := range []string{"a", "b"} {
		c.becomes(addr, connectivity.Idle, connectivity.Connecting, connectivity.TransientFailure)
	}
	if err := c.pick(); err == nil || errors.Is(err, balancer.ErrNoSubConnAvailable) {
		t.Errorf("after all have failed: %v, want the error of a connection", err)
	}
}

// Changed weights count from the next pick on, and reconnect nothing.
func TestChangedWeights(t *testing.T) {
	c := newChannel(t)
	c.update(t, map[string]uint32{"a": 1, "b": 1})
	c.connect("a", "b")
	c.wantPicks(t, map[string]int{"a": 3, "b": 3})
	c.update(t, map[string]uint32{"a": 1, "b": 4})
	c.wantPicks(t, map[string]int{"a": 2, "b": 8})
	if c.made != 2 || c.conn("a").closed || c.conn("b").closed {
		t.Errorf("%d connections were made, want 2 that stay open", c.made)
	}
}

func TestEndpointsComeAndGo(t *testing.T) {
	c := newChannel(t)
	c.update(t, map[string]uint32{"a": 1, "b": 3})
	c.connect("a", "b")
	c.update(t, map[string]uint32{"a": 1, "c": 2})
	if !c.conn("b").closed || c.conn("a").closed {
		t.Error("of a and b, only b has gone")
	}
	c.wantPicks(t, map[string]int{"a": 4})
	c.connect("c")
	c.wantPicks(t, map[string]int{"a": 2, "c": 4})
}

// Calls go to endpoints whose health checks succeed.
func TestHealth(t *testing.T) {
	c := newChannel(t)
	c.update(t, map[string]uint32{"a": 1, "b": 3})
	c.connect("a", "b")
	c.checked("b", connectivity.TransientFailure)
	c.wantPicks(t, map[string]int{"a": 4})
	c.checked("b", connectivity.Ready)
	c.wantPicks(t, map[string]int{"a": 1, "b": 3})
}

// Metrics are of the latest state, whatever pickers are used late, and end with the policy.
func TestMetrics(t *testing.T) {
	c := newChannel(t)
	want := func(what string, endpoints, ready int64) {
		t.Helper()
		if e, r := c.recorder.endpoints.Load(), c.recorder.ready.Load(); e != endpoints || r != ready {
			t.Errorf("%s: %d endpoints, %d ready; want %d, %d", what, e, r, endpoints, ready)
		}
	}
	pick := func(p balancer.Picker) {
		t.Helper()
		if _, err := p.Pick(balancer.PickInfo{}); err != nil {
			t.Error(err)
		}
	}
	c.update(t, map[string]uint32{"a": 1, "b": 1})
	c.connect("a", "b")
	replaced := c.picker()
	c.checked("b", connectivity.TransientFailure)
	pick(c.picker())
	want("one is unhealthy", 2, 1)
	pick(replaced)
	want("a pick of a replaced picker", 2, 1)
	c.checked("b", connectivity.Ready)
	unused := c.picker()
	c.checked("a", connectivity.TransientFailure)
	c.checked("b", connectivity.TransientFailure)
	want("none is healthy", 2, 0)
	pick(unused)
	want("a pick of a replaced picker", 2, 0)
	c.checked("b", connectivity.Ready)
	pick(c.picker())
	want("one is healthy again", 2, 1)
	c.checked("a", connectivity.Ready)
	c.policy.Close()
	want("the end", 0, 0)
	pick(c.picker())
	want("a pick after the end", 0, 0)
}

// Pickers stay usable while others replace them.
func TestPicksWhileUpdated(t *testing.T) {
	c := newChannel(t)
	c.update(t, map[string]uint32{"a": 1, "b": 1})
	c.connect("a", "b")
	var wg sync.WaitGroup
	for range 4 {
		wg.Go(func() {
			for range 500 {
				if err := c.pick(); err != nil {
					t.Error(err)
					return
				}
			}
		})
	}
	for w := range uint32(50) {
		c.update(t, map[string]uint32{"a": 1 + w%3, "b": 1})
	}
	wg.Wait()
}
