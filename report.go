// SPDX-FileCopyrightText: The Rollcall Authors
// SPDX-License-Identifier: Apache-2.0

package rollcall

import (
	"context"
	"log/slog"
	"maps"
	"slices"
	"strings"
	"sync/atomic"
	"time"

	"go.etcd.io/etcd/api/v3/v3rpc/rpctypes"

	"github.com/rollcall-grpc/rollcall/internal/backoff"
	"github.com/rollcall-grpc/rollcall/internal/etcdkv"
)

const (
	reportEvery = time.Minute // what lasts is logged so often
	gatherFor   = time.Second // services that are refused within it are counted in one line
)

// logSwitch is a handler that passes everything on to a logger that can be replaced, to
// slog.Default() where there is none.
type logSwitch struct{ to *atomic.Pointer[slog.Logger] }

func (s logSwitch) logger() *slog.Logger {
	if log := s.to.Load(); log != nil {
		return log
	}
	return slog.Default()
}

func (s logSwitch) Enabled(ctx context.Context, level slog.Level) bool {
	return s.logger().Handler().Enabled(ctx, level)
}

func (s logSwitch) Handle(ctx context.Context, r slog.Record) error {
	return s.logger().Handler().Handle(ctx, r)
}

func (s logSwitch) WithAttrs(attrs []slog.Attr) slog.Handler {
	return s.logger().Handler().WithAttrs(attrs)
}

func (s logSwitch) WithGroup(name string) slog.Handler { return s.logger().Handler().WithGroup(name) }

// trouble is what has been logged of something that lasts.
type trouble struct {
	since  time.Time // when it began; zero: there is none
	logged time.Time // when a line of it, or of the one before, was last written
	said   bool      // a line of it was written
	first  string    // the first service refused, of the last line
	passed bool      // a service that was refused may be read
}

// report logs the beginning and the end of an outage, from the outcome of a check.
func (l *link) report(err error) {
	now := time.Now()
	l.mu.Lock()
	was := l.outage
	switch {
	case err == nil:
		l.outage = trouble{}
	case was.since.IsZero():
		l.outage = trouble{since: now, logged: now}
	}
	l.mu.Unlock()
	switch {
	case err == nil && !was.since.IsZero():
		l.log.Info("etcd reachable again", "etcd", l.etcd(), "after", now.Sub(was.since).Round(time.Millisecond))
	case err != nil && was.since.IsZero():
		l.warn("", "keeping", err)
	}
}

// remind logs that an outage lasts, when that is due, and returns how long until it is again.
func (l *link) remind() time.Duration {
	now := time.Now()
	l.mu.Lock()
	down, since := l.verdict.down, l.outage.since
	left := l.outage.logged.Add(reportEvery).Sub(now)
	if down == nil {
		left = backoff.Never
	} else if left <= 0 {
		l.outage.logged = now
	}
	l.mu.Unlock()
	if left > 0 {
		return left
	}
	l.warn("still ", "serving", down.Cause, "for", now.Sub(since).Round(time.Second))
	return reportEvery
}

// warn logs an outage, and what is known in spite of it.
func (l *link) warn(still, keeping string, cause error, more ...any) {
	message := "etcd " + still + "unreachable"
	if etcdkv.LoginRefused(cause) {
		message = "etcd " + still + "refuses the login"
	}
	args := []any{"etcd", l.etcd()}
	if services, endpoints := l.known(); services > 0 {
		message += "; " + keeping + " last known endpoints"
		args = append(args, "endpoints", endpoints, "services", services)
	}
	l.log.Warn(message, append(append(args, "cause", cause), more...)...)
}

// known returns how many services are followed, and of how many endpoints it is known.
func (l *link) known() (services, endpoints int) {
	l.mu.Lock()
	feeds := slices.Collect(maps.Keys(l.feeds))
	l.mu.Unlock()
	for _, f := range feeds {
		if !f.service() {
			continue
		}
		services++
		if snap := f.known(); snap != nil {
			endpoints += len(snap.instances)
		}
	}
	return services, endpoints
}

// heedAccessLocked has what becomes of a service logged, if it is to be.
func (l *link) heedAccessLocked(f *feed, now access) {
	was, t := l.feeds[f], &l.refusals
	passed := now == accessGranted && (was == accessRefused || was == accessUnknown && f.span.Key == t.first)
	t.passed = t.passed || passed
	if passed || now == accessRefused && was != now {
		notify(l.wake)
	}
}

// reportRefusals logs that services may not be read, one line for all of them, and when none
// is refused any more. It returns how long until there may be something to log.
func (l *link) reportRefusals() time.Duration {
	now := time.Now()
	l.mu.Lock()
	refused, first := l.refusedServicesLocked()
	was, left := l.refusals, backoff.Never
	switch {
	case refused > 0 && was.since.IsZero():
		l.refusals = trouble{since: now, logged: was.logged}
		left = gatherFor
	case refused > 0 && l.verdict.down == nil:
		left = max(was.since.Add(gatherFor).Sub(now), was.logged.Add(reportEvery).Sub(now))
		if left <= 0 {
			l.refusals.logged, l.refusals.said, l.refusals.first = now, true, first
		}
	case refused == 0 && !was.since.IsZero():
		// Nobody follows them any more: who does next may be refused again.
		left = max(was.since.Sub(now), was.logged.Sub(now)) + 2*reportEvery
		if was.passed || left <= 0 {
			l.refusals, left = trouble{logged: was.logged}, 0
		}
	}
	l.mu.Unlock()
	switch {
	case left > 0:
		return left
	case refused > 0 && was.said:
		l.log.Warn("etcd still refuses access to services; serving last known endpoints", "etcd", l.etcd(), "services", refused,
			"first", first, "cause", rpctypes.ErrPermissionDenied, "for", now.Sub(was.since).Round(time.Second))
	case refused > 0:
		l.log.Warn("etcd refuses access to services; keeping last known endpoints", "etcd", l.etcd(), "services", refused,
			"first", first, "cause", rpctypes.ErrPermissionDenied)
	case was.said && was.passed:
		l.log.Info("etcd grants access to services again", "etcd", l.etcd(), "after", now.Sub(was.since).Round(time.Millisecond))
	}
	return reportEvery
}

// refusedServicesLocked returns how many services may not be read, and the first of them.
func (l *link) refusedServicesLocked() (n int, first string) {
	for f, a := range l.feeds {
		if a != accessRefused || !f.service() {
			continue
		}
		if n++; n == 1 || f.span.Key < first {
			first = f.span.Key
		}
	}
	return n, first
}

func (l *link) etcd() string { return strings.Join(l.client.Endpoints(), ",") }
