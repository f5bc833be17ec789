// SPDX-FileCopyrightText: The Rollcall Authors
// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"fmt"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	clientv3 "go.etcd.io/etcd/client/v3"
)

// scenario is a workload that is measured for each subject.
type scenario struct {
	name     string
	title    string
	about    string // a description, for the page
	subjects []string
	metrics  []metric
	rounds   int            // instead of the -rounds flag; a quick run has one
	few      map[string]int // rounds of single subjects, beside extra
	slow     bool           // left out of a quick run
	run      func(address, subject string) sample
}

// metric is a measured figure. Less is better, unless more or note is set.
type metric struct {
	name, unit string
	more       bool // more is better
	note       bool // neither is better
}

var all = []string{ours, theirs, goZero, goKit}

var scenarios = slices.Concat(
	loneChanges(1, 1000, 10_000),
	coldStarts(1000, 10_000, 50_000),
	[]scenario{
		{
			name: "burst", title: "A burst of 10,000 joins",
			about:    "Another process puts 10,000 keys as fast as etcd takes them. CPU is that of the follower, from the first put to the state that has them all; the lag is from the last acknowledgement to that state.",
			subjects: append([]string{raw}, all...),
			metrics:  []metric{{name: "CPU", unit: "ms"}, {name: "lag", unit: "ms"}, {name: "states", note: true}},
			run:      func(address, subject string) sample { return burst(newFollower(subject, address), 10_000) },
		},
		{
			name: "rolling", title: "A rolling restart of 1,000",
			about:    "400 times a second an endpoint is deleted and another one is put. The lag is from the last acknowledgement to the state without the last of the old ones.",
			subjects: append([]string{raw}, all...),
			metrics:  []metric{{name: "CPU", unit: "ms"}, {name: "lag", unit: "ms"}, {name: "states", note: true}},
			run:      rolling,
			rounds:   3,
			slow:     true,
		},
		{
			name: "round_robin", title: "A burst of 2,000 joins under round_robin",
			about:    "A real gRPC channel with round_robin, whose connections are never answered, so that they cost nothing. A state counts once gRPC has taken it in.",
			subjects: []string{ours, theirs},
			metrics:  []metric{{name: "CPU", unit: "ms"}, {name: "lag", unit: "ms"}, {name: "states", note: true}},
			run:      func(address, subject string) sample { return burst(newRoundRobin(subject, address), 2000) },
			slow:     true,
		},
		{
			name: "rollout", title: "A rollout of 30 changes a second at 10,000 endpoints under round_robin",
			about:    "For 4 s, after the first state has been taken in. CPU is the share of one core.",
			subjects: []string{ours, theirs},
			metrics:  []metric{{name: "CPU", unit: "%"}, {name: "lag", unit: "ms"}, {name: "states", note: true}},
			run:      rollout,
			slow:     true,
		},
		{
			name: "channels/1", title: "1,000 channels to one service of 100",
			about:    "The channels are stand-ins that store nothing, so that all memory is the subject's. Watches are counted at the server.",
			subjects: all,
			metrics: []metric{{name: "watches"}, {name: "memory", unit: "KiB a channel"}, {name: "goroutines", unit: "a channel"},
				{name: "ready", unit: "ms"}, {name: "one change", unit: "ms to all"}},
			run: func(address, subject string) sample { return channels(address, subject, 1, 100) },
		},
		{
			name: "channels/100", title: "1,000 channels to 100 services of 10",
			about:    "As above. The change is made to one service, with ten channels.",
			subjects: all,
			metrics: []metric{{name: "watches"}, {name: "memory", unit: "KiB a channel"}, {name: "goroutines", unit: "a channel"},
				{name: "ready", unit: "ms"}, {name: "one change", unit: "ms to all"}},
			run:  func(address, subject string) sample { return channels(address, subject, 100, 10) },
			slow: true,
		},
		{
			name: "connections", title: "1,000 gRPC connections",
			about:    "Real channels to one server in another process, until all are READY, beside a resolver that knows the address and does nothing else.",
			subjects: []string{instant, ours, theirs},
			metrics:  []metric{{name: "ready", unit: "ms"}, {name: "memory", unit: "KiB a channel"}},
			run:      connections,
			rounds:   30, few: map[string]int{theirs: 5}, // the bars of the others need a precision of a few per cent
		},
		{
			name: "again", title: "1,000 puts that change nothing",
			about:    "Into a service of 100. States are those that come after the first put.",
			subjects: append([]string{raw}, all...),
			metrics:  []metric{{name: "states"}, {name: "CPU", unit: "ms"}},
			run:      again,
		},
		{
			name: "registered", title: "Endpoints of one process, idle",
			about:    "Rollcall and etcd's manager register 10,000 endpoints under one lease; with the latter the user writes the keepalive, and nothing notices a key that is gone. go-zero takes a lease for each endpoint, so it registers 1,000 only. go-kit is left out: its client keeps a single lease alive. Messages at etcd are then counted for 7 s, in which Rollcall verifies its keys twice.",
			subjects: []string{ours, theirs, goZero},
			metrics: []metric{{name: "endpoints", note: true}, {name: "register", unit: "ms"}, {name: "messages", unit: "a second"},
				{name: "keepalives", unit: "a second"}, {name: "watches"}},
			run:    registered,
			rounds: 1, slow: true, // the count does not vary
		},
		{
			name: "decode", title: "One value decoded",
			about:    "An address and a small metadata object, as Rollcall writes them. Figures are the lower quartile of 40 batches.",
			subjects: []string{ours, "encoding/json"},
			metrics:  []metric{{name: "time", unit: "ns"}, {name: "allocations"}},
			run:      func(_, subject string) sample { return decode(subject) },
		},
	},
	picks(10, 1000, 10_000),
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

// loneChanges changes one address of a service, again and again.
func loneChanges(sizes ...int) (all []scenario) {
	for _, n := range sizes {
		all = append(all, scenario{
			name: fmt.Sprintf("lone/%d", n), title: fmt.Sprintf("A lone change among %s", thousands(n)),
			about:    "One key's address changes, and changes again 30 ms after the write was acknowledged. A raw watch in the same process, and on the same connection where the subject takes a client, shows when the event arrived; \"more\" is how much later the state came.",
			subjects: []string{ours, theirs, goZero, goKit},
			metrics: []metric{{name: "more, p50", unit: "us"}, {name: "more, p99", unit: "us"}, {name: "since the put, p50", unit: "us"},
				{name: "raw event since the put, p50", unit: "us", note: true}, {name: "ratio"}},
			run:  func(address, subject string) sample { return loneChange(address, subject, n) },
			slow: n != 1000,
		})
	}
	return all
}

func loneChange(address, subject string, n int) sample {
	const changes = 50
	lone := serviceOf(subject, "lone", n)
	write(address, subject, lone, "fill", n)
	var mu sync.Mutex
	events, states := make(map[string]time.Time), make(map[string]time.Time)
	f := newFollower(subject, address)
	if f.client == nil {
		f.client = connect(address)
	}
	watch := f.client.Watch(context.Background(), lone+"/", clientv3.WithPrefix())
	byValue := make(map[string]string)
	for i := range changes {
		byValue[value(subject, addr(changed+i), changed+i)] = addr(changed + i)
	}
	go func() {
		for resp := range watch {
			now := time.Now()
			mu.Lock()
			for _, ev := range resp.Events {
				events[byValue[string(ev.Kv.Value)]] = now
			}
			mu.Unlock()
		}
	}()
	full := make(chan time.Time, 1)
	next := 0
	f.follow(lone, func(s seen) {
		now := time.Now()
		if s.n == n {
			once(full)
		}
		mu.Lock()
		defer mu.Unlock()
		for i := next; i < next+15; i++ { // if the machine stalls, several changes may be in one state
			if a := addr(changed + i); s.has(a) {
				states[a], next = now, i+1
				break
			}
		}
	})
	<-full
	time.Sleep(300 * time.Millisecond)
	sent := write(address, subject, lone, "change", n/2, changes, 30)
	time.Sleep(300 * time.Millisecond)
	mu.Lock()
	defer mu.Unlock()
	var more, state, event []float64
	for i, at := range sent {
		a := addr(changed + i)
		if states[a].IsZero() || events[a].IsZero() {
			continue // conflated
		}
		more = append(more, us(states[a].Sub(events[a])))
		state = append(state, us(states[a].Sub(at)))
		event = append(event, us(events[a].Sub(at)))
	}
	if len(more) < changes*9/10 {
		check(fmt.Errorf("only %d of %d changes were seen", len(more), changes))
	}
	return sample{"more, p50": quantile(more, 0.5), "more, p99": quantile(more, 0.99), "since the put, p50": quantile(state, 0.5),
		"raw event since the put, p50": quantile(event, 0.5), "ratio": quantile(state, 0.5) / quantile(event, 0.5)}
}

// coldStarts begin to follow an existing service.
func coldStarts(sizes ...int) (all []scenario) {
	for _, n := range sizes {
		all = append(all, scenario{
			name: fmt.Sprintf("cold/%d", n), title: fmt.Sprintf("A cold start with %s", thousands(n)),
			about:    "From the first call to the first complete state, over a connection that is up. The raw calls fetch all keys and do nothing with them. Ids are addresses, as a Registrar writes them; with other ids Rollcall's first state of 10,000 takes some 2 ms more.",
			subjects: []string{rawGet, rawStream, ours, paged, theirs, goZero, goKit},
			metrics:  []metric{{name: "time", unit: "ms"}},
			run:      func(address, subject string) sample { return coldStart(address, subject, n) },
			slow:     n != 10_000,
			rounds:   map[int]int{10_000: 80}[n], // a bar is near, and single samples are quick but vary
			few:      map[string]int{rawStream: 20, theirs: 5},
		})
	}
	return all
}

func coldStart(address, subject string, n int) sample {
	service := serviceOf(subject, "cold", n)
	write(address, subject, service, "fill", n)
	ctx := context.Background()
	switch subject {
	case rawGet:
		c := connect(address)
		began := time.Now()
		must(c.Get(ctx, service+"/", clientv3.WithPrefix()))
		return sample{"time": ms(time.Since(began))}
	case rawStream:
		c := connect(address)
		began := time.Now()
		for chunk := range must(c.GetStream(ctx, service+"/", clientv3.WithPrefix())) {
			check(chunk.Err())
		}
		return sample{"time": ms(time.Since(began))}
	}
	f := newFollower(subject, address)
	if subject == goZero || subject == goKit { // theirs has no connection to warm up
		f.follow("warm", func(seen) {})
		time.Sleep(300 * time.Millisecond)
	}
	full := make(chan time.Time, 1)
	began := time.Now()
	f.follow(service, func(s seen) {
		if s.n == n {
			once(full)
		}
	})
	return sample{"time": ms((<-full).Sub(began))}
}

// serviceOf returns the name of a service with n values in the subject's format. It is the same
// for each measurement, so that the service is written only once.
func serviceOf(subject, name string, n int) string {
	if value(subject, "", 0) == "" {
		return fmt.Sprintf("%s-plain-%d", name, n)
	}
	return fmt.Sprintf("%s-%d", name, n)
}

func thousands(n int) string {
	switch {
	case n == 1:
		return "one endpoint"
	case n >= 1000:
		return fmt.Sprintf("%d,%03d endpoints", n/1000, n%1000)
	}
	return fmt.Sprintf("%d endpoints", n)
}
