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
		rounds, few := 6, map[string]int{rawGet: 3, rawStream: 1, paged: 1, theirs: 3}
		switch {
		case n == 1: // its bar is nearest
			rounds = 14
		case n == 10_000 && named:
			rounds, few = 20, map[string]int{rawStream: 3, paged: 3, theirs: 5}
		case n == 10_000:
			rounds, few = 12, map[string]int{rawStream: 3, theirs: 5}
		case n > 10_000:
			rounds, few = 3, nil
		}
		all = append(all, scenario{
			name: fmt.Sprintf("%s/%d", name, n), title: fmt.Sprintf("A cold start with %s, %s as ids", thousands(n), ids),
			about:    "From the first call of a new client to the first complete state, over a connection that is up, after the process has done the same with another service, of one endpoint. The raw calls fetch all keys and do nothing with them. go-zero and go-kit have one client a process, which is not new. Up to 1,000 a process takes the median of 30 clients, one after the other (of ten where there is no bar), and the ratio is to the median of as many raw Gets, one before or after each.",
			subjects: []string{rawGet, rawStream, ours, paged, theirs, goZero, goKit},
			metrics:  coldMetrics(n),
			prepare: func(w writer, subject string) {
				writer{w.client, subject, of(subject), named}.fill(n)
				writer{w.client, subject, serviceOf(subject, "warm", 1), named}.fill(1)
			},
			run:    func(address, subject string) sample { return coldStart(address, subject, of(subject), n) },
			slow:   named && n != 100 || !named && n != 1 && n != 10_000,
			rounds: rounds, // single samples vary, and bars are near
			few:    few,
		})
	}
	return all
}

// manyClients is the size up to which a process measures many clients, and as many raw Gets: machines
// have quick and slow minutes, and processes differ. With more endpoints fresh memory counts, which a
// process that begins pays for.
const manyClients = 1000

func coldMetrics(n int) []metric {
	all := []metric{{name: "time", unit: "ms"}}
	if n <= manyClients {
		all = append(all, metric{name: "raw Get beside it", unit: "ms", note: true}, metric{name: "ratio", note: true})
	}
	return all
}

func coldStart(address, subject, service string, n int) sample {
	f := newFollower(subject, address)
	f.load(serviceOf(subject, "warm", 1), 1)
	if subject == goZero || subject == goKit {
		return sample{"time": ms(f.load(service, n))}
	}
	f.close()
	if n > manyClients {
		return sample{"time": ms(loadAnew(subject, address, service, n))}
	}
	clients := 10
	if subject == ours {
		clients = 30
	}
	var times, gets []float64
	for i := range clients {
		measure := []func(){
			func() { gets = append(gets, ms(loadAnew(rawGet, address, service, n))) },
			func() { times = append(times, ms(loadAnew(subject, address, service, n))) },
		}
		measure[i%2]()
		measure[1-i%2]()
	}
	took, get := quantile(times, 0.5), quantile(gets, 0.5)
	return sample{"time": took, "raw Get beside it": get, "ratio": took / get}
}

// loadAnew is load by a new client, in a process that rests.
func loadAnew(subject, address, service string, n int) time.Duration {
	f := newFollower(subject, address)
	defer f.close()
	time.Sleep(20 * time.Millisecond)
	runtime.GC()
	return f.load(service, n)
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
