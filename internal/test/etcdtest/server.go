// SPDX-FileCopyrightText: The Rollcall Authors
// SPDX-License-Identifier: Apache-2.0

package etcdtest

import (
	"os"
	"strings"
	"testing"
	"time"
)

// pauseTimeout is far more than a process needs to stop on a busy machine.
const pauseTimeout = 10 * time.Second

// Server is a process that a test starts, stops and pauses: that of a Member or of a
// Proxy. Its methods fail the test if they do not succeed.
type Server struct {
	tb   testing.TB
	name string
	host string // host:port for clients
	argv []string
	log  string

	proc   *process // nil before the first Start
	paused bool
}

// Name returns its name in errors and logs.
func (s *Server) Name() string { return s.name }

// Addr returns the host:port that clients dial. It stays the same.
func (s *Server) Addr() string { return s.host }

// Running reports whether the process exists; a paused one does.
func (s *Server) Running() bool { return s.proc != nil && s.proc.running() }

// Start runs the process and does not wait until it answers: see WaitReady of Cluster
// and Proxy.
func (s *Server) Start() {
	s.tb.Helper()
	s.mustNotRun("start")
	proc, err := startProcess(s.argv, s.log)
	if err != nil {
		s.tb.Fatalf("etcdtest: start %s: %v", s.name, err)
	}
	s.proc, s.paused = proc, false
}

// Stop asks the process to shut down and waits until it has.
func (s *Server) Stop() {
	s.tb.Helper()
	s.mustRun("stop")
	if !s.proc.stop() {
		s.tb.Errorf("etcdtest: %s did not stop within %v and was killed", s.name, stopTimeout)
	}
}

// Kill ends the process as kill -9 does.
func (s *Server) Kill() {
	s.tb.Helper()
	s.mustRun("kill")
	s.proc.kill()
}

// Pause stops the process from running; its connections stay open.
func (s *Server) Pause() {
	s.tb.Helper()
	s.mustRun("pause")
	if err := pause(s.proc.child); err != nil {
		s.tb.Fatalf("etcdtest: pause %s: %v", s.name, err)
	}
	for deadline := time.Now().Add(pauseTimeout); !isPaused(s.proc.child); time.Sleep(time.Millisecond) {
		if time.Now().After(deadline) {
			s.tb.Fatalf("etcdtest: pause %s: it still runs after %v", s.name, pauseTimeout)
		}
	}
	s.paused = true
}

// Resume undoes Pause.
func (s *Server) Resume() {
	s.tb.Helper()
	s.mustRun("resume")
	if err := resume(s.proc.child); err != nil {
		s.tb.Fatalf("etcdtest: resume %s: %v", s.name, err)
	}
	s.paused = false
}

func (s *Server) mustRun(verb string) {
	s.tb.Helper()
	if !s.Running() {
		s.tb.Fatalf("etcdtest: %s %s: it does not run", verb, s.name)
	}
}

func (s *Server) mustNotRun(verb string) {
	s.tb.Helper()
	if s.Running() {
		s.tb.Fatalf("etcdtest: %s %s: it runs", verb, s.name)
	}
}

// failed reports whether the process has ended by itself.
func (s *Server) failed() bool { return s.proc != nil && s.proc.failed() }

// end kills the process.
func (s *Server) end() {
	if s.proc != nil {
		s.proc.kill()
	}
}

// tellLog prints the last lines of the process if the test has failed.
func (s *Server) tellLog() {
	if s.tb.Failed() {
		s.tb.Logf("etcdtest: %s: %s", s.name, s.logTail())
	}
}

func (s *Server) logTail() string {
	b, err := os.ReadFile(s.log)
	if err != nil {
		return err.Error()
	}
	const keep = 30
	lines := strings.Split(strings.TrimRight(string(b), "\n"), "\n")
	lines = lines[max(0, len(lines)-keep):]
	return "last lines of its log:\n" + strings.Join(lines, "\n")
}
