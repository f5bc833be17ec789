// SPDX-FileCopyrightText: The Rollcall Authors
// SPDX-License-Identifier: Apache-2.0

package serving

import (
	"fmt"
	"net/http"
	"strings"

	"github.com/rollcall-grpc/rollcall"
)

// Readiness returns a handler for readiness probes. It answers 200 once every service has
// been registered, and 503 with a line that gives the reason before that, while the server or one
// of its registrations is draining, and after it has left.
//
// An outage of etcd, or the loss of a lease, does not make a server unready: its clients keep
// calling it, and taking all replicas out of service at once would make the outage worse. Do
// not use the handler as a liveness probe.
func (s *Server) Readiness() http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		if why := s.unready(); why != "" {
			http.Error(w, "not ready: "+strings.ReplaceAll(why, "\n", "; "), http.StatusServiceUnavailable)
			return
		}
		w.Header().Set("Content-Type", "text/plain; charset=utf-8")
		fmt.Fprintln(w, "ready")
	})
}

// unready returns why the server is not ready, "" where it is.
func (s *Server) unready() string {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.idle != "" {
		return s.idle
	}
	waiting := s.registeredLocked()
	for _, g := range s.regs {
		switch state, _ := g.State(); {
		case state.Phase == rollcall.Closed:
			return fmt.Sprintf("the registration of %q is closed", g.Key())
		case state.Draining:
			return fmt.Sprintf("%q is draining", g.Key())
		}
	}
	return waiting
}

// registeredLocked records whether all registrations have been in etcd, and returns why not.
// It stays so: what is registered anew while etcd is away serves as well as before.
func (s *Server) registeredLocked() (waiting string) {
	if s.registered || s.regs == nil {
		return ""
	}
	for _, g := range s.regs {
		switch state, _ := g.State(); {
		case state.Phase != rollcall.Registering && state.Phase != rollcall.Closed:
		case state.Err != nil:
			return fmt.Sprintf("%q is not registered yet: %v", g.Key(), state.Err)
		default:
			return fmt.Sprintf("%q is not registered yet", g.Key())
		}
	}
	s.registered = true
	return ""
}
