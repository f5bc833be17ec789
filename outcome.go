// SPDX-FileCopyrightText: The Rollcall Authors
// SPDX-License-Identifier: Apache-2.0

package rollcall

import (
	"context"
	"errors"
	"fmt"
	"log/slog"

	"go.etcd.io/etcd/api/v3/mvccpb"
	"go.etcd.io/etcd/api/v3/v3rpc/rpctypes"
	clientv3 "go.etcd.io/etcd/client/v3"
	"google.golang.org/grpc/status"

	"github.com/rollcall-grpc/rollcall/internal/backoff"
	"github.com/rollcall-grpc/rollcall/internal/etcdkv"
)

// maxDeregistered is how many deregistered keys are remembered.
const maxDeregistered = 10_000

// What ends the maintenance of a lease, beside etcd's own errors.
var (
	errNotRenewed    = errors.New("lease was not renewed") // for its whole time: it may have expired, or not
	errLeaseReplaced = errors.New("lease was replaced")    // it was given up for another one
)

// confirmedLocked records that the key holds what the program wanted at a time.
func (r *Registrar) confirmedLocked(g *Registration, kv *mvccpb.KeyValue, wanted []byte) {
	again, before := g.observed.claimed, g.observed.takenOver()
	g.observed.confirm(kv, wanted)
	if g.watch != nil {
		g.watch.unseen[g] = true
	}
	if pending(g.desired, &g.observed) { // set anew meanwhile
		g.dirtyLocked()
		backoff.Wake(r.wake)
	}
	if g.state.Err != nil {
		r.cleared[causeOf(g.state.Err)] = true
	}
	phase := g.observed.phase()
	switch {
	case g.desired.removed: // while it was being written; it goes again
	case !again && before != nil:
		r.noteLocked(slog.LevelInfo, "registered; took the key over", g, before)
	case !again:
		r.noteLocked(slog.LevelInfo, "registered", g, nil)
	case g.state.Phase == Lost:
		r.noteLocked(slog.LevelInfo, "registered again", g, nil)
	case g.state.Phase != phase && phase == Draining:
		r.noteLocked(slog.LevelInfo, "registration is draining", g, nil)
	case g.state.Phase != phase:
		r.noteLocked(slog.LevelInfo, "registration is serving", g, nil)
	case g.state.Err != nil && causeOf(g.state.Err) != causeConnection:
		r.noteLocked(slog.LevelInfo, "registration written", g, nil)
	}
	g.setLocked(phase, nil)
}

// missingLocked records that the endpoint is not in etcd, for now.
func (r *Registrar) missingLocked(g *Registration, err error) {
	switch {
	case g.state.Phase == Registered, g.state.Phase == Draining:
		r.noteLocked(slog.LevelWarn, "registration lost", g, err)
	case g.state.Err == nil, causeOf(g.state.Err) != causeOf(err):
		r.noteLocked(slog.LevelWarn, "not registered", g, err)
	}
	phase := Lost
	if !g.observed.claimed {
		phase = Registering
	}
	g.setLocked(phase, err)
}

// failedLocked records that a step failed: the endpoint may be in etcd as it was.
func (r *Registrar) failedLocked(g *Registration, err error) {
	phase := g.observed.phase()
	if phase == Lost || phase == Registering {
		r.missingLocked(g, err)
		return
	}
	if cause := causeOf(err); cause != causeConnection && (g.state.Err == nil || causeOf(g.state.Err) != cause) {
		text := "registration cannot be written; it stays as it was"
		if g.desired.removed {
			text = "cannot deregister yet"
		}
		r.noteLocked(slog.LevelWarn, text, g, err)
	}
	g.setLocked(phase, err)
}

// noteLocked records an event for logEvents: of those with one text the first.
func (r *Registrar) noteLocked(level slog.Level, text string, g *Registration, cause error) {
	for i := range r.events {
		if r.events[i].text == text {
			r.events[i].others++
			return
		}
	}
	r.events = append(r.events, event{level, text, g.key, cause, 0})
}

