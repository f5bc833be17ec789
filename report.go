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
)

const reportEvery = time.Minute // while an outage lasts it is logged so often

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

// report logs the beginning and the end of an outage, from what the verdict was and the
// outcome of a check.
func (l *link) report(was *Staleness, err error) {
	switch {
	case err != nil && was == nil:
		l.reported = time.Now()
		l.log.Warn("etcd unreachable; keeping last known endpoints", l.outage(err)...)
	case err == nil && was != nil:
		l.log.Info("etcd reachable again", "etcd", l.etcd(), "after", time.Since(was.Since).Round(time.Millisecond))
	}
}

// remind logs that an outage lasts, when that is due, and returns how long until it is again.
func (l *link) remind() time.Duration {
	v, _ := l.current()
	if v.down == nil {
		return never
	}
	if left := time.Until(l.reported.Add(reportEvery)); left > 0 {
		return left
	}
	l.reported = time.Now()
	l.log.Warn("etcd still unreachable; serving last known endpoints",
		append(l.outage(v.down.Cause), "for", time.Since(v.down.Since).Round(time.Second))...)
	return reportEvery
}

// outage describes what is unreachable, what is known, and why.
func (l *link) outage(cause error) []any {
	l.mu.Lock()
	feeds := slices.Collect(maps.Keys(l.feeds))
	l.mu.Unlock()
	services, endpoints := 0, 0
	for _, f := range feeds {
		if f.span.end == "" {
			continue // a service config
		}
		services++
		if snap := f.known(); snap != nil {
			endpoints += len(snap.instances)
		}
	}
	return []any{"etcd", l.etcd(), "endpoints", endpoints, "services", services, "cause", cause}
}

func (l *link) etcd() string { return strings.Join(l.client.Endpoints(), ",") }
