// SPDX-FileCopyrightText: The Rollcall Authors
// SPDX-License-Identifier: Apache-2.0

package agent

import (
	"cmp"
	"context"
	"sync"
	"time"

	"github.com/rollcall-grpc/rollcall/internal/background"
	"github.com/rollcall-grpc/rollcall/internal/backoff"
	"github.com/rollcall-grpc/rollcall/internal/healthcheck"
	"github.com/rollcall-grpc/rollcall/internal/printable"
)

// ended is a context for what begins a change and does not wait for etcd.
var ended = func() context.Context {
	ctx, cancel := context.WithCancel(context.Background())
	cancel()
	return ctx
}()

// member is an endpoint of the file.
type member struct {
	service Service
	checked *healthcheck.Endpoint // nil where err was known at once
	stop    func()                // ends and joins the checks; nil without checked

	// Owned by the goroutine that checks.
	excuses      int       // failures that are still excused
	excusedSince time.Time // when the row of failures began that they are of

	mu  sync.Mutex
	err error // why it can never be registered
}

// run begins the checks after a delay.
func (m *member) run(delay time.Duration, failed func(error)) {
	m.stop = background.Start(context.Background(), func(ctx context.Context) {
		if backoff.Sleep(ctx, delay, nil) != nil {
			return
		}
		if err := m.checked.Run(ctx); err != nil {
			failed(err)
		}
	})
}

func (m *member) fail(err error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.err = err
}

// leave ends the checks in favour of what the file says now, which goes on with what it returns. An
// endpoint with another address or TTL begins anew.
func (m *member) leave(now *Service) *healthcheck.Endpoint {
	if m.checked == nil {
		return nil
	}
	m.stop()
	if m.service.Endpoint.Addr == now.Endpoint.Addr && m.service.TTL == now.TTL {
		return m.checked
	}
	_ = m.checked.Remove(ended) // the Registrar goes on until it is removed
	return nil
}

// departure is an endpoint that drains before it is removed.
type departure struct {
	hurry func() // has it removed now
	done  <-chan struct{}
}

// depart ends the checks and drains the endpoint, for clients to move, before it is removed.
func (m *member) depart(drain time.Duration) *departure {
	done := make(chan struct{})
	stop := background.Start(context.Background(), func(ctx context.Context) {
		defer close(done)
		m.stop()
		marking, cancel := context.WithTimeout(ctx, min(markTimeout, drain))
		defer cancel()
		if called, err := m.checked.Drain(marking); called && err == nil {
			_ = backoff.Sleep(ctx, drain, nil)
		}
		_ = m.checked.Remove(ended) // the Registrar goes on until it is removed
	})
	return &departure{hurry: stop, done: done}
}

// excused reports whether a failure that would take the endpoint out does not count: because it may be the
// network's, or because it is among the first after such a one. Once the network is back, an endpoint has
// to fail as often as ever, since its check may have been under way.
func (m *member) excused(p probe, all []probe) bool {
	switch {
	case mayBeNetwork(p, all):
		m.excuses, m.excusedSince = m.service.Fall-1, p.since
	case m.excuses > 0 && m.excusedSince.Equal(p.since):
		m.excuses--
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
	if m.checked != nil {
		s := m.checked.Status()
		e.Since = s.Since
		if !s.State.Since.IsZero() {
			e.Registration = s.State.Phase.String()
		}
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
