// SPDX-FileCopyrightText: The Rollcall Authors
// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"fmt"
	"iter"
	"sync"
	"time"

	clientv3 "go.etcd.io/etcd/client/v3"
)

// loneChanges changes one address of a service, again and again.
func loneChanges(sizes ...int) (all []scenario) {
	for _, n := range sizes {
		all = append(all, scenario{
			name: fmt.Sprintf("lone/%d", n), title: fmt.Sprintf("A lone change among %s", thousands(n)),
			about:    "One key's address changes, and changes again 30 ms after the write was acknowledged. A raw watch in the same process, and on a stream of its own on the same connection where the subject takes a client, shows when the event arrived; \"more\" is how much later the state came.",
			subjects: []string{ours, theirs, goZero, goKit},
			metrics: []metric{{name: "more, p50", unit: "us", least: 50}, {name: "more, p99", unit: "us", least: 50}, {name: "since the put, p50", unit: "us"},
				{name: "raw event since the put, p50", unit: "us", note: true}, {name: "ratio"}},
			run:    func(address, subject string) sample { return loneChange(address, subject, n) },
			rounds: map[int]int{1000: 5}[n], few: map[string]int{theirs: 3}, // the bar of 1,000 is near
			slow: n != 1000,
		})
	}
	return all
}

func loneChange(address, subject string, n int) sample {
	const changes = 40
	service := serviceOf(subject, "lone", n)
	write(address, subject, service, "fill", n)
	t := newTimeline(newFollower(subject, address), service, n, changes)
	sent := write(address, subject, service, "change", n/2, changes, 30, 0)
	time.Sleep(300 * time.Millisecond)
	return t.sample(sent)
}

// closedLoops change one address of a service, each time as soon as the change before was shown.
func closedLoops(sizes ...int) (all []scenario) {
	for _, n := range sizes {
		all = append(all, scenario{
			name: fmt.Sprintf("closed/%d", n), title: fmt.Sprintf("Change after change among %s", thousands(n)),
			about:    "For 1 s one key's address changes, and changes again as soon as a state with the change before was shown. The raw watch is in the same process, as above. The writer is too, with a connection of its own.",
			subjects: []string{ours, theirs, goZero, goKit},
			metrics: []metric{{name: "since the put, p50", unit: "us"}, {name: "since the put, p99", unit: "us"},
				{name: "raw event since the put, p50", unit: "us", note: true}, {name: "ratio"}, {name: "changes", unit: "a second", more: true}},
			run:  func(address, subject string) sample { return closedLoop(address, subject, n) },
			slow: n != 1000,
		})
	}
	return all
}

func closedLoop(address, subject string, n int) sample {
	const most, duration = 10_000, time.Second
	service := serviceOf(subject, "closed", n)
	write(address, subject, service, "fill", n)
	t := newTimeline(newFollower(subject, address), service, n, most)
	w := writer{client: connect(address), subject: subject, service: service}
	var sent []time.Time
	for began := time.Now(); time.Since(began) < duration && len(sent) < most; {
		put := w.put(w.key(n/2), changed+len(sent))
		sent = append(sent, time.Now())
		go func() { must(w.client.Do(context.Background(), put)) }() // its answer may come after the state
		for <-t.newest < len(sent)-1 {                               // a state without the change
		}
	}
	time.Sleep(100 * time.Millisecond)
	got := t.sample(sent)
	got["changes"] = float64(len(sent)) / duration.Seconds()
	return got
}

// timeline has the times at which the changes of a service were shown.
type timeline struct {
	mu             sync.Mutex
	events, states []time.Time
	newest         chan int // the changes that states were the first to have
}

// newTimeline follows a service of n, for a number of changes: by a raw watch and by f. It
// returns once all is quiet after the first complete state.
func newTimeline(f *follower, service string, n, changes int) *timeline {
	t := &timeline{events: make([]time.Time, changes), states: make([]time.Time, changes), newest: make(chan int, changes)}
	if f.client == nil {
		f.client = connect(f.address)
	}
	// clientv3 has a stream for all watches of the same metadata, and etcd serves those of a stream together: with other
	// metadata than a subject's this one has a stream of its own.
	watch := f.client.Watch(clientv3.WithRequireLeader(context.Background()), service+"/", clientv3.WithPrefix())
	go func() {
		for resp := range watch {
			now := time.Now()
			t.mu.Lock()
			mark(t.events, addrsOf(resp.Events), now)
			t.mu.Unlock()
		}
	}()
	full := make(chan time.Time, 1)
	f.follow(service, func(s seen) {
		now := time.Now()
		t.mu.Lock()
		defer t.mu.Unlock()
		if i := mark(t.states, s.addrs, now); i >= 0 {
			t.newest <- i
		}
		if s.n == n {
			once(full)
		}
	})
	<-full
	time.Sleep(300 * time.Millisecond)
	t.mu.Lock()
	defer t.mu.Unlock()
	clear(t.states) // of a change that the service has from an earlier measurement
	for len(t.newest) > 0 {
		<-t.newest
	}
	return t
}

// sample compares the times with those at which the changes were sent.
func (t *timeline) sample(sent []time.Time) sample {
	t.mu.Lock()
	defer t.mu.Unlock()
	var more, state, event []float64
	for i, at := range sent {
		if t.states[i].IsZero() || t.events[i].IsZero() {
			continue // conflated
		}
		more = append(more, us(t.states[i].Sub(t.events[i])))
		state = append(state, us(t.states[i].Sub(at)))
		event = append(event, us(t.events[i].Sub(at)))
	}
	if len(more) < len(sent)*9/10 {
		check(fmt.Errorf("only %d of %d changes were seen", len(more), len(sent)))
	}
	return sample{"more, p50": quantile(more, 0.5), "more, p99": quantile(more, 0.99), "since the put, p50": quantile(state, 0.5),
		"since the put, p99":           quantile(state, 0.99),
		"raw event since the put, p50": quantile(event, 0.5), "ratio": quantile(state, 0.5) / quantile(event, 0.5)}
}

// mark notes the time of each change that is new among addresses, and returns the last of them,
// or -1.
func mark(times []time.Time, addrs iter.Seq[string], now time.Time) (last int) {
	last = -1
	for a := range addrs {
		if i := changeOf(a); i >= 0 && i < len(times) && times[i].IsZero() {
			times[i], last = now, i
		}
	}
	return last
}

// changeOf returns i for addr(changed+i), and -1 for an address of an unchanged key. It looks
// at few bytes, so that finding changes in a state costs little beside the state.
func changeOf(addr string) int {
	if len(addr) < len("10.15.0.0:50051") || addr[3:6] != "15." {
		return -1
	}
	high, low := 0, 0
	for _, c := range []byte(addr[6:]) {
		switch c {
		case '.':
			high, low = low, 0
		case ':':
			return 15<<16 + high<<8 + low - changed
		default:
			low = 10*low + int(c-'0')
		}
	}
	return -1
}
