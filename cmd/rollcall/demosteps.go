// SPDX-FileCopyrightText: The Rollcall Authors
// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"fmt"
	"time"

	clientv3 "go.etcd.io/etcd/client/v3"

	"github.com/rollcall-grpc/rollcall"
)

const (
	demoTTL    = 3 * time.Second
	demoOutage = 5 * time.Second
	demoCalls  = 3000
)

// stage is where the demo plays: an etcd, and who uses it by each package.
type stage struct {
	lab       *lab
	client    *clientv3.Client
	directory *rollcall.Directory // follows the services of all packages, to see what is in etcd
	packages  []*side             // Rollcall first
}

// side is who uses one package: servers, and callers.
type side struct {
	*stage
	naming  naming
	servers []*child
	load    *load
	sub     *rollcall.Subscription
	failed  error // of a step, after which no other is played
}

// start starts a server.
func (s *side) start(ctx context.Context, name string) (*child, error) {
	c, err := s.lab.startServer(ctx, name, s.naming)
	if err == nil {
		s.servers = append(s.servers, c)
	}
	return c, err
}

// step is a part of the demo. play returns the figures and whether the promise was kept.
type step struct {
	name    string
	promise string
	play    func(context.Context, *side) (figures []figure, kept bool, err error)
	happen  func(context.Context, *lab) error // what happens to all packages at once, before; nil: nothing
}

func count(name string, n int) figure { return figure{Name: name, Value: float64(n)} }

func millis(name string, d time.Duration) figure {
	return figure{Name: name, Value: float64(d.Microseconds()) / 1000, Unit: "ms"}
}

func seconds(name string, d time.Duration) figure {
	return figure{Name: name, Value: d.Round(10 * time.Millisecond).Seconds(), Unit: "s"}
}

var demoSteps = []step{
	{"three servers join", fmt.Sprintf("each answers a third of %d calls, none fails", demoCalls), playJoin, nil},
	{"kill -9 of greeter-1", fmt.Sprintf("calls under way may fail, no later one; gone within %v", demoTTL+2*time.Second), playKill, nil},
	{"SIGTERM of greeter-2", "it drains: no call fails", playDrain, nil},
	{"greeter-4, greeter-5 join", "each called within 1 s, no call fails", playGrow, nil},
	{fmt.Sprintf("etcd killed for %v", demoOutage), "no call fails, all registrations live on", playOutage, killEtcd},
}

func playJoin(ctx context.Context, s *side) ([]figure, bool, error) {
	for _, name := range []string{"greeter-1", "greeter-2", "greeter-3"} {
		if _, err := s.start(ctx, name); err != nil {
			return nil, false, err
		}
	}
	if err := s.await(ctx, 3); err != nil {
		return nil, false, err
	}
	for _, c := range s.servers {
		if _, err := s.load.firstCall(ctx, c.name); err != nil {
			return nil, false, err
		}
	}
	s.load.reset() // drop the calls made before any server had joined
	t, err := s.collect(ctx, demoCalls)
	if err != nil {
		return nil, false, err
	}
	figures := []figure{count("failed calls", t.Failed)}
	least, most := demoCalls, 0
	for _, c := range s.servers {
		figures = append(figures, count(c.name, t.Calls[c.name]))
		least, most = min(least, t.Calls[c.name]), max(most, t.Calls[c.name])
	}
	return figures, t.Failed == 0 && least*10 >= most*9, nil
}

func playKill(ctx context.Context, s *side) ([]figure, bool, error) {
	victim := s.servers[0]
	s.load.reset()
	killed := time.Now()
	victim.kill()
	if err := s.await(ctx, 2); err != nil {
		return nil, false, err
	}
	gone := time.Since(killed)
	t := s.load.reset()
	kept := t.Failed <= loadCallers && gone <= demoTTL+2*time.Second
	return []figure{count("failed calls", t.Failed), count("calls", t.total()), seconds("gone after", gone)}, kept, nil
}

func playDrain(ctx context.Context, s *side) ([]figure, bool, error) {
	leaver := s.servers[1]
	s.load.reset()
	asked := time.Now()
	if err := leaver.stop(); err != nil {
		return nil, false, err
	}
	if err := s.await(ctx, 1); err != nil {
		return nil, false, err
	}
	t := s.load.reset()
	idle := max(0, s.load.lastCall(leaver.name).Sub(asked))
	return []figure{count("failed calls", t.Failed), count("calls", t.total()), millis("last call after", idle)}, t.Failed == 0, nil
}

func playGrow(ctx context.Context, s *side) ([]figure, bool, error) {
	s.load.reset()
	var figures []figure
	kept := true
	for _, name := range []string{"greeter-4", "greeter-5"} {
		c, err := s.start(ctx, name)
		if err != nil {
			return nil, false, err
		}
		called, err := s.load.firstCall(ctx, name)
		if err != nil {
			return nil, false, err
		}
		took := called.Sub(c.started)
		kept = kept && took < time.Second
		figures = append(figures, millis(name+" called after", took))
	}
	t := s.load.reset()
	return append([]figure{count("failed calls", t.Failed)}, figures...), kept && t.Failed == 0, nil
}

// killEtcd is an outage.
func killEtcd(ctx context.Context, l *lab) error {
	l.etcd.kill()
	if err := pause(ctx, demoOutage); err != nil {
		return err
	}
	return l.startEtcd(ctx)
}

// playOutage is played when etcd is back.
func playOutage(ctx context.Context, s *side) ([]figure, bool, error) {
	back := time.Now()
	for s.sub.Latest().Staleness() != nil {
		if err := pause(ctx, 10*time.Millisecond); err != nil {
			return nil, false, err
		}
	}
	live := time.Since(back)
	// After that, a server that did not renew its lease is gone from etcd, which gives all leases their
	// whole time and a second more when it starts.
	if err := pause(ctx, demoTTL+2*time.Second); err != nil {
		return nil, false, err
	}
	snap, err := s.directory.List(ctx, s.naming.service)
	if err != nil {
		return nil, false, err
	}
	t := s.load.reset()
	alive := snap.Len()
	figures := []figure{count("failed calls", t.Failed), count("calls", t.total()), count("still registered", alive)}
	if s.naming.name == rollcallNaming.name { // the Directory is Rollcall's
		figures = append(figures, seconds("followed again after", live))
	}
	return figures, t.Failed == 0 && alive == 3, nil
}

// collect counts until the given number of calls was answered.
func (s *side) collect(ctx context.Context, calls int) (tally, error) {
	sum := tally{Calls: make(map[string]int)}
	for sum.total() < calls {
		if err := pause(ctx, 10*time.Millisecond); err != nil {
			return sum, err
		}
		t := s.load.reset()
		for name, n := range t.Calls {
			sum.Calls[name] += n
		}
		sum.Failed += t.Failed
	}
	return sum, nil
}

// await waits until the service has n instances that are not draining.
func (s *side) await(ctx context.Context, n int) error {
	for {
		if snap := s.sub.Latest(); snap != nil {
			serving := 0
			for inst := range snap.All() {
				if !inst.Draining() {
					serving++
				}
			}
			if serving == n && snap.Len() == n {
				return nil
			}
		}
		select {
		case <-s.sub.Changed():
		case <-ctx.Done():
			return fmt.Errorf("wait for %d endpoints of %s: %w", n, s.naming.service, context.Cause(ctx))
		}
	}
}