// logEvents logs the events since its last call: one line for all registrations that the
// same happened to.
func (r *Registrar) logEvents() {
	r.mu.Lock()
	all, lease := r.events, r.lease
	r.events = nil
	r.mu.Unlock()
	for _, e := range all {
		args := []any{"key", e.key}
		if e.others > 0 {
			args = append(args, "andOthers", e.others)
		}
		if lease != 0 {
			args = append(args, "lease", leaseText(lease))
		}
		if e.cause != nil {
			args = append(args, "cause", e.cause)
		}
		r.Logger().Log(context.Background(), e.level, e.text, args...)
	}
}

// remind logs what etcd goes on refusing, from time to time.
func (r *Registrar) remind() {
	r.mu.Lock()
	for _, g := range r.regs {
		if g.state.Err != nil && !g.desired.removed && causeOf(g.state.Err) != causeConnection {
			r.noteLocked(slog.LevelWarn, "still not registered as it should be", g, g.state.Err)
		}
	}
	r.mu.Unlock()
	r.logEvents()
}

// causeConnection is the one cause of all failures of the connection, whose course the
// Directory logs.
const causeConnection = "connection"

// causeOf returns what distinguishes causes that an operator acts on in different ways.
func causeOf(err error) string {
	var etcd rpctypes.EtcdError
	switch {
	case errors.Is(err, ErrSuperseded):
		return ErrSuperseded.Error()
	case errors.Is(err, errNotRenewed), concernsAll(err) && !errors.Is(err, rpctypes.ErrTooManyRequests): // reads go on then
		return causeConnection
	case errors.As(err, &etcd):
		return etcd.Error()
	}
	if s, ok := status.FromError(err); ok { // its text has the key, and perhaps more
		return s.Code().String()
	}
	return err.Error()
}

// rememberOf remembers something of a deregistered key, for maxDeregistered keys at most: of more, any one is dropped.
func rememberOf[T any](all map[string]T, key string, value T) {
	for other := range all {
		if len(all) < maxDeregistered {
			break
		}
		delete(all, other)
	}
	all[key] = value
}

// finishLocked ends a registration. Its key may have another one already.
func (r *Registrar) finishLocked(g *Registration, err error) {
	if r.regs[g.key] == g {
		delete(r.regs, g.key)
	}
	if r.lease != 0 {
		rememberOf(r.deregistered, g.key, true)
	}
	if !g.observed.edited() {
		delete(r.edits, g.key)
	} else {
		rememberOf(r.edits, g.key, g.observed.values)
	}
	if g.desired.removed && g.observed.fresh && g.observed.state == keyAbsent && g.state.Phase != Closed {
		r.noteLocked(slog.LevelInfo, "deregistered", g, nil)
	}
	g.setLocked(Closed, err)
}

// concernsAll reports whether an error tells about the lease or the connection, rather
// than about one key.
func concernsAll(err error) bool {
	return errors.Is(err, rpctypes.ErrLeaseNotFound) || errors.Is(err, context.Canceled) || etcdkv.IsTemporary(err)
}

// explain adds what is known of the connection to an error that may come from it, such as
// a time-out.
func (r *Registrar) explain(err error) error {
	if errors.Is(err, rpctypes.ErrLeaseNotFound) || !concernsAll(err) && !errors.Is(err, errNotRenewed) {
		return err
	}
	if cause := r.directory.outage(); cause != nil {
		return fmt.Errorf("%w: %w", err, cause)
	}
	if errors.Is(err, context.DeadlineExceeded) && !errors.Is(err, ErrNoAnswer) {
		return fmt.Errorf("%w: %w", err, etcdkv.NoAnswer(r.client))
	}
	return err
}

func leaseText(lease clientv3.LeaseID) string { return fmt.Sprintf("%x", int64(lease)) }
