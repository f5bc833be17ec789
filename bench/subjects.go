// SPDX-FileCopyrightText: The Rollcall Authors
// SPDX-License-Identifier: Apache-2.0

package main

import (
	"bytes"
	"context"
	"fmt"
	"iter"
	"net/url"
	"slices"
	"time"

	"github.com/go-kit/kit/sd"
	"github.com/go-kit/kit/sd/etcdv3"
	"github.com/go-kit/log"
	"github.com/zeromicro/go-zero/core/discov"
	"github.com/zeromicro/go-zero/core/logx"
	clientv3 "go.etcd.io/etcd/client/v3"
	etcdresolver "go.etcd.io/etcd/client/v3/naming/resolver"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	grpcresolver "google.golang.org/grpc/resolver"
	"google.golang.org/grpc/serviceconfig"
	"google.golang.org/grpc/status"

	"github.com/rollcall-grpc/rollcall/resolver"
)

// The subjects: raw ones are the limit, the others follow a service.
const (
	rawGet    = "raw Get"
	rawStream = "raw GetStream"
	raw       = "raw watch"
	ours      = "Rollcall"
	paged     = "Rollcall, in pages"
	unwatched = "Rollcall, Directory closed"
	theirs    = "etcd's package"
	goZero    = "go-zero"
	goKit     = "go-kit"
	instant   = "instant resolver"
)

// extra are subjects without a bar, and their number of rounds.
var extra = map[string]int{goZero: 1, goKit: 1, "pick_first": 1, "weighted_round_robin": 1, "least_request": 1, "ring_hash": 1,
	"random_subsetting": 1, spilling: 1}

// seen is the state of a service as a subject shows it. A raw watch shows the number of events
// so far, and the addresses of the latest.
type seen struct {
	n     int
	addrs iter.Seq[string]
}

func (s seen) has(addr string) bool {
	for a := range s.addrs {
		if a == addr {
			return true
		}
	}
	return false
}

// value returns the value of a subject's i-th key. Weights differ, and zone eu-1 has less than
// its share.
func value(subject, addr string, i int) string {
	if subject == goZero || subject == goKit {
		return addr
	}
	zone := 1
	if i%10 > 3 {
		zone = 2
	}
	return fmt.Sprintf(`{"Op":0,"Addr":%q,"Metadata":{"weight":%d,"zone":"eu-%d"}}`, addr, 1+i%10, zone)
}

func addr(i int) string { return fmt.Sprintf("10.%d.%d.%d:50051", i>>16&255, i>>8&255, i&255) }

// builder returns a subject's resolver builder.
func builder(subject string, c *clientv3.Client) grpcresolver.Builder {
	if subject == theirs {
		return must(etcdresolver.NewBuilder(c))
	}
	return must(resolver.NewBuilder(c))
}

func target(service string) grpcresolver.Target {
	return grpcresolver.Target{URL: url.URL{Scheme: "etcd", Path: "/" + service}}
}

// follower follows services in one process as a program that uses the subject would, with one
// client and everything else shared that can be.
type follower struct {
	subject, address string
	client           *clientv3.Client
	builder          grpcresolver.Builder
	kit              etcdv3.Client
	real             bool // follow with real channels, under round_robin
	resolvers        []grpcresolver.Resolver
}

func newFollower(subject, address string, opts ...grpc.DialOption) *follower {
	f := &follower{subject: subject, address: address}
	switch subject {
	case goZero:
		logx.Disable()
	case goKit:
		f.kit = must(etcdv3.NewClient(context.Background(), []string{address}, etcdv3.ClientOptions{}))
	case raw, rawGet, rawStream:
		f.client = connect(address)
	case paged:
		f.client = connect(address, append(opts, grpc.WithStreamInterceptor(streamless))...)
		f.builder = builder(subject, f.client)
	default:
		f.client = connect(address, opts...)
		f.builder = builder(subject, f.client)
	}
	return f
}

// streamless simulates a server without list streams, such as etcd 3.6.
func streamless(ctx context.Context, desc *grpc.StreamDesc, conn *grpc.ClientConn, method string, streamer grpc.Streamer, opts ...grpc.CallOption) (grpc.ClientStream, error) {
	if method == "/etcdserverpb.KV/RangeStream" {
		return nil, status.Error(codes.Unimplemented, "unknown method")
	}
	return streamer(ctx, desc, conn, method, opts...)
}

// follow calls show with each state of a service, until the process ends.
func (f *follower) follow(service string, show func(seen)) {
	switch {
	case f.subject == raw:
		events := f.client.Watch(context.Background(), service+"/", clientv3.WithPrefix())
		go func() {
			n := 0
			for resp := range events {
				n += len(resp.Events)
				show(seen{n, addrsOf(resp.Events)})
			}
		}()
	case f.subject == goZero:
		sub := must(discov.NewSubscriber([]string{f.address}, service))
		tell := func() {
			addrs := sub.Values()
			show(seen{len(addrs), slices.Values(addrs)})
		}
		sub.AddListener(tell)
		tell()
	case f.subject == goKit:
		events := make(chan sd.Event, 1)
		instancer := must(etcdv3.NewInstancer(f.kit, service+"/", log.NewNopLogger()))
		go func() {
			for ev := range events {
				show(seen{len(ev.Instances), slices.Values(ev.Instances)})
			}
		}()
		instancer.Register(events)
	case f.real:
		dialRoundRobin(f.builder, service, show)
	default:
		f.resolvers = append(f.resolvers, must(f.builder.Build(target(service), &channel{show: show}, grpcresolver.BuildOptions{})))
	}
}

// close ends everything that the follower has started with its own client.
func (f *follower) close() {
	for _, r := range f.resolvers {
		r.Close()
	}
	check(f.client.Close())
}

// channel stands for a gRPC channel.
type channel struct {
	grpcresolver.ClientConn
	show func(seen)
}

func (c *channel) UpdateState(s grpcresolver.State) error {
	c.show(stateSeen(s))
	return nil
}

func (c *channel) ReportError(error) {}

func (c *channel) ParseServiceConfig(string) *serviceconfig.ParseResult {
	return &serviceconfig.ParseResult{}
}

// stateSeen reads a state: etcd's package sets Addresses, Rollcall Endpoints.
func stateSeen(s grpcresolver.State) seen {
	return seen{max(len(s.Endpoints), len(s.Addresses)), func(yield func(string) bool) {
		for i := range s.Endpoints {
			if at := s.Endpoints[i].Addresses; len(at) > 0 && !yield(at[0].Addr) {
				return
			}
		}
		for i := range s.Addresses {
			if !yield(s.Addresses[i].Addr) {
				return
			}
		}
	}}
}

// addrsOf returns the addresses that events have put.
func addrsOf(events []*clientv3.Event) iter.Seq[string] {
	return func(yield func(string) bool) {
		for _, ev := range events {
			a := ev.Kv.Value
			if _, rest, ok := bytes.Cut(a, []byte(`"Addr":"`)); ok {
				a, _, _ = bytes.Cut(rest, []byte(`"`))
			}
			if !yield(string(a)) {
				return
			}
		}
	}
}

func connect(address string, opts ...grpc.DialOption) *clientv3.Client {
	c := must(clientv3.New(clientv3.Config{Endpoints: []string{address}, DialOptions: opts, Logger: nopLogger}))
	ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
	defer cancel()
	must(c.Get(ctx, "warm"))
	return c
}
