// SPDX-FileCopyrightText: The Rollcall Authors
// SPDX-License-Identifier: Apache-2.0

package agent

import (
	"cmp"
	"context"
	"log/slog"
	"sync"
	"time"

	"github.com/rollcall-grpc/rollcall"
	"github.com/rollcall-grpc/rollcall/internal/background"
	"github.com/rollcall-grpc/rollcall/internal/backoff"
	"github.com/rollcall-grpc/rollcall/internal/healthcheck"
	"github.com/rollcall-grpc/rollcall/internal/printable"
)

// member is an endpoint of the file.
type member struct {
	service Service
	log     *slog.Logger
	checked *healthcheck.Endpoint // nil where err was known at once
	stop    func()                // ends and joins the checks

	// before is what has the key in etcd until this member's checks have passed and it is registered: the
	// endpoint with another address or TTL. Guarded by the fleet's lock.
	before *member

	// Owned by the goroutine that checks.
	grace      int       // failures that still do not count
	graceSince time.Time // when the row of failures began that they are of

	mu  sync.Mutex
	err error // why it can never be registered
}

// run begins the checks after a delay.
func (m *member) run(delay time.Duration) {
	m.stop = background.Start(context.Background(), func(ctx context.Context) {
		if backoff.Sleep(ctx, delay, nil) != nil {
			return
		}
		if err := m.checked.Run(ctx); err != nil {
			m.fail(err)
		}
	})
}

// fail gives an endpoint up, which can never be registered.
func (m *member) fail(err error) {
	m.mu.Lock()
	m.err = err
	m.mu.Unlock()
	m.log.Error("endpoint cannot be registered", "key", m.service.key(), "cause", err)
}

// continues reports whether a registration can go on as what the file says now.
func (m *member) continues(now *Service) bool {
	return m.checked != nil && m.service.Endpoint.Addr == now.Endpoint.Addr && m.service.TTL == now.TTL
}

// begun reports whether the endpoint has been registered.
func (m *member) begun() bool { return m.checked != nil && !m.checked.Status().State.Since.IsZero() }

// takeOver ends what has had the key in etcd, just before the endpoint is registered, and returns what is to be
// replaced: a Registrar has a key once. Under another one the key is this one's as soon as it is written; until
// then it stays as it is.
func (m *member) takeOver() (replaced *healthcheck.Endpoint) {
	for was := m.before; was != nil; was = was.before {
		was.stop()
		switch {
		case was.service.TTL != m.service.TTL:
		case replaced == nil && was.begun():
			replaced = was.checked
		case was.checked != nil:
			was.checked.Close()
		}
	}
	return replaced
}

// landed lets go of what has had the key in etcd, if the key is the member's now.
func (m *member) landed() {
	if m.before == nil || !m.begun() || m.checked.Status().State.Phase == rollcall.Registering {
		return
	}
	for was := m.before; was != nil; was = was.before {
		was.checked.Close()
	}
	m.before = nil
}

// departure is an endpoint that drains before it is removed.
type departure struct {
	ttl   time.Duration
	hurry func() // has it removed now
	done  <-chan struct{}
}

// depart ends the checks, drains the endpoint and removes it once clients have had time to move.
func (m *member) depart(drain time.Duration) *departure {
	done := make(chan struct{})
	stop := background.Start(context.Background(), func(ctx context.Context) {
		defer close(done)
		var leaving sync.WaitGroup
		defer leaving.Wait()
		for was := m; was != nil; was = was.before {
			if was.stop(); was.checked != nil {
				leaving.Go(func() { was.leave(ctx, drain) })
			}
		}
	})
	return &departure{ttl: m.service.TTL, hurry: stop, done: done}
}

func (m *member) leave(ctx context.Context, drain time.Duration) {
	marking, cancel := context.WithTimeout(ctx, min(markTimeout, drain))
	defer cancel()
	if left, err := m.checked.Drain(marking, drain); err == nil {
		_ = backoff.Sleep(ctx, left, nil)
	}
	m.checked.Close()
}

// failsOpen reports whether a failure that would take the endpoint out does not count: because it may be the
// network's, or because it is among the first after such a one. Once the network is back, an endpoint has
// to fail as often as ever, since its check may have been under way.
func (m *member) failsOpen(p probe, all []probe) bool {
	switch {
	case mayBeNetwork(p, all):
		m.grace, m.graceSince = m.service.Fall-1, p.since
	case m.grace > 0 && m.graceSince.Equal(p.since):
		m.grace--
	default:
		return false
	}
	return true
}

// probe returns what the checks have found, if there are any.
func (m *member) probe() (p probe, ok bool) {
	if m.checked == nil {
		return p, false
	}
	s := m.checked.Status()
	return probe{addr: m.service.Endpoint.Addr, in: s.Healthy, failing: s.Err != nil, since: s.Since, passed: s.Passed}, true
}

// status returns what people are told of the endpoint.
func (m *member) status() Endpoint {
	e := Endpoint{Service: m.service.Service, ID: m.service.Endpoint.ID, Address: m.service.Endpoint.Addr, Checks: m.service.Checks, Health: Unchecked}
	m.mu.Lock()
	err := m.err
	m.mu.Unlock()
	for was := m; was != nil && e.Registration == ""; was = was.before {
		if was.begun() {
			e.Registration = was.checked.Status().State.Phase.String()
		}
	}
	if m.checked != nil {
		s := m.checked.Status()
		e.Since = s.Since
		e.Health = healthOf(s)
		err = cmp.Or(err, s.Err, s.State.Err)
	}
	if err != nil {
		e.LastError = printable.Error(err)
	}
	return e
}

func healthOf(s healthcheck.Status) string {
	switch {
	case s.Healthy && s.Err == nil:
		return Healthy
	case s.Healthy:
		return Failing
	case s.State.Since.IsZero():
		return Unchecked
	}
	return Unhealthy
}
