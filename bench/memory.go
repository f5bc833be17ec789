// SPDX-FileCopyrightText: The Rollcall Authors
// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"fmt"
	"runtime"
	"sync/atomic"
	"time"

	"github.com/rollcall-grpc/rollcall"
)

// Subjects of memories: what of Rollcall is in use.
const (
	snapshotOnly = "Rollcall's snapshot"
	unkept       = "Rollcall, state not kept"
)

// memories measure what a process keeps of one service.
func memories(sizes ...int) (all []scenario) {
	for _, n := range sizes {
		all = append(all, scenario{
			name: fmt.Sprintf("memory/%d", n), title: fmt.Sprintf("Memory for %s", thousands(n)),
			about:    "Heap and stacks after a garbage collection, beside those of a client that follows another service, of one endpoint. Services of less than 5,000 are followed several at a time, 5,000 endpoints in all. gRPC keeps the last state of a resolver, and so does the stand-in for a channel here, but for one subject. Rollcall's snapshot is what Directory.Subscribe needs, without a resolver.",
			subjects: []string{snapshotOnly, unkept, ours, theirs, goZero, goKit},
			metrics:  []metric{{name: "memory", unit: "bytes an endpoint"}},
			prepare: func(w writer, subject string) {
				writer{client: w.client, subject: subject, service: serviceOf(subject, "warm", 1)}.fill(1)
				w = writer{client: w.client, subject: subject, service: serviceOf(subject, "memory", n)}
				w.parallel(manyOf(n), func(i int) { w.of(i).fill(n) })
			},
			run:    func(address, subject string) sample { return memoryOf(address, subject, n) },
			rounds: 1, // it hardly varies
			slow:   n != 1000,
		})
	}
	return all
}

// manyOf returns how many services of n are followed: the stacks of the runtime grow in steps that
// are larger than what a small service takes.
func manyOf(n int) int { return max(1, 5000/n) }

func memoryOf(address, subject string, n int) sample {
	f := newFollower(subject, address)
	var kept []*atomic.Pointer[seen]
	follow := func(service string, n int) {
		full, last := make(chan time.Time, 1), new(atomic.Pointer[seen])
		kept = append(kept, last)
		f.follow(service, func(s seen) {
			if subject != unkept {
				last.Store(&s)
			}
			if s.n == n {
				once(full)
			}
		})
		<-full
	}
	if subject == snapshotOnly {
		directory := must(rollcall.SharedDirectory(f.client))
		follow = func(service string, n int) {
			sub := must(directory.Subscribe(service))
			for must(sub.Next(context.Background())).Len() != n {
			}
		}
	}
	follow(serviceOf(subject, "warm", 1), 1)
	time.Sleep(300 * time.Millisecond)
	used := memory()
	for i := range manyOf(n) {
		follow(each(serviceOf(subject, "memory", n), i), n)
	}
	time.Sleep(500 * time.Millisecond)
	got := sample{"memory": (memory() - used) / float64(n*manyOf(n))}
	runtime.KeepAlive(kept)
	return got
}
