// SPDX-FileCopyrightText: The Rollcall Authors
// SPDX-License-Identifier: Apache-2.0

package main

import (
	"fmt"
	"slices"
	"strconv"
	"sync/atomic"
	"time"
)

// scenario is a workload that is measured for each subject.
type scenario struct {
	name     string
	title    string
	about    string // a description, for the page
	subjects []string
	metrics  []metric
	rounds   int                            // instead of the -rounds flag; a quick run has one
	few      map[string]int                 // rounds of single subjects, instead of those of extra
	slow     bool                           // left out of a quick run
	prepare  func(w writer, subject string) // once, before all rounds, if not nil
	run      func(address, subject string) sample
}

// metric is a measured figure. Less is better, unless more or note is set.
type metric struct {
	name, unit string
	more       bool    // more is better
	note       bool    // not compared: neither is better, or another figure says the same
	least      float64 // a lead of less is noise
}

var all = []string{ours, theirs, goZero, goKit}

var scenarios = slices.Concat(
	loneChanges(1, 1000, 10_000),
	closedLoops(1, 1000, 10_000),
	rates(1, 10, 50, 250, 1000, 2000),
	[]scenario{roundRobinRate(250)},
	coldStarts("cold", "addresses", false, 1, 100, 1000, 10_000, 50_000),
	coldStarts("cold-names", "names", true, 1, 100, 1000, 10_000),
	[]scenario{
		{
			name: "burst", title: "A burst of 10,000 joins",
			about:    "Another process puts 10,000 keys as fast as etcd takes them. CPU is that of the follower, from the first put to the state that has them all; the lag is from the last acknowledgement to that state.",
			subjects: append([]string{raw}, all...),
			metrics:  []metric{{name: "CPU", unit: "ms"}, {name: "lag", unit: "ms"}, {name: "states", note: true}},
			run:      func(address, subject string) sample { return burst(newFollower(subject, address), 10_000) },
			rounds:   5, few: map[string]int{theirs: 1}, // the bar over a raw watch is near
		},
		{
			name: "rolling", title: "A rolling restart of 1,000",
			about:    "400 times a second an endpoint is deleted and another one is put. The lag is from the last acknowledgement to the state without the last of the old ones.",
			subjects: append([]string{raw}, all...),
			metrics:  []metric{{name: "CPU", unit: "ms"}, {name: "lag", unit: "ms", least: 1}, {name: "states", note: true}},
			run:      rolling,
			rounds:   1,
			slow:     true,
		},
		{
			name: "round_robin", title: "A burst of 2,000 joins under round_robin",
			about:    "A real gRPC channel with round_robin, whose connections are never answered, so that they cost nothing. A state counts once gRPC has taken it in.",
			subjects: []string{ours, theirs},
			metrics:  []metric{{name: "CPU", unit: "ms"}, {name: "lag", unit: "ms"}, {name: "states", note: true}},
			run:      func(address, subject string) sample { return burst(newRoundRobin(subject, address), 2000) },
			rounds:   9, few: map[string]int{theirs: 2}, // the bars are near
			slow: true,
		},
		{
			name: "rollout", title: "A rollout of 30 changes a second at 10,000 endpoints under round_robin",
			about:    "For 4 s, after the first state has been taken in. CPU is the share of one core.",
			subjects: []string{ours, theirs},
			metrics:  []metric{{name: "CPU", unit: "%"}, {name: "lag", unit: "ms"}, {name: "states", note: true}},
			run:      rollout,
			rounds:   2, few: map[string]int{theirs: 1},
			slow: true,
		},
		{
			name: "channels/1", title: "1,000 channels to one service of 100",
			about:    "The channels are stand-ins that store nothing, so that all memory is the subject's. Watches are counted at the server. The first endpoint changes ten times, each time once all have shown the change before; the figure is a median.",
			subjects: all,
			metrics: []metric{{name: "watches"}, {name: "memory", unit: "KiB a channel"}, {name: "goroutines", unit: "a channel"},
				{name: "ready", unit: "ms"}, {name: "one change", unit: "ms to all"}},
			run:    func(address, subject string) sample { return channels(address, subject, 1000, 1, 100) },
			rounds: 5, few: map[string]int{theirs: 3}, // a bar is near
		},
		{
			name: "channels/100", title: "1,000 channels to 100 services of 10",
			about:    "As above. The changes are made to one service, with ten channels.",
			subjects: all,
			metrics: []metric{{name: "watches"}, {name: "memory", unit: "KiB a channel"}, {name: "goroutines", unit: "a channel"},
				{name: "ready", unit: "ms"}, {name: "one change", unit: "ms to all"}},
			run:    func(address, subject string) sample { return channels(address, subject, 1000, 100, 10) },
			rounds: 1,
			slow:   true,
		},
		{
			name: "services", title: "A channel each to 2,000 services of 5",
			about:    "As above: one process, one client. The changes are made to one service.",
			subjects: all,
			metrics: []metric{{name: "watches a service"}, {name: "memory", unit: "KiB a service"}, {name: "goroutines", unit: "a service"},
				{name: "ready", unit: "ms"}, {name: "one change", unit: "ms"}},
			run: func(address, subject string) sample { return channels(address, subject, 2000, 2000, 5) },
		},
		services(500, 20),
		services(100, 200),
		{
			name: "restart", title: "2,000 services, and a restart of etcd",
			about:    "A channel each to 2,000 services of 5, at an etcd of their own. It is killed, and started on the same data 3 s later; as soon as it answers, another process changes each service. Time is from that answer until every channel has shown its change; CPU is that of the follower, from the kill until then; messages are those that etcd has got from the follower by 2 s later. Clients try to connect every 200 ms, so that a random backoff of gRPC's is not what is measured; those of go-zero and go-kit cannot be told.",
			subjects: all,
			metrics:  []metric{{name: "time", unit: "ms"}, {name: "CPU", unit: "ms"}, {name: "messages"}},
			run:      restart,
			rounds:   2, few: map[string]int{theirs: 1},
			slow: true,
		},
		{
			name: "connections", title: "1,000 gRPC connections",
			about:    "Real channels to one server in another process, until all are READY, beside a resolver that knows the address and does nothing else.",
			subjects: []string{instant, ours, theirs},
			metrics:  []metric{{name: "ready", unit: "ms"}, {name: "memory", unit: "KiB a channel"}},
			run:      connections,
			rounds:   15, few: map[string]int{theirs: 2}, // the bars of the others need a precision of a few per cent
		},
		{
			name: "again", title: "1,000 puts that change nothing",
			about:    "Into a service of 100. States are those that come after the first put.",
			subjects: append([]string{raw}, all...),
			metrics:  []metric{{name: "states"}, {name: "CPU", unit: "ms"}},
			run:      again,
			rounds:   1,
		},
		{
			name: "registering", title: "Registering endpoints in one process",
			about:    "Rollcall and etcd's manager register 10,000 endpoints under one lease, the latter from 64 goroutines. go-zero takes a lease for each endpoint, so it registers 1,000 only. go-kit is left out: its client keeps a single lease alive.",
			subjects: []string{ours, theirs, goZero},
			metrics:  []metric{{name: "endpoints", note: true}, {name: "register", unit: "ms"}, {name: "CPU", unit: "ms"}},
			run:      registering,
			rounds:   5, // the bar is near
			slow:     true,
		},
		{
			name: "registered", title: "Endpoints of one process, idle",
			about:    "As many endpoints. With etcd's manager the user writes the keepalive, and nothing notices a key that is gone. Messages at etcd are counted for 7 s, in which Rollcall verifies its keys twice. With its Directory closed no watch tells Rollcall's Registrar of its keys.",
			subjects: []string{ours, unwatched, theirs, goZero},
			metrics:  []metric{{name: "endpoints", note: true}, {name: "messages", unit: "a second"}, {name: "keepalives", unit: "a second"}, {name: "watches"}},
			run:      registered,
			rounds:   1, slow: true, // the count does not vary
		},
		{
			name: "decode", title: "One value decoded",
			about:    "An address and a small metadata object, as Rollcall writes them. Figures are the lower quartile of 40 batches.",
			subjects: []string{ours, "encoding/json"},
			metrics:  []metric{{name: "time", unit: "ns"}, {name: "allocations"}},
			run:      func(_, subject string) sample { return decode(subject) },
		},
	},
	memories(10, 100, 1000, 10_000, 100_000),
	picks(10, 1000, 10_000),
	fanOuts(),
)

