// SPDX-FileCopyrightText: The Rollcall Authors
// SPDX-License-Identifier: Apache-2.0

package lab

import (
	"os"
	"strings"
	"testing"
	"time"

	"github.com/rollcall-grpc/rollcall/internal/test/etcdtest"
)

// peerPatience bounds the check of a fault on etcd's package.
const peerPatience = 60 * time.Second

// Size returns the size of a test: that of the catalogue if the table is made, else a small one.
func Size(full, small int) int {
	if measuring() {
		return full
	}
	return small
}

// measuring reports whether the table of faults is being made, on an otherwise idle machine: bounds
// are asserted, and etcd's package is checked as well.
func measuring() bool { return os.Getenv("ROLLCALL_FAULTS") != "" }

// Compare runs a row of the catalogue of faults on Rollcall and, if the table is made, on etcd's
// package, each with its own etcd.
func Compare(t *testing.T, opts etcdtest.Options, check func(e *Env)) {
	t.Helper()
	t.Run("rollcall", func(t *testing.T) { check(NewEnv(t, Rollcall, Start(t, opts), "svc")) })
	if !measuring() {
		return
	}
	t.Run("etcd", func(t *testing.T) {
		failure := NewEnv(t, Etcd, etcdtest.New(t, opts), "svc").Grade(peerPatience, check)
		if failure != "" {
			t.Logf("verdict: %s", strings.Join(strings.Fields(failure), " "))
		}
	})
}

// Proxied runs a row on Rollcall whose clients reach etcd through its grpc-proxy.
func Proxied(t *testing.T, opts etcdtest.Options, check func(e *Env)) {
	t.Helper()
	e := NewEnv(t, Rollcall, Start(t, opts), "svc")
	e.Reach = []string{etcdtest.StartProxy(t, e.Etcd.Endpoints()...).Addr()}
	check(e)
}

// Within notes a duration for the table of faults. If the table is made, it fails the test at more
// than three times the bound.
func Within(t *testing.T, what string, since time.Time, bound time.Duration) {
	t.Helper()
	if took := note(t, what, since, bound); took > 3*bound && measuring() {
		t.Errorf("%s: took %v, the bound is %v", what, took, bound)
	}
}

// Within is the function Within for a check.
func (e *Env) Within(what string, since time.Time, bound time.Duration) {
	e.T.Helper()
	if took := note(e.T, what, since, bound); took > 3*bound && measuring() {
		e.Failf("%s: took %v, the bound is %v", what, took, bound)
	}
}

func note(t *testing.T, what string, since time.Time, bound time.Duration) time.Duration {
	t.Helper()
	took := time.Since(since)
	Note(t, "%s: %v, bound %v", what, took.Round(time.Millisecond), bound)
	return took
}

// Note records a figure for the table of faults.
func Note(t *testing.T, format string, args ...any) {
	t.Helper()
	t.Logf("measured: "+format, args...)
}
