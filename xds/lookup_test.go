// SPDX-FileCopyrightText: The Rollcall Authors
// SPDX-License-Identifier: Apache-2.0

package xds

import (
	"context"
	"fmt"
	"log/slog"
	"net/netip"
	"slices"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"
)

// follower returns a service that follows nothing but hosts.
func follower() *service {
	s := &service{server: &Server{log: func() *slog.Logger { return slog.New(slog.DiscardHandler) }}}
	s.newest = new(content)
	s.latest.Store(s.newest)
	return s
}

// A service that was closed follows no host, whatever is still delivered to it, and neither does
// any once the server was closed.
func TestFollowAfterClose(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var lookups atomic.Int32
		var h hosts
		h.open(func(ctx context.Context, host string) ([]netip.Addr, error) {
			lookups.Add(1)
			return []netip.Addr{netip.IPv6Loopback()}, nil
		})
		want := func(followed int, looked int32) {
			t.Helper()
			synctest.Wait()
			if n := lookups.Load(); len(h.all) != followed || n != looked {
				t.Errorf("%d hosts after %d lookups, want %d after %d", len(h.all), n, followed, looked)
			}
		}
		a, b := follower(), follower()
		h.follow(a, map[string]bool{"x": true})
		want(1, 1)
		h.follow(a, nil)
		h.follow(a, map[string]bool{"x": true})
		want(0, 1)
		h.follow(b, map[string]bool{"x": true})
		want(1, 2)
		h.close()
		h.follow(b, map[string]bool{"y": true})
		time.Sleep(time.Hour)
		want(0, 2)
	})
}

// Of many hosts only so many are looked up at once, and all in turn.
func TestLookupsAtOnce(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var mu sync.Mutex
		lookups, running, most := 0, 0, 0
		count := func(n int) {
			mu.Lock()
			defer mu.Unlock()
			lookups += max(n, 0)
			running += n
			most = max(most, running)
		}
		var h hosts
		h.open(func(ctx context.Context, host string) ([]netip.Addr, error) {
			count(1)
			defer count(-1)
			<-ctx.Done()
			return nil, ctx.Err()
		})
		names := make(map[string]bool)
		for i := range 3 * lookupsAtOnce {
			names[fmt.Sprint(i)] = true
		}
		h.follow(follower(), names)
		time.Sleep(3*lookupTimeout - time.Second)
		h.close()
		if lookups != len(names) || most != lookupsAtOnce {
			t.Errorf("%d lookups of %d hosts, %d at once, want %d", lookups, len(names), most, lookupsAtOnce)
		}
	})
}

// What a resolver returned stays its own.
func TestLookUpCopies(t *testing.T) {
	answer := []netip.Addr{netip.MustParseAddr("10.0.0.2"), netip.MustParseAddr("::ffff:10.0.0.1"), netip.MustParseAddr("10.0.0.1")}
	before := slices.Clone(answer)
	got, err := lookUp(t.Context(), func(context.Context, string) ([]netip.Addr, error) { return answer, nil }, "x")
	if want := []netip.Addr{before[2], before[0]}; err != nil || !slices.Equal(got, want) {
		t.Errorf("addresses %v, %v, want %v", got, err, want)
	}
	if !slices.Equal(answer, before) {
		t.Errorf("the resolver's own answer is now %v, was %v", answer, before)
	}
}
