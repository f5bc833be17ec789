// SPDX-FileCopyrightText: The Rollcall Authors
// SPDX-License-Identifier: Apache-2.0

package main

import (
	"bufio"
	"context"
	"net"
	"os"
	"os/exec"
	"runtime"
	"strings"
	"sync/atomic"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/connectivity"
	"google.golang.org/grpc/credentials/insecure"
	grpcresolver "google.golang.org/grpc/resolver"
)

// newRoundRobin returns a follower that uses real channels.
func newRoundRobin(subject, address string) *follower {
	f := newFollower(subject, address)
	f.real = true
	return f
}

// dialRoundRobin opens a channel whose connections are never answered.
func dialRoundRobin(b grpcresolver.Builder, service string, show func(seen)) {
	conn := must(grpc.NewClient("etcd:///"+service, grpc.WithResolvers(tap{b, show}), grpc.WithTransportCredentials(insecure.NewCredentials()),
		grpc.WithDefaultServiceConfig(`{"loadBalancingConfig":[{"round_robin":{}}]}`),
		grpc.WithConnectParams(grpc.ConnectParams{MinConnectTimeout: time.Hour}),
		grpc.WithContextDialer(func(ctx context.Context, _ string) (net.Conn, error) {
			<-ctx.Done()
			return nil, ctx.Err()
		})))
	conn.Connect()
}

// tap shows states after the channel has processed them.
type tap struct {
	grpcresolver.Builder
	show func(seen)
}

func (t tap) Build(target grpcresolver.Target, cc grpcresolver.ClientConn, opts grpcresolver.BuildOptions) (grpcresolver.Resolver, error) {
	return t.Builder.Build(target, tapped{cc, t.show}, opts)
}

type tapped struct {
	grpcresolver.ClientConn
	show func(seen)
}

func (t tapped) UpdateState(s grpcresolver.State) error {
	err := t.ClientConn.UpdateState(s)
	t.show(stateSeen(s))
	return err
}

func rollout(address, subject string) sample {
	const n, changes, rate = 10_000, 120, 30
	write(address, subject, "rollout", "fill", n)
	var states atomic.Int64
	full, done := make(chan time.Time, 1), make(chan time.Time, 1)
	newRoundRobin(subject, address).follow("rollout", func(s seen) {
		states.Add(1)
		if s.n == n {
			once(full)
		}
		if s.has(addr(changed + changes - 1)) {
			once(done)
		}
	})
	<-full
	time.Sleep(time.Second)
	before, spent, began := states.Load(), cpu(), time.Now()
	last := write(address, subject, "rollout", "update", n/changes, changes, rate)[0]
	at := <-done
	return sample{"CPU": 100 * float64(cpu()-spent) / float64(time.Since(began)), "lag": ms(at.Sub(last)), "states": float64(states.Load() - before)}
}

// static is a resolver that returns a known address.
type static struct{ addr string }

func (static) Scheme() string                            { return "etcd" }
func (static) ResolveNow(grpcresolver.ResolveNowOptions) {}
func (static) Close()                                    {}

func (s static) Build(_ grpcresolver.Target, cc grpcresolver.ClientConn, _ grpcresolver.BuildOptions) (grpcresolver.Resolver, error) {
	return s, cc.UpdateState(grpcresolver.State{Endpoints: []grpcresolver.Endpoint{{Addresses: []grpcresolver.Address{{Addr: s.addr}}}}})
}

func connections(address, subject string) sample {
	const count = 1000
	server, stop := startServer()
	defer stop()
	c := connect(address)
	must(c.Put(context.Background(), "connections/a", value(subject, server, 0)))
	var b grpcresolver.Builder = static{server}
	if subject != instant {
		b = builder(subject, c)
	}
	used := memory()
	began := time.Now()
	conns := make([]*grpc.ClientConn, count)
	for i := range conns {
		conns[i] = must(grpc.NewClient("etcd:///connections", grpc.WithResolvers(b), grpc.WithTransportCredentials(insecure.NewCredentials())))
		conns[i].Connect()
	}
	for _, conn := range conns {
		for state := conn.GetState(); state != connectivity.Ready; state = conn.GetState() {
			conn.WaitForStateChange(context.Background(), state)
		}
	}
	took := time.Since(began)
	got := sample{"ready": ms(took), "memory": (memory() - used) / 1024 / count}
	runtime.KeepAlive(conns)
	return got
}

// startServer starts a gRPC server in another process, which ends with this one.
func startServer() (address string, stop func()) {
	cmd := exec.Command(must(os.Executable()), "child", "serve")
	in := must(cmd.StdinPipe())
	out := must(cmd.StdoutPipe())
	check(cmd.Start())
	return strings.TrimSpace(must(bufio.NewReader(out).ReadString('\n'))), func() { check(in.Close()) }
}
