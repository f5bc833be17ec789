// SPDX-FileCopyrightText: The Rollcall Authors
// SPDX-License-Identifier: Apache-2.0

package healthcheck

import "context"

// With returns an Endpoint with other Options that goes on where e has ended, once Run has returned:
// with its registration, if it has one, and with what its checks have found. Registrar, Service and
// the endpoint's ID and Addr must be the same. New metadata is written as soon as etcd can be reached.
func (e *Endpoint) With(opts Options) (*Endpoint, error) {
	next, err := New(opts)
	if err != nil {
		return nil, err
	}
	e.mu.Lock()
	defer e.mu.Unlock()
	next.health, next.reported, next.told = e.health, e.reported, e.told
	next.health.fall, next.health.rise = next.opts.Fall, next.opts.Rise
	next.err, next.healthy, next.since, next.passed = e.err, e.healthy, e.since, e.passed
	if e.reg == nil {
		return next, nil
	}
	next.reg = e.reg
	close(next.begun)
	return next, begin(func(ctx context.Context) error { return next.reg.Update(ctx, opts.Endpoint.Metadata) })
}
