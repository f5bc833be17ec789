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

	// Owned by who calls apply and close.
	registrars map[time.Duration]*rollcall.Registrar // by TTL
	departures map[string]*departure                 // by key

	mu         sync.Mutex
	members    map[string]*member // by key
	order      []string           // keys, as in the file
	protection bool
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
		switch {
		case was == nil:
			c.added++
			if d := f.departures[key]; d != nil {
				d.hurry()
			}
			now[key] = f.start(s, nil, delay)
		case was.service.equal(&s):
			now[key] = was
		default:
			c.changed++
			now[key] = f.start(s, was.leave(&s), delay)
		}
	}
	f.mu.Lock()
	gone := f.members
	f.members, f.order, f.protection = now, order, config.SelfProtection
	f.mu.Unlock()
	for key, m := range gone {
		if now[key] == nil {
			c.removed++
			if m.checked != nil {
				f.departures[key] = m.depart(f.drain)
			}
		}
	}
	return c
}

// start begins to keep an endpoint, after another one with its address if it is given.
func (f *fleet) start(s Service, after *healthcheck.Endpoint, delay time.Duration) *member {
	m := &member{service: s}
	build := healthcheck.New
	if after != nil {
		build = after.With
	}
	checks, _ := s.parseChecks() // Parse has checked them
	registrar, err := f.registrar(s.TTL)
	if err == nil {
		m.checked, err = build(healthcheck.Options{Registrar: registrar, Service: s.Service, Endpoint: s.Endpoint,
			Checks: checks, Interval: s.Interval, Timeout: s.Timeout, Fall: s.Fall, Rise: s.Rise,
			Report: f.report, Stay: func() bool { return f.stays(m) }})
	}
	if err != nil {
		f.fail(m, err)
		return m
	}
	m.run(delay, func(err error) { f.fail(m, err) })
	return m
}

// fail gives an endpoint up, which can never be registered.
func (f *fleet) fail(m *member, err error) {
	m.fail(err)
	f.log.Error("endpoint cannot be registered", "key", m.service.key(), "cause", err)
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

// close drains and removes all endpoints. An error means that etcd removes some when their lease ends.
func (f *fleet) close() error {
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

// stays reports whether an endpoint whose checks have failed often enough stays nevertheless: while it
// may be the network, and then until they have failed as often again.
func (f *fleet) stays(m *member) bool {
	f.mu.Lock()
	defer f.mu.Unlock()
	if !f.protection {
		return false
	}
	p, _ := m.probe()
	return m.excused(p, f.probesLocked())
}

// allFail reports whether the checks of all endpoints fail together.
func (f *fleet) allFail() bool {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.protection && allFail(f.probesLocked())
}

func (f *fleet) probesLocked() (all []probe) {
	for _, m := range f.members {
		if p, ok := m.probe(); ok {
			all = append(all, p)
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

// report logs what has become of an endpoint.
func (f *fleet) report(e healthcheck.Event) {
	switch e.Kind {
	case healthcheck.Waiting:
		f.log.Info("endpoint is not registered until its checks pass", "key", e.Key, "cause", e.Cause)
	case healthcheck.Registering:
		f.log.Info("endpoint is healthy; registering it", "key", e.Key)
	case healthcheck.Leaving:
		f.log.Warn("endpoint is unhealthy; draining it", "key", e.Key, "cause", e.Cause)
	case healthcheck.Held:
		f.log.Info("endpoint is healthy; it failed too often lately to return at once", "key", e.Key, "until", e.Until)
	case healthcheck.Returning:
		f.log.Info("endpoint is healthy again; it takes calls", "key", e.Key)
	case healthcheck.Kept:
		f.log.Debug("endpoint is unhealthy; it stays since the network of the agent may be to blame", "key", e.Key, "cause", e.Cause)
	case healthcheck.Recovered:
		f.log.Debug("endpoint is healthy again; it had stayed", "key", e.Key)
	}
}
