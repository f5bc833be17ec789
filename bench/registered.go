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

const registeredTTL = 10 * time.Second

// register registers endpoints in one process and returns when all are in etcd.
func register(address, subject, service string, n int) {
	ctx := context.Background()
	switch subject {
	case ours, unwatched:
		directory := must(rollcall.SharedDirectory(connect(address)))
		r := must(rollcall.NewRegistrar(directory, rollcall.RegistrarOptions{TTL: registeredTTL}))
		all := make([]*rollcall.Registration, n)
		for i := range all {
			all[i] = must(r.Register(service, rollcall.Endpoint{Addr: addr(i)}))
		}
		for _, g := range all {
			for state, changed := g.State(); state.Phase != rollcall.Registered; state, changed = g.State() {
				<-changed
			}
		}
		if subject == unwatched {
			directory.Close()
		}
	case theirs:
		c := connect(address)
		m := must(endpoints.NewManager(c, service))
		lease := must(c.Grant(ctx, int64(registeredTTL.Seconds()))).ID
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
}

// registrable is how many endpoints a subject registers: go-zero takes a lease for each.
func registrable(subject string) int {
	if subject == goZero {
		return 1000
	}
	return 10_000
}

func registering(address, subject string) sample {
	write(address, subject, "registering", "fill", 0)
	n := registrable(subject)
	began, spent := time.Now(), cpu()
	register(address, subject, "registering", n)
	return sample{"endpoints": float64(n), "register": ms(time.Since(began)), "CPU": ms(cpu() - spent)}
}

// registered registers endpoints and then counts the messages to etcd.
func registered(address, subject string) sample {
	const seconds = 7
	write(address, subject, "registered", "fill", 0)
	watches, n := watchers(address), registrable(subject)
	register(address, subject, "registered", n)
	time.Sleep(2 * time.Second)
	before := must(metrics(address, "grpc_server_msg_received_total", "grpc_method"))
	time.Sleep(seconds * time.Second)
	after := must(metrics(address, "grpc_server_msg_received_total", "grpc_method"))
	got := sample{"endpoints": float64(n)}
	for method, count := range after {
		got["messages"] += (count - before[method]) / seconds
	}
	got["keepalives"] = (after["LeaseKeepAlive"] - before["LeaseKeepAlive"]) / seconds
	got["watches"] = watchers(address) - watches
	return got
}
