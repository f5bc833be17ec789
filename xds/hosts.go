// SPDX-FileCopyrightText: The Rollcall Authors
// SPDX-License-Identifier: Apache-2.0

package xds

import (
	"context"
	"errors"
	"net/netip"
	"slices"
	"sync"
	"time"

	"github.com/rollcall-grpc/rollcall/internal/backoff"
)

const (
	lookupTimeout = 5 * time.Second
	lookupPeriod  = 30 * time.Second // between lookups of a host, on average
)

// resolver returns the addresses of a host.
type resolver func(ctx context.Context, host string) ([]netip.Addr, error)

// lookUp returns the addresses of a host, one at least, in an order that is the same for all.
func lookUp(ctx context.Context, resolve resolver, host string) ([]netip.Addr, error) {
	ctx, cancel := context.WithTimeout(ctx, lookupTimeout)
	defer cancel()
	addrs, err := resolve(ctx, host)
	if err == nil && len(addrs) == 0 {
		err = errors.New("the host has no address")
	}
	for i := range addrs {
		addrs[i] = addrs[i].Unmap()
	}
	slices.SortFunc(addrs, netip.Addr.Compare) // IPv4 before IPv6
	return slices.Compact(addrs), err
}

// hosts resolves the host names among addresses, since clients take nothing but IP addresses. It
// asks again while a service has the host, and keeps the last answer where that fails.
type hosts struct {
	resolve resolver

	mu   sync.Mutex
	all  map[string]*host
	done sync.WaitGroup
}

// host is one that is being followed.
type host struct {
	stop  context.CancelFunc
	users map[*service]bool
	addrs []netip.Addr // IPv4 first; the last that were found
	err   error        // why there are none: errResolving at first
}

// follow has a service told when the addresses of some hosts change, and of no others.
func (h *hosts) follow(s *service, names map[string]bool) {
	h.mu.Lock()
	defer h.mu.Unlock()
	for name, is := range h.all {
		if is.users[s] && !names[name] {
			if delete(is.users, s); len(is.users) == 0 {
				is.stop()
				delete(h.all, name)
			}
		}
	}
	for name := range names {
		is := h.all[name]
		if is == nil {
			ctx, stop := context.WithCancel(context.Background())
			is = &host{stop: stop, users: make(map[*service]bool), err: errResolving}
			h.all[name] = is
			h.done.Go(func() { h.refresh(ctx, name, is) })
		}
		is.users[s] = true
	}
}

// lookup returns the addresses of a host that is followed.
func (h *hosts) lookup(name string) ([]netip.Addr, error) {
	h.mu.Lock()
	defer h.mu.Unlock()
	if is := h.all[name]; is != nil {
		return is.addrs, is.err
	}
	return nil, errResolving
}

// refresh looks a host up until the context ends.
func (h *hosts) refresh(ctx context.Context, name string, is *host) {
	for ctx.Err() == nil {
		addrs, err := lookUp(ctx, h.resolve, name)
		h.learn(ctx, is, addrs, err)
		_ = backoff.Sleep(ctx, lookupPeriod/2+backoff.Jitter(lookupPeriod), nil)
	}
}

// learn takes in the answer to a lookup, and tells the services of a change.
func (h *hosts) learn(ctx context.Context, is *host, addrs []netip.Addr, err error) {
	h.mu.Lock()
	var told []*service
	switch {
	case ctx.Err() != nil, err != nil && is.err == nil: // keep the last answer
	case err != nil:
		if is.err.Error() != err.Error() {
			is.err = err
			told = is.usersLocked()
		}
	case !slices.Equal(addrs, is.addrs):
		is.addrs, is.err = addrs, nil
		told = is.usersLocked()
	}
	h.mu.Unlock()
	for _, s := range told {
		s.change(func(*content) {})
	}
}

func (is *host) usersLocked() (users []*service) {
	for s := range is.users {
		users = append(users, s)
	}
	return users
}
