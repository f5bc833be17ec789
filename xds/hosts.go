// SPDX-FileCopyrightText: The Rollcall Authors
// SPDX-License-Identifier: Apache-2.0

package xds

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"slices"
	"sync"
	"time"

	"github.com/rollcall-grpc/rollcall/internal/backoff"
)

const (
	lookupTimeout = 5 * time.Second
	lookupPeriod  = 30 * time.Second // between lookups of a host, on average
	lookupsAtOnce = 64
)

// resolver returns the addresses of a host.
type resolver func(ctx context.Context, host string) ([]netip.Addr, error)

// unresolved is why there are no addresses of a host. Its text is the same on all replicas and at
// all times, since clients are sent it, which the cause's is not: it may have a local port in it.
type unresolved struct {
	host  string
	cause error
}

func (e *unresolved) Error() string {
	if dns := (*net.DNSError)(nil); errors.As(e.cause, &dns) && dns.IsNotFound {
		return fmt.Sprintf("there is no host named %q", e.host)
	}
	return fmt.Sprintf("the host name %q cannot be resolved", e.host)
}

func (e *unresolved) Unwrap() error { return e.cause }

// lookUp returns the addresses of a host, one at least, in an order that is the same for all, or
// an *unresolved.
func lookUp(ctx context.Context, resolve resolver, host string) ([]netip.Addr, error) {
	ctx, cancel := context.WithTimeout(ctx, lookupTimeout)
	defer cancel()
	addrs, err := resolve(ctx, host)
	if err == nil && len(addrs) == 0 {
		err = &net.DNSError{Err: "no address", Name: host, IsNotFound: true}
	}
	if err != nil {
		return nil, &unresolved{host, err}
	}
	addrs = slices.Clone(addrs) // which a resolver may go on to use
	for i := range addrs {
		addrs[i] = addrs[i].Unmap()
	}
	slices.SortFunc(addrs, netip.Addr.Compare) // IPv4 before IPv6
	return slices.Compact(addrs), nil
}

// hosts resolves the host names among addresses, since clients take nothing but IP addresses. It
// asks again while a service has the host, and keeps the last answer where that fails.
type hosts struct {
	resolve resolver
	slots   chan struct{} // one for each lookup that is under way

	mu   sync.Mutex
	all  map[string]*host // nil once closed
	done sync.WaitGroup
}

// host is one that is being followed.
type host struct {
	stop  context.CancelFunc
	users map[*service]bool
	addrs []netip.Addr // IPv4 first; the last that were found
	err   error        // why there are none: errResolving at first
}

// open prepares for hosts to be followed.
func (h *hosts) open(resolve resolver) {
	h.resolve, h.slots, h.all = resolve, make(chan struct{}, lookupsAtOnce), make(map[string]*host)
}

// close ends all lookups, and waits for them.
func (h *hosts) close() {
	h.mu.Lock()
	for _, is := range h.all {
		is.stop()
	}
	h.all = nil
	h.mu.Unlock()
	h.done.Wait()
}

// follow has a service told when the addresses of some hosts change, and of no others. After nil
// it is told of none, whatever else is asked for: a delivery may be under way while it is closed.
func (h *hosts) follow(s *service, names map[string]bool) {
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.all == nil || s.unfollowed {
		return
	}
	s.unfollowed = names == nil
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
		select {
		case h.slots <- struct{}{}:
		case <-ctx.Done():
			return
		}
		addrs, err := lookUp(ctx, h.resolve, name)
		<-h.slots
		h.learn(ctx, name, is, addrs, err)
		_ = backoff.Sleep(ctx, lookupPeriod/2+backoff.Jitter(lookupPeriod), nil)
	}
}

// learn takes in the answer to a lookup, and tells the services of a change.
func (h *hosts) learn(ctx context.Context, name string, is *host, addrs []netip.Addr, err error) {
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
	for i, s := range told {
		if i == 0 && err != nil {
			s.server.log().Debug("host name not resolved; its endpoints are left out", "host", name, "cause", errors.Unwrap(err))
		}
		s.change(func(*content) {})
	}
}

func (is *host) usersLocked() (users []*service) {
	for s := range is.users {
		users = append(users, s)
	}
	return users
}
