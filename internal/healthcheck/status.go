// SPDX-FileCopyrightText: The Rollcall Authors
// SPDX-License-Identifier: Apache-2.0

package healthcheck

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"strconv"
	"strings"
	"time"

	"github.com/rollcall-grpc/rollcall"
)

// Kind is what has happened to an endpoint.
type Kind int

const (
	Waiting     Kind = iota + 1 // its checks fail, and it is not registered yet
	Registering                 // its checks pass for the first time
	Leaving                     // its checks have failed often enough: it drains
	Damped                      // its checks pass, but it went out too often to return at once
	Returning                   // its checks pass again
	FailedOpen                  // its checks have failed often enough, but Options.FailOpen keeps it
	Recovered                   // its checks pass again after FailedOpen
)

// Event is a change of an endpoint.
type Event struct {
	Kind  Kind
	Key   string
	Cause error     // why its checks fail; nil where they pass
	Until time.Time // Damped: when it may return
}

// message returns the text of an event, and its level.
func (k Kind) message() (level slog.Level, text string) {
	switch k {
	case Waiting:
		return slog.LevelInfo, "endpoint is not registered until its checks pass"
	case Registering:
		return slog.LevelInfo, "endpoint is healthy; registering it"
	case Leaving:
		return slog.LevelWarn, "endpoint is unhealthy; draining it"
	case Damped:
		return slog.LevelInfo, "endpoint is healthy, but failed too often lately; its return is delayed"
	case Returning:
		return slog.LevelInfo, "endpoint is healthy again; undraining it"
	case FailedOpen:
		return slog.LevelDebug, "endpoint is unhealthy; self-preservation keeps it"
	}
	return slog.LevelDebug, "endpoint is healthy again; self-preservation kept it"
}

// Log logs the event.
func (e Event) Log(log *slog.Logger) {
	args := []any{"key", e.Key}
	if e.Cause != nil {
		args = append(args, "cause", e.Cause)
	}
	if e.Kind == Damped {
		args = append(args, "until", e.Until)
	}
	level, text := e.Kind.message()
	log.Log(context.Background(), level, text, args...)
}

// String returns the event as a sentence, for a terminal.
func (e Event) String() string {
	_, text := e.Kind.message()
	text = strconv.Quote(e.Key) + strings.TrimPrefix(text, "endpoint")
	if e.Kind == Damped {
		text += " until " + e.Until.Format(time.TimeOnly)
	}
	if e.Cause != nil {
		text += ": " + e.Cause.Error()
	}
	return text
}

// Status is what is known of an endpoint.
type Status struct {
	Healthy bool           // by its checks, with fall and rise
	Err     error          // why the last run of its checks failed
	Since   time.Time      // since when they have passed or failed; zero: not run yet
	Passed  time.Time      // when the last run in which they passed began; zero: never
	State   rollcall.State // in etcd; the zero value until it has been healthy
}

// Status returns what is known of the endpoint at this moment.
func (e *Endpoint) Status() Status {
	e.mu.Lock()
	s := Status{Healthy: e.healthy, Err: e.err, Since: e.since, Passed: e.passed}
	reg := e.reg
	e.mu.Unlock()
	if reg != nil {
		s.State, _ = reg.State()
	}
	return s
}

// Unready returns why the endpoint gets no calls, nil if it does. Once it has been registered, an
// outage of etcd changes nothing: clients can still call it. Of a check it names the kind alone.
func (s Status) Unready() error {
	switch {
	case s.State.Phase == rollcall.Closed:
		return errors.New("it has been removed")
	case s.State.Draining && !s.Healthy && s.Err != nil:
		return fmt.Errorf("draining: %w", public(s.Err))
	case s.State.Draining:
		return errors.New("draining")
	case errors.Is(s.State.Err, rollcall.ErrSuperseded):
		return s.State.Err
	case s.State.Phase == rollcall.Registering && s.Err != nil:
		return public(s.Err)
	case s.State.Phase == rollcall.Registering && s.State.Err != nil:
		return s.State.Err
	case s.State.Phase == rollcall.Registering:
		return errors.New("not registered yet")
	}
	return nil
}

// Drain has clients send no new calls, once Run has returned. It returns when etcd has the mark, with
// what clients then have left of the time that they are given to move: all of it, or less where the
// endpoint was draining already, or nothing where it was not in etcd.
func (e *Endpoint) Drain(ctx context.Context, given time.Duration) (left time.Duration, err error) {
	was := e.Status().State
	switch {
	case was.Phase == rollcall.Registering, errors.Is(was.Err, rollcall.ErrSuperseded):
		return 0, nil
	case was.Phase == rollcall.Draining:
		given = max(0, given-time.Since(was.Since))
	}
	if err := e.registration().Drain(ctx); err != nil {
		return 0, err
	}
	return given, nil
}

// Close begins to remove the endpoint from etcd, once Run has returned; the Registrar goes on until
// that is done.
func (e *Endpoint) Close() {
	if reg := e.registration(); reg != nil {
		reg.Close()
	}
}

// Remove removes the endpoint from etcd, once Run has returned, and waits for that.
func (e *Endpoint) Remove(ctx context.Context) error {
	if reg := e.registration(); reg != nil {
		return reg.Shutdown(ctx)
	}
	return nil
}