// burst adds n endpoints to a service while f follows it.
func burst(f *follower, n int) sample {
	write(f.address, f.subject, "burst", "fill", 0)
	var states atomic.Int64
	full := make(chan time.Time, 1)
	f.follow("burst", func(s seen) {
		states.Add(1)
		if s.n == n {
			once(full)
		}
	})
	time.Sleep(300 * time.Millisecond)
	before, spent := states.Load(), cpu()
	last := write(f.address, f.subject, "burst", "join", 0, n)[0]
	at := <-full
	return sample{"CPU": ms(cpu() - spent), "lag": ms(at.Sub(last)), "states": float64(states.Load() - before)}
}

// once sends the time, unless one was sent and not received.
func once(at chan<- time.Time) {
	select {
	case at <- time.Now():
	default:
	}
}

func ms(d time.Duration) float64 { return float64(d) / float64(time.Millisecond) }
func us(d time.Duration) float64 { return float64(d) / float64(time.Microsecond) }

func rolling(address, subject string) sample {
	const n = 1000
	write(address, subject, "rolling", "fill", n)
	var states atomic.Int64
	full, done := make(chan time.Time, 1), make(chan time.Time, 1)
	newFollower(subject, address).follow("rolling", func(s seen) {
		states.Add(1)
		switch {
		case subject == raw:
			if s.n == 2*n {
				once(done)
			}
		case s.n == n && s.has(addr(0)):
			once(full)
		case s.n == n && s.has(addr(changed+n-1)) && !s.has(addr(n-1)):
			once(done)
		}
	})
	if subject != raw {
		<-full
	}
	time.Sleep(300 * time.Millisecond)
	before, spent := states.Load(), cpu()
	last := write(address, subject, "rolling", "roll", n, 400)[0]
	at := <-done
	return sample{"CPU": ms(cpu() - spent), "lag": ms(at.Sub(last)), "states": float64(states.Load() - before)}
}

func again(address, subject string) sample {
	const n = 100
	write(address, subject, "again", "fill", n)
	var states atomic.Int64
	newFollower(subject, address).follow("again", func(seen) { states.Add(1) })
	time.Sleep(500 * time.Millisecond)
	before, spent := states.Load(), cpu()
	write(address, subject, "again", "again", n, 1000)
	time.Sleep(500 * time.Millisecond)
	return sample{"states": float64(states.Load() - before), "CPU": ms(cpu() - spent)}
}

// serviceOf returns the name of a service with n values in the subject's format. It is the same
// for each measurement, so that the service is written only once.
func serviceOf(subject, name string, n int) string {
	if value(subject, "", 0) == "" {
		return fmt.Sprintf("%s-plain-%d", name, n)
	}
	return fmt.Sprintf("%s-%d", name, n)
}

// thousands returns a number of endpoints as text.
func thousands(n int) string {
	if n == 1 {
		return "one endpoint"
	}
	return number(n) + " endpoints"
}

func number(n int) string {
	if n >= 1000 {
		return fmt.Sprintf("%d,%03d", n/1000, n%1000)
	}
	return strconv.Itoa(n)
}
