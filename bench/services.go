// SPDX-FileCopyrightText: The Rollcall Authors
// SPDX-License-Identifier: Apache-2.0

package main

import (
	"fmt"
	"runtime"
	"sync/atomic"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/backoff"
)

// memory returns the size of the heap and the stacks after a garbage collection.
func memory() float64 {
	runtime.GC()
	runtime.GC()
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	return float64(m.HeapAlloc + m.StackInuse)
}

// moment is a time, and the CPU time that this process had used by then.
type moment struct {
	at  time.Time
	cpu time.Duration
}

// opened are channels to services of n endpoints.
type opened struct {
	ready time.Time     // when all were
	told  <-chan moment // gets one when so many have shown the change that is awaited
	next  *atomic.Int64 // the change of the first endpoint that is awaited: 0, then 1, ...
}

// open opens channels. So many of them show each change.
func open(f *follower, count int, service func(i int) string, n int, changes int64) opened {
	var isReady, isTold, next atomic.Int64
	full, told := make(chan time.Time, 1), make(chan moment, 1)
	for i := range count {
		var wasReady atomic.Bool
		var shown atomic.Int64 // changes
		f.follow(service(i), func(s seen) {
			if s.n == n && wasReady.CompareAndSwap(false, true) && isReady.Add(1) == int64(count) {
				once(full)
			}
			awaited := next.Load()
			if shown.Load() == awaited && s.has(addr(changed+int(awaited))) && shown.CompareAndSwap(awaited, awaited+1) && isTold.Add(1)%changes == 0 {
				told <- moment{time.Now(), cpu()}
			}
		})
	}
	return opened{<-full, told, &next}
}

// channels opens channels, spread over services of n endpoints.
func channels(address, subject string, count, services, n int) sample {
	prefix := serviceOf(subject, "channels", n)
	service := func(i int) string { return each(prefix, i%services) }
	write(address, subject, prefix, "fill each", services, n)
	f := newFollower(subject, address)
	f.follow("warm", func(seen) {})
	time.Sleep(300 * time.Millisecond)
	watches, used, goroutines, began := watchers(address), memory(), runtime.NumGoroutine(), time.Now()
	all := open(f, count, service, n, int64(count/services))
	time.Sleep(300 * time.Millisecond)
	got := sample{"ready": ms(all.ready.Sub(began)), "watches": watchers(address) - watches, "memory": (memory() - used) / 1024 / float64(count),
		"goroutines": float64(runtime.NumGoroutine()-goroutines) / float64(count)}
	got["watches a service"] = got["watches"] / float64(services)
	var took []float64
	for i := range 10 {
		all.next.Store(int64(i))
		sent := write(address, subject, service(0), "change", 0, 1, 0, i)[0]
		took = append(took, ms((<-all.told).at.Sub(sent)))
	}
	got["one change"] = quantile(took, 0.5)
	return got
}

// services open a channel each to as many services of n endpoints.
func services(count, n int) scenario {
	return scenario{
		name: fmt.Sprintf("services/%d", n), title: fmt.Sprintf("A channel each to %s services of %d", number(count), n),
		about:    "As above.",
		subjects: all,
		metrics:  []metric{{name: "watches a service"}, {name: "memory", unit: "KiB a service"}, {name: "ready", unit: "ms"}, {name: "one change", unit: "ms"}},
		run:      func(address, subject string) sample { return channels(address, subject, count, count, n) },
		slow:     true,
	}
}

// restart kills the etcd that many services are followed at, and starts it again.
func restart(_, subject string) sample {
	const services, n, down = 2000, 5, 3 * time.Second
	etcd := must(startEtcd())
	defer etcd.stop()
	write(etcd.address, subject, "restart", "fill each", services, n)
	f := newFollower(subject, etcd.address, grpc.WithConnectParams(grpc.ConnectParams{
		MinConnectTimeout: 20 * time.Second,
		Backoff:           backoff.Config{BaseDelay: 200 * time.Millisecond, Multiplier: 1, MaxDelay: 200 * time.Millisecond},
	}))
	all := open(f, services, func(i int) string { return each("restart", i) }, n, services)
	time.Sleep(500 * time.Millisecond)
	spent := cpu()
	etcd.kill()
	time.Sleep(down)
	check(etcd.run())
	answers := write(etcd.address, subject, "restart", "change each", services)[0]
	end := <-all.told
	time.Sleep(2 * time.Second)
	got := sample{"time": ms(end.at.Sub(answers)), "CPU": ms(end.cpu - spent)}
	for method, n := range must(metrics(etcd.address, "grpc_server_msg_received_total", "grpc_method")) {
		if method != "Put" && method != "Txn" { // the writer's
			got["messages"] += n
		}
	}
	return got
}
