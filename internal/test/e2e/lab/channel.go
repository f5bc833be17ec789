// SPDX-FileCopyrightText: The Rollcall Authors
// SPDX-License-Identifier: Apache-2.0

package lab

import (
	"slices"
	"sync"

	grpcresolver "google.golang.org/grpc/resolver"
	"google.golang.org/grpc/serviceconfig"
)

// Channel is a stand-in for a gRPC channel that records what its resolver reports.
type Channel struct {
	grpcresolver.ClientConn
	mu     sync.Mutex
	states []grpcresolver.State
	errs   []error
}

func (c *Channel) UpdateState(s grpcresolver.State) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.states = append(c.states, s)
	return nil
}

func (c *Channel) ReportError(err error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.errs = append(c.errs, err)
}

func (c *Channel) ParseServiceConfig(string) *serviceconfig.ParseResult {
	return &serviceconfig.ParseResult{}
}

func (c *Channel) Count() int {
	c.mu.Lock()
	defer c.mu.Unlock()
	return len(c.states)
}

// Last returns the latest endpoints of the channel.
func (c *Channel) Last() []grpcresolver.Endpoint {
	c.mu.Lock()
	defer c.mu.Unlock()
	if len(c.states) == 0 {
		return nil
	}
	return c.states[len(c.states)-1].Endpoints
}

// Addrs returns the latest addresses of the channel, sorted.
func (c *Channel) Addrs() []string {
	var all []string
	for _, ep := range c.Last() {
		for _, a := range ep.Addresses {
			all = append(all, a.Addr)
		}
	}
	slices.Sort(all)
	return all
}
