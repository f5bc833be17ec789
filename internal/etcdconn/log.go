// SPDX-FileCopyrightText: The Rollcall Authors
// SPDX-License-Identifier: Apache-2.0

package etcdconn

import (
	"strings"
	"time"

	"github.com/rollcall-grpc/rollcall/internal/backoff"
	"github.com/rollcall-grpc/rollcall/internal/etcdkv"
)

// LogPeriod is how often what lasts is logged again.
const LogPeriod = time.Minute

// outageLog is what has been logged of an outage.
type outageLog struct {
	since  time.Time // zero: there is none
	logged time.Time // when a line was last written
}

// logOutcome logs the beginning and the end of an outage.
func (m *Monitor) logOutcome(err error) {
	now := time.Now()
	m.mu.Lock()
	was := m.outage
	switch {
	case err == nil:
		m.outage = outageLog{}
	case was.since.IsZero():
		m.outage = outageLog{since: now, logged: now}
	}
	m.mu.Unlock()
	switch {
	case err == nil && !was.since.IsZero():
		m.opts.Logger.Info("etcd reachable again", "etcd", m.etcd(), "after", now.Sub(was.since).Round(time.Millisecond))
	case err != nil && was.since.IsZero():
		m.logOutage("", err)
	}
}

// logOngoingOutage logs that an outage lasts, when that is due, and returns how long until it
// is again.
func (m *Monitor) logOngoingOutage() time.Duration {
	now := time.Now()
	m.mu.Lock()
	outage, since := m.status.Outage, m.outage.since
	wait := m.outage.logged.Add(LogPeriod).Sub(now)
	if outage == nil {
		wait = backoff.Never
	} else if wait <= 0 {
		m.outage.logged = now
	}
	m.mu.Unlock()
	if wait > 0 {
		return wait
	}
	m.logOutage("still ", outage.Cause, "for", now.Sub(since).Round(time.Second))
	return LogPeriod
}

// logOutage logs what still works, as long as something does.
func (m *Monitor) logOutage(still string, cause error, args ...any) {
	message := "etcd " + still + "unreachable"
	if etcdkv.LoginRefused(cause) {
		message = "etcd " + still + "refuses the login"
	}
	if known := m.opts.LastKnown(); known != "" {
		args = append(args, "serving", known)
	}
	m.opts.Logger.Warn(message, append(args, "etcd", m.etcd(), "cause", cause)...)
}

func (m *Monitor) etcd() string { return strings.Join(m.opts.Client.Endpoints(), ",") }
