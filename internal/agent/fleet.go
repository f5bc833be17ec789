// SPDX-FileCopyrightText: The Rollcall Authors
// SPDX-License-Identifier: Apache-2.0

package agent

import (
	"context"
	"errors"
	"log/slog"
	"sync"
	"time"

	"github.com/rollcall-grpc/rollcall"
	"github.com/rollcall-grpc/rollcall/internal/healthcheck"
)

// What an agent that stops waits for etcd: for the drain marks, and for the removal.
const (
	markTimeout   = 2 * time.Second
	removeTimeout = 5 * time.Second
)

// spread is the time over which the checks of a file's endpoints begin.
const spread = time.Second

// fleet is the endpoints that an agent keeps, with a Registrar for each TTL.
type fleet struct {
	directory *rollcall.Directory
	drain     time.Duration
	log       *slog.Logger

	// Owned by who calls apply, tidy and close.
	registrars map[time.Duration]*rollcall.Registrar // by TTL
	departures map[string]*departure                 // by key
	closing    sync.WaitGroup                        // of registrars that nobody uses any more

	mu               sync.Mutex
	members          map[string]*member // by key
	order            []string           // keys, as in the file
	selfPreservation bool
}

// changes counts what a new file has brought.
type changes struct{ added, changed, removed int }

func newFleet(directory *rollcall.Directory, drain time.Duration, log *slog.Logger) *fleet {
	return &fleet{directory: directory, drain: drain, log: log, registrars: make(map[time.Duration]*rollcall.Registrar),
		departures: make(map[string]*departure), members: make(map[string]*member)}
}

// apply makes the fleet what a file says. What has not changed is not touched.
func (f *fleet) apply(config *Config) (c changes) {
	now := make(map[string]*member)
	var order []string
	for i, s := range config.Services {
		key := s.key()
		order = append(order, key)
		was := f.members[key]
		delay := spread * time.Duration(i) / time.Duration(len(config.Services))
		if was == nil {
			c.added++
			if d := f.departures[key]; d != nil {
				d.hurry()
			}
		}
		if now[key] = f.keep(was, s, delay); was != nil && now[key] != was {
			c.changed++
		}
	}
	f.mu.Lock()
	gone := f.members
	f.members, f.order, f.selfPreservation = now, order, config.SelfPreservation
	f.mu.Unlock()
	for key, m := range gone {
		if now[key] == nil {
			c.removed++
			f.departures[key] = m.depart(f.drain)
		}
	}
	return c
}

// keep returns a member that keeps an endpoint as the file has it now, in place of another one, which may
// be nil: the same if nothing has changed. What has not registered its endpoint yet is dropped.
func (f *fleet) keep(was *member, s Service, delay time.Duration) *member {
	for was != nil && !was.continues(&s) {
		if was.stop(); was.begun() {
			was.run(0)
			break
		}
		was = was.before
	}
	if was != nil && was.service.equal(&s) {
		return was
	}
	m := &member{service: s, before: was, log: f.log, stop: func() {}}
	if err := f.check(m); err != nil {
		m.fail(err)
		return m
	}
	m.run(delay)
	return m
}

// check makes the checks of a member. They go on with what those before it have found, or take over
// from them once they pass.
func (f *fleet) check(m *member) error {
	s, was := &m.service, m.before
	registrar, err := f.registrar(s.TTL)
	if err != nil {
		return err
	}
	opts := s.options()
	opts.Registrar, opts.FailOpen = registrar, func() bool { return f.failsOpen(m) }
	opts.Report = func(e healthcheck.Event) { e.Log(f.log) }
	opts.Before = m.takeOver
	checked, err := healthcheck.New(opts)
	if err == nil && was != nil && was.continues(s) {
		was.stop()
		m.before = was.before
		checked, err = was.checked.With(opts)
	}
	m.checked = checked
	return err
}

func (f *fleet) registrar(ttl time.Duration) (*rollcall.Registrar, error) {
	if r := f.registrars[ttl]; r != nil {
		return r, nil
	}
	// Where and when the agent runs says nothing of the endpoints.
	r, err := rollcall.NewRegistrar(f.directory, rollcall.RegistrarOptions{TTL: ttl, NoOrigin: true, Logger: f.log})
	if err == nil {
		f.registrars[ttl] = r
	}
	return r, err
}

// tidy lets go of what has been replaced or removed.
func (f *fleet) tidy() {
	used := make(map[time.Duration]bool)
	for key, d := range f.departures {
		select {
		case <-d.done:
			delete(f.departures, key)
		default:
			used[d.ttl] = true
		}
	}
	f.mu.Lock()
	for _, m := range f.members {
		m.landed()
		for ; m != nil; m = m.before {
			used[m.service.TTL] = true
		}
	}
	f.mu.Unlock()
	for ttl, r := range f.registrars {
		if !used[ttl] && len(r.Stats().Registrations) == 0 {
			delete(f.registrars, ttl)
			f.closing.Go(r.Close)
		}
	}
}

// close drains and removes all endpoints. An error means that etcd removes some when their lease ends.
func (f *fleet) close() error {
	defer f.closing.Wait()
	f.apply(&Config{})
	for _, d := range f.departures {
		<-d.done
	}
	ctx, cancel := context.WithTimeout(context.Background(), removeTimeout)
	defer cancel()
	errs := make(chan error)
	for _, r := range f.registrars {
		go func() { errs <- r.Shutdown(ctx) }()
	}
	var failed error
	for range f.registrars {
		failed = errors.Join(failed, <-errs)
	}
	return failed
}

// failsOpen reports whether an endpoint whose checks have failed often enough stays in nevertheless: while
// it may be the network, and then until they have failed as often again.
func (f *fleet) failsOpen(m *member) bool {
	f.mu.Lock()
	defer f.mu.Unlock()
	if !f.selfPreservation {
		return false
	}
	p, _ := m.probe()
	return m.failsOpen(p, f.probesLocked())
}

// allFail reports whether the checks of all endpoints fail together.
func (f *fleet) allFail() bool {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.selfPreservation && allFail(f.probesLocked())
}

func (f *fleet) probesLocked() (all []probe) {
	for _, m := range f.members {
		for ; m != nil; m = m.before {
			if p, ok := m.probe(); ok {
				all = append(all, p)
			}
			if m.begun() { // what it took over from is checked no more
				break
			}
		}
	}
	return all
}

// endpoints returns what is known of each, in the file's order.
func (f *fleet) endpoints() []Endpoint {
	f.mu.Lock()
	defer f.mu.Unlock()
	all := make([]Endpoint, 0, len(f.order))
	for _, key := range f.order {
		all = append(all, f.members[key].status())
	}
	return all
}
