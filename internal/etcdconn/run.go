// SPDX-FileCopyrightText: The Rollcall Authors
// SPDX-License-Identifier: Apache-2.0

package etcdconn

import (
	"context"
	"sync"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/connectivity"

	"github.com/rollcall-grpc/rollcall/internal/background"
	"github.com/rollcall-grpc/rollcall/internal/backoff"
)

// Start checks the connection whenever there is a reason to, until stop, which joins what runs, or until
// the client is closed. Who calls Recheck from now on waits for a check.
func (m *Monitor) Start() (stop func()) {
	m.begin()
	return background.Start(m.opts.Client.Ctx(), m.run)
}

func (m *Monitor) run(ctx context.Context) {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	var others sync.WaitGroup
	defer others.Wait()
	defer m.end()
	if conn := m.opts.Client.ActiveConnection(); conn != nil {
		others.Go(func() { m.followConn(ctx, conn) })
	}
	var retry backoff.Backoff
	for ctx.Err() == nil {
		wait, due := m.due()
		if !due {
			_ = backoff.Sleep(ctx, min(wait, m.logOngoingOutage()), m.wake)
			continue
		}
		if err := m.check(ctx); err == nil {
			retry.Reset()
			m.setOutcome(ctx, nil, 0)
		} else {
			m.setOutcome(ctx, err, retry.Next())
		}
	}
}

// begin drops what may be out of date because the Monitor has not run for a while.
func (m *Monitor) begin() {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.running++
	m.conn, m.lastMessage, m.termFellAt = connectivity.Idle, time.Now(), time.Time{}
	m.recheck, m.nextCheck, m.proxyKnown = false, time.Time{}, false
	m.reconnected, m.streamProven = false, false
}

// end forgets an outage, whose end nobody would see.
func (m *Monitor) end() {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.running--
	backoff.Renew(&m.checked)
	if m.status.Outage != nil {
		m.changeLocked(func(s *Status) { s.Outage = nil })
	}
}

// followConn follows the state of the client's connection. When it becomes READY again
// everything is verified: it may lead to another member.
func (m *Monitor) followConn(ctx context.Context, conn *grpc.ClientConn) {
	for wasReady := false; ; {
		state := conn.GetState()
		m.mu.Lock()
		m.conn, m.connSince = state, time.Now()
		if state == connectivity.Ready {
			if wasReady {
				m.epochSuspect, m.reconnected = true, true
				m.streamProven = false // the next one is another
				m.lastMessage = time.Time{}
			}
			wasReady, m.nextCheck, m.proxyKnown = true, time.Time{}, false
		}
		m.mu.Unlock()
		backoff.Wake(m.wake)
		if !conn.WaitForStateChange(ctx, state) {
			return
		}
	}
}

// due reports whether a check is due, and if not, how long until the next one may be.
func (m *Monitor) due() (wait time.Duration, due bool) {
	m.mu.Lock()
	defer m.mu.Unlock()
	now, down := time.Now(), m.status.Outage != nil
	switch {
	case m.conn == connectivity.TransientFailure && !down:
		return 0, true
	case m.conn == connectivity.TransientFailure:
		wait = m.lastCheck.Add(explainPeriod).Sub(now) // the cause may change
		return wait, wait <= 0
	case m.conn == connectivity.Connecting && down:
		return silenceLimit, false // the next state of the connection wakes
	case m.conn == connectivity.Connecting:
		wait = m.connSince.Add(connectLimit).Sub(now)
		return wait, wait <= 0
	case down:
		wait = m.nextCheck.Sub(now)
		return wait, wait <= 0
	}
	wait = m.lastMessage.Add(silenceLimit).Sub(now)
	if m.epochSuspect {
		wait = min(wait, m.epochChecked.Add(verifyPeriod).Sub(now))
	}
	if m.recheck || !m.outage.since.IsZero() { // the last run ended during the outage: log its end
		wait = 0
	}
	return wait, wait <= 0
}

// setOutcome turns the outcome of a check into the status. After one that failed the next
// one is due when retry has passed.
func (m *Monitor) setOutcome(ctx context.Context, err error, retry time.Duration) {
	m.mu.Lock()
	was, now := m.status.Outage, time.Now()
	m.lastCheck, m.recheck = now, false
	switch {
	case ctx.Err() != nil: // the check was cut short
	case err == nil && was != nil:
		m.changeLocked(func(s *Status) { s.Outage = nil })
	case err != nil && was == nil:
		m.changeLocked(func(s *Status) { s.Outage = &Outage{Since: now, Cause: err} })
	case err != nil && was.Cause.Error() != err.Error():
		m.changeLocked(func(s *Status) { s.Outage = &Outage{Since: was.Since, Cause: err} })
	}
	if err != nil && ctx.Err() == nil {
		m.nextCheck = now.Add(retry)
	}
	backoff.Renew(&m.checked)
	m.mu.Unlock()
	if ctx.Err() == nil {
		m.logOutcome(err)
	}
}
