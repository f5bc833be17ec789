// SPDX-FileCopyrightText: The Rollcall Authors
// SPDX-License-Identifier: Apache-2.0

package rollcall

import (
	"context"
	"errors"
	"log/slog"

	"go.etcd.io/etcd/api/v3/mvccpb"
	"go.etcd.io/etcd/api/v3/v3rpc/rpctypes"

	"github.com/rollcall-grpc/rollcall/internal/backoff"
)

// confirmedLocked records that the key has the value that the program wanted at some time.
func (r *Registrar) confirmedLocked(g *Registration, kv *mvccpb.KeyValue, wanted []byte) {
	again := g.observed.claimed
	g.observed.confirm(kv, wanted)
	if g.watch != nil {
		g.watch.unseen[g] = true
	}
	if pending(g.desired, &g.observed) { // set anew meanwhile
		g.dirty = true
		backoff.Wake(r.wake)
	}
	if g.state.Err != nil {
		r.cleared[causeOf(g.state.Err)] = true
	}
	phase := g.observed.phase()
	switch {
	case !again:
		r.noteLocked(levelInfo, "registered", g, nil)
	case g.state.Phase == Lost:
		r.noteLocked(levelInfo, "registered again", g, nil)
	case g.state.Phase != phase && phase == Draining:
		r.noteLocked(levelInfo, "registration is draining", g, nil)
	case g.state.Phase != phase:
		r.noteLocked(levelInfo, "registration is serving", g, nil)
	case g.state.Err != nil:
		r.noteLocked(levelInfo, "registration written", g, nil)
	}
	g.setLocked(phase, nil)
}

// missingLocked records that the endpoint is not in etcd, for now.
func (r *Registrar) missingLocked(g *Registration, err error) {
	switch {
	case g.state.Phase == Registered, g.state.Phase == Draining:
		r.noteLocked(levelWarn, "registration lost", g, err)
	case g.state.Err == nil, causeOf(g.state.Err) != causeOf(err):
		r.noteLocked(levelWarn, "not registered", g, err)
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
	if g.state.Err == nil || causeOf(g.state.Err) != causeOf(err) {
		text := "registration cannot be written; it stays as it was"
		if g.desired.removed {
			text = "cannot deregister yet"
		}
		r.noteLocked(levelWarn, text, g, err)
	}
	g.setLocked(phase, err)
}

// event is what happened to a registration.
type event struct {
	level slog.Level
	text  string
	key   string
	cause error
}

const (
	levelInfo = slog.LevelInfo
	levelWarn = slog.LevelWarn
)

// noteLocked records an event for logEvents.
func (r *Registrar) noteLocked(level slog.Level, text string, g *Registration, cause error) {
	r.events = append(r.events, event{level, text, g.key, cause})
}

// logEvents logs the events since its last call: one line for all registrations that the
// same happened to.
func (r *Registrar) logEvents() {
	r.mu.Lock()
	all, lease := r.events, r.lease
	r.events = nil
	r.mu.Unlock()
	first := make(map[string]event)
	count := make(map[string]int)
	var texts []string
	for _, e := range all {
		if count[e.text]++; count[e.text] == 1 {
			first[e.text] = e
			texts = append(texts, e.text)
		}
	}
	for _, text := range texts {
		e := first[text]
		args := []any{"key", e.key}
		if more := count[text] - 1; more > 0 {
			args = append(args, "andOthers", more)
		}
		if lease != 0 {
			args = append(args, "lease", leaseText(lease))
		}
		if e.cause != nil {
			args = append(args, "cause", e.cause)
		}
		r.logger().Log(context.Background(), e.level, text, args...)
	}
}

// remind logs what etcd goes on refusing, from time to time.
func (r *Registrar) remind() {
	r.mu.Lock()
	for _, g := range r.regs {
		if g.state.Err != nil && !g.desired.removed && causeOf(g.state.Err) != "connection" {
			r.noteLocked(levelWarn, "still not registered as it should be", g, g.state.Err)
		}
	}
	r.mu.Unlock()
	r.logEvents()
}

// causeOf returns what distinguishes causes that an operator acts on in different ways. All
// failures of the connection are one cause, whose course the Directory logs.
func causeOf(err error) string {
	var etcd rpctypes.EtcdError
	switch {
	case errors.Is(err, ErrSuperseded):
		return ErrSuperseded.Error()
	case errors.Is(err, errNotRenewed), concernsAll(err):
		return "connection"
	case errors.As(err, &etcd):
		return etcd.Error()
	}
	return err.Error()
}
