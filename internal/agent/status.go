// SPDX-FileCopyrightText: The Rollcall Authors
// SPDX-License-Identifier: Apache-2.0

package agent

import (
	"fmt"
	"time"

	"github.com/rollcall-grpc/rollcall/internal/plural"
)

// Status is what an agent does.
type Status struct {
	PID                   int        `json:"pid"`
	Heartbeat             time.Time  `json:"heartbeat"`          // when it last looked at its file and its checks, as it does each second
	Stopping              bool       `json:"stopping,omitempty"` // its endpoints drain, and are not listed any more
	File                  string     `json:"file"`
	Loaded                time.Time  `json:"loaded"`                          // when the file that is in force was read
	FileError             string     `json:"fileError,omitempty"`             // why the file as it is now is not in force
	SelfPreservationSince *time.Time `json:"selfPreservationSince,omitempty"` // since when all checks fail, so that nothing is taken out
	Endpoints             []Endpoint `json:"endpoints"`                       // in the file's order
}

// Healths of an endpoint.
const (
	Unchecked = "unchecked" // its checks have not passed yet
	Healthy   = "healthy"
	Failing   = "failing"   // its latest checks failed: not often enough to take it out, or self-preservation keeps it
	Unhealthy = "unhealthy" // it was taken out
)

// Endpoint is what an agent knows of an endpoint.
type Endpoint struct {
	Service      string    `json:"service"`
	ID           string    `json:"id"`
	Address      string    `json:"address"`
	Checks       []string  `json:"checks"`
	Health       string    `json:"health"`
	Since        time.Time `json:"since"`        // since when its checks pass or fail
	Registration string    `json:"registration"` // its phase, such as "registered"
	LastError    string    `json:"lastError,omitempty"`
}

// OK reports whether clients can call the endpoint.
func (e *Endpoint) OK() bool { return e.Health == Healthy && e.Registration == "registered" }

// OK reports whether all is as the file asks.
func (s *Status) OK() bool {
	for i := range s.Endpoints {
		if !s.Endpoints[i].OK() {
			return false
		}
	}
	return s.FileError == "" && !s.Stopping && s.SelfPreservationSince == nil
}

// Summary is the status in a line.
func (s *Status) Summary() string {
	ok := 0
	for i := range s.Endpoints {
		if s.Endpoints[i].OK() {
			ok++
		}
	}
	text := fmt.Sprintf("%d of %s healthy and registered", ok, plural.Count(len(s.Endpoints), "endpoint", "endpoints"))
	if s.SelfPreservationSince != nil {
		text += "; all checks fail: suspecting the network of the agent; self-preservation takes nothing out"
	}
	if s.FileError != "" {
		text += "; the file is not in force: " + s.FileError
	}
	return text
}
