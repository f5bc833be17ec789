// SPDX-FileCopyrightText: The Rollcall Authors
// SPDX-License-Identifier: Apache-2.0

package reflector

import (
	"context"
	"log/slog"
	"strings"
	"time"

	"go.etcd.io/etcd/api/v3/v3rpc/rpctypes"

	"github.com/rollcall-grpc/rollcall/internal/etcdconn"
)

const (
	gatherFor   = time.Second            // refusals are gathered for so long before they are logged in one line
	forgetAfter = 2 * etcdconn.LogPeriod // services that nobody follows for so long are refused anew
)

// denialLog logs that services may not be read: one line for all of them, one a minute while
// that lasts, and one when it is over. Guarded by Group.mu.
type denialLog struct {
	since   time.Time   // when the first was refused; zero: none is
	logged  time.Time   // when a line was last written, of this or of the last time
	said    bool        // a line was written since
	first   string      // the first service of the last line
	granted bool        // one that was refused may be read
	idle    time.Time   // since when none is refused, for want of followers; zero: some are
	timer   *time.Timer // of the next update; nil before the first
}

// noteLocked takes in what became of a range.
func (d *denialLog) noteLocked(g *Group, r *Reflector, was, now access) {
	if r.opts.Optional || r.keys.IsSingleKey() {
		return
	}
	granted := now == accessGranted && (was == accessRefused || was == accessUnknown && r.keys.Key == d.first)
	d.granted = d.granted || granted
	if granted || now == accessRefused && was != now {
		d.afterLocked(g, 0)
	}
}

// idleLocked notes that no service is refused.
func (d *denialLog) idleLocked(now time.Time) {
	if d.idle.IsZero() {
		d.idle = now
	}
}

// stopLocked ends the timer when no Reflector is left.
func (d *denialLog) stopLocked() {
	d.idleLocked(time.Now())
	if d.timer != nil {
		d.timer.Stop()
	}
}

func (d *denialLog) afterLocked(g *Group, wait time.Duration) {
	if d.timer == nil {
		d.timer = time.AfterFunc(wait, g.logDenials)
	} else {
		d.timer.Reset(wait)
	}
}

// logDenials writes the line that is due, if any.
func (g *Group) logDenials() {
	status, _ := g.monitor.Status()
	g.mu.Lock()
	var level slog.Level
	var message string
	var args []any
	if len(g.access) > 0 {
		level, message, args = g.denials.nextLocked(g, time.Now(), status.Outage != nil)
	}
	g.mu.Unlock()
	if message != "" {
		g.log.Log(context.Background(), level, message, args...)
	}
}

// nextLocked returns the line that is due, "" for none, and has logDenials come back when
// there may be another. During an outage, which is logged itself, none is due.
func (d *denialLog) nextLocked(g *Group, now time.Time, outage bool) (level slog.Level, message string, args []any) {
	refused, example := g.refusedServicesLocked()
	if refused == 0 {
		d.idleLocked(now)
	} else if !d.idle.IsZero() {
		if now.Sub(d.idle) >= forgetAfter {
			d.since = time.Time{}
		}
		d.idle = time.Time{}
	}
	args = []any{"etcd", strings.Join(g.client.Endpoints(), ",")}
	switch {
	case refused > 0 && d.since.IsZero():
		*d = denialLog{since: now, logged: d.logged, timer: d.timer}
		d.afterLocked(g, gatherFor)
	case refused > 0:
		wait := max(d.since.Add(gatherFor).Sub(now), d.logged.Add(etcdconn.LogPeriod).Sub(now))
		if outage {
			wait = max(wait, gatherFor)
		}
		if wait > 0 {
			d.afterLocked(g, wait)
			return level, "", nil
		}
		level, message = slog.LevelWarn, "etcd refuses access to services; keeping what is known of them"
		args = append(args, "services", refused, "first", example, "cause", rpctypes.ErrPermissionDenied)
		if d.said {
			level, message = slog.LevelWarn, "etcd still refuses access to services; serving what is known of them"
			args = append(args, "for", now.Sub(d.since).Round(time.Second))
		}
		d.logged, d.said, d.first = now, true, example
		d.afterLocked(g, etcdconn.LogPeriod)
	case !d.since.IsZero() && d.granted:
		if d.said {
			level, message = slog.LevelInfo, "etcd grants access to services again"
			args = append(args, "after", now.Sub(d.since).Round(time.Millisecond))
		}
		d.since = time.Time{}
	}
	return level, message, args
}

// refusedServicesLocked returns how many services may not be read, and the first of them.
func (g *Group) refusedServicesLocked() (n int, example string) {
	for r, a := range g.access {
		if a != accessRefused || r.opts.Optional || r.keys.IsSingleKey() {
			continue
		}
		if n++; n == 1 || r.keys.Key < example {
			example = r.keys.Key
		}
	}
	return n, example
}
