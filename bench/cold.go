// SPDX-FileCopyrightText: The Rollcall Authors
// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"fmt"
	"runtime"
	"time"

	clientv3 "go.etcd.io/etcd/client/v3"
)

// coldStarts begin to follow an existing service, with ids that are addresses or names.
func coldStarts(name, ids string, named bool, sizes ...int) (all []scenario) {
	for _, n := range sizes {
		of := func(subject string) string { return serviceOf(subject, name, n) }
		pagedRounds := 3
		if n == 10_000 && !named { // it has a bar
			pagedRounds = 20
		}
		all = append(all, scenario{
			name: fmt.Sprintf("%s/%d", name, n), title: fmt.Sprintf("A cold start with %s, %s as ids", thousands(n), ids),
			about:    "From the first call of a new client to the first complete state, over a connection that is up, after the process has done the same with another service, of one endpoint. The raw calls fetch all keys and do nothing with them. go-zero and go-kit have one client a process, which is not new. Up to 1,000 a process takes the median of ten clients, one after the other.",
			subjects: []string{rawGet, rawStream, ours, paged, theirs, goZero, goKit},
			metrics:  []metric{{name: "time", unit: "ms"}},
			prepare: func(w writer, subject string) {
				writer{w.client, subject, of(subject), named}.fill(n)
				writer{w.client, subject, serviceOf(subject, "warm", 1), named}.fill(1)
			},
			run:    func(address, subject string) sample { return coldStart(address, subject, of(subject), n) },
			slow:   named && n != 100 || !named && n != 1 && n != 10_000,
			rounds: map[int]int{1: 8, 100: 8, 1000: 8, 10_000: 20, 50_000: 3}[n], // single samples vary, and bars are near
			few:    map[string]int{rawStream: 3, paged: pagedRounds, theirs: 5},
		})
	}
	return all
}

func coldStart(address, subject, service string, n int) sample {
	f := newFollower(subject, address)
	f.load(serviceOf(subject, "warm", 1), 1)
	if subject == goZero || subject == goKit {
		return sample{"time": ms(f.load(service, n))}
	}
	clients := 1 // a process that begins pays for fresh memory, which counts with many endpoints
	if n <= 1000 {
		clients = 10
	}
	var times []float64
	for range clients {
		f.close()
		f = newFollower(subject, address)
		time.Sleep(20 * time.Millisecond)
		runtime.GC()
		times = append(times, ms(f.load(service, n)))
	}
	return sample{"time": quantile(times, 0.5)}
}

// load returns the time until a service of n is there for the first time.
func (f *follower) load(service string, n int) time.Duration {
	began := time.Now()
	switch f.subject {
	case rawGet:
		must(f.client.Get(context.Background(), service+"/", clientv3.WithPrefix()))
		return time.Since(began)
	case rawStream:
		for chunk := range must(f.client.GetStream(context.Background(), service+"/", clientv3.WithPrefix())) {
			check(chunk.Err())
		}
		return time.Since(began)
	}
	full := make(chan time.Time, 1)
	f.follow(service, func(s seen) {
		if s.n == n {
			once(full)
		}
	})
	return (<-full).Sub(began)
}
