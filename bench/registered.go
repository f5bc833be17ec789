// SPDX-FileCopyrightText: The Rollcall Authors
// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"time"

	"github.com/zeromicro/go-zero/core/discov"
	"github.com/zeromicro/go-zero/core/logx"
	clientv3 "go.etcd.io/etcd/client/v3"
	"go.etcd.io/etcd/client/v3/naming/endpoints"

	"github.com/rollcall-grpc/rollcall"
)

// registered registers endpoints in one process and then counts the messages to etcd.
func registered(address, subject string) sample {
	const service, ttl = "registered", 10 * time.Second
	write(address, subject, service, "fill", 0)
	n := 10_000
	if subject == goZero {
		n = 1000
	}
	ctx := context.Background()
	watches, began := watchers(address), time.Now()
	switch subject {
	case ours:
		r := must(rollcall.NewRegistrar(must(rollcall.SharedDirectory(connect(address))), rollcall.RegistrarOptions{TTL: ttl}))
		all := make([]*rollcall.Registration, n)
		for i := range all {
			all[i] = must(r.Register(service, rollcall.Endpoint{Addr: addr(i)}))
		}
		for _, g := range all {
			for state, changed := g.State(); state.Phase != rollcall.Registered; state, changed = g.State() {
				<-changed
			}
		}
	case theirs:
		c := connect(address)
		m := must(endpoints.NewManager(c, service))
		lease := must(c.Grant(ctx, int64(ttl.Seconds()))).ID
		alive := must(c.KeepAlive(ctx, lease))
		go func() {
			for range alive {
			}
		}()
		w := writer{client: c}
		w.parallel(n, func(i int) {
			check(m.AddEndpoint(ctx, service+"/"+addr(i), endpoints.Endpoint{Addr: addr(i)}, clientv3.WithLease(lease)))
		})
	case goZero:
		logx.Disable()
		for i := range n {
			check(discov.NewPublisher([]string{address}, service, addr(i)).KeepAlive())
		}
	}
	got := sample{"endpoints": float64(n), "register": ms(time.Since(began))}
	time.Sleep(2 * time.Second)
	const seconds = 7
	before := must(metrics(address, "grpc_server_msg_received_total", "grpc_method"))
	time.Sleep(seconds * time.Second)
	after := must(metrics(address, "grpc_server_msg_received_total", "grpc_method"))
	for method, count := range after {
		got["messages"] += (count - before[method]) / seconds
	}
	got["keepalives"] = (after["LeaseKeepAlive"] - before["LeaseKeepAlive"]) / seconds
	got["watches"] = watchers(address) - watches
	return got
}
