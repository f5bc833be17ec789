// SPDX-FileCopyrightText: The Rollcall Authors
// SPDX-License-Identifier: Apache-2.0

package etcdtest

import (
	"fmt"
	"runtime"
	"strings"
	"testing"
)

// record is a testing.TB that keeps what a failing test would print.
type record struct {
	testing.TB
	fatal   string
	logged  strings.Builder
	cleanup []func()
}

func (r *record) Helper()          {}
func (r *record) Failed() bool     { return r.fatal != "" }
func (r *record) Cleanup(f func()) { r.cleanup = append(r.cleanup, f) }

func (r *record) Logf(format string, args ...any) { fmt.Fprintf(&r.logged, format+"\n", args...) }

func (r *record) Fatalf(format string, args ...any) {
	r.fatal = fmt.Sprintf(format, args...)
	runtime.Goexit()
}

// run calls f as a test of its own, Cleanup included.
func (r *record) run(f func()) {
	ended := make(chan struct{})
	go func() { // Fatalf ends it
		defer close(ended)
		f()
	}()
	<-ended
	for i := len(r.cleanup) - 1; i >= 0; i-- {
		r.cleanup[i]()
	}
}
