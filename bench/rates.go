// SPDX-FileCopyrightText: The Rollcall Authors
// SPDX-License-Identifier: Apache-2.0

package main

import (
	"cmp"
	"fmt"
	"sync"
	"time"
)

// rates change the addresses of a service's keys in turn, so many times a second.
func rates(rates ...int) (all []scenario) {
	for _, rate := range rates {
		rare := rate < 50 // the p99 of so few changes is the delay of one of them
		all = append(all, scenario{
			name: fmt.Sprintf("rate/%d", rate), title: changesASecond(rate) + " among 1,000 endpoints",
			about:    "For 2 s, or 4 s at one a second, each put at its time, whether or not those before were acknowledged. The delay of a change is from its put to the first state with its address; changes that are overwritten before a state has them are not counted. States are searched for a hundred changes a second. CPU is the share of a core.",
			subjects: []string{raw, ours, theirs, goZero, goKit},
			metrics: []metric{{name: "p50", unit: "ms"}, {name: "p99", unit: "ms", note: rare}, {name: "CPU", unit: "cores"}, {name: "states", unit: "a second", note: true},
				{name: "never shown", unit: "%", note: true}, {name: "sent", unit: "a second", note: true}},
			run:    func(address, subject string) sample { return steady(newFollower(subject, address), rate) },
			rounds: cmp.Or(map[int]int{1: 2, 250: 3, 1000: 5}[rate], 1), // those with near bars, and that with the fewest changes
			few:    map[string]int{raw: 1, theirs: 3},
			slow:   rate != 250,
		})
	}
	return all
}

func changesASecond(rate int) string {
	if rate == 1 {
		return "One change a second"
	}
	return number(rate) + " changes a second"
}

// roundRobinRate is such a scenario with a real channel.
func roundRobinRate(rate int) scenario {
	return scenario{
		name: fmt.Sprintf("rate-round_robin/%d", rate), title: changesASecond(rate) + " among 1,000 endpoints under round_robin",
		about:    "As above, through a real gRPC channel with round_robin, whose connections are never answered. A state counts once gRPC has taken it in.",
		subjects: []string{ours, theirs},
		metrics:  []metric{{name: "p50", unit: "ms"}, {name: "p99", unit: "ms"}, {name: "CPU", unit: "cores"}, {name: "states", unit: "a second", note: true}, {name: "never shown", unit: "%", note: true}},
		run:      func(address, subject string) sample { return steady(newRoundRobin(subject, address), rate) },
		few:      map[string]int{theirs: 1},
		slow:     true,
	}
}

func steady(f *follower, rate int) sample {
	const n = 1000
	address, subject := f.address, f.subject
	changes := max(4, 2*rate)
	service := serviceOf(subject, "rate", n)
	write(address, subject, service, "fill", n)
	var mu sync.Mutex
	w := awaited{rate: rate, every: max(1, rate/100), shown: make([]time.Time, changes)}
	var states int
	var spent time.Duration
	full, done := make(chan time.Time, 1), make(chan time.Time, 1)
	look := make(chan func(), 2*changes) // beside the subject, which may go by how long its channel takes
	go func() {
		for f := range look {
			f()
		}
	}()
	f.follow(service, func(s seen) {
		now := time.Now()
		if s.n == n {
			once(full)
		}
		look <- func() {
			mu.Lock()
			defer mu.Unlock()
			if states++; w.look(s, now) {
				spent += cpu()
				once(done)
			}
		}
	})
	if subject != raw {
		<-full
	}
	time.Sleep(500 * time.Millisecond)
	mu.Lock()
	w.begin = time.Now().Add(300 * time.Millisecond).Truncate(time.Millisecond)
	states, spent = 0, -cpu()
	mu.Unlock()
	sent := write(address, subject, service, "rate", n, changes, rate, int(w.begin.UnixMilli()))
	elapsed := (<-done).Sub(sent[0]).Seconds()
	mu.Lock()
	defer mu.Unlock()
	var delays []float64
	looked := 0
	for i := 0; i < changes; i += w.every {
		if looked++; !w.shown[i].IsZero() {
			delays = append(delays, ms(w.shown[i].Sub(sent[i])))
		}
	}
	return sample{"p50": quantile(delays, 0.5), "p99": quantile(delays, 0.99), "CPU": spent.Seconds() / elapsed, "states": float64(states) / elapsed,
		"never shown": 100 - 100*float64(len(delays))/float64(looked), "sent": float64(changes-1) / sent[changes-1].Sub(sent[0]).Seconds()}
}

// awaited notes when changes are shown that are sent at a rate. It looks for every so-many-th
// of them and the last, and only once that is sent: to search all states would cost more than
// the subject does.
type awaited struct {
	begin       time.Time // zero: nothing is awaited
	rate, every int
	shown       []time.Time
	next        int // the first that is looked for and not shown
}

// look searches a state where there is a reason to, and reports whether it has the last change.
func (w *awaited) look(s seen, now time.Time) (last bool) {
	sent := func(i int) time.Time { return w.begin.Add(time.Duration(i) * time.Second / time.Duration(w.rate)) }
	end := len(w.shown) - 1
	if w.begin.IsZero() || w.next > end || now.Before(sent(w.next)) {
		return false
	}
	mark(w.shown, s.addrs, now)
	for w.next <= end && (!w.shown[w.next].IsZero() || w.next < end && now.Sub(sent(w.next)) > time.Second) { // after so long it is overwritten
		if w.next == end {
			w.next++
		} else {
			w.next = min(w.next+w.every, end)
		}
	}
	return w.next > end
}
