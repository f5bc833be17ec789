// SPDX-FileCopyrightText: The Rollcall Authors
// SPDX-License-Identifier: Apache-2.0

package lab

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"sync"
	"testing"

	clientv3 "go.etcd.io/etcd/client/v3"

	"github.com/rollcall-grpc/rollcall"
)

// Follower records every snapshot of a service.
type Follower struct {
	t         *testing.T
	Directory *rollcall.Directory
	Sub       *rollcall.Subscription

	mu     sync.Mutex
	seen   []*rollcall.Snapshot
	errs   []error
	change chan struct{}
}

// Follow subscribes by a new Directory and records until the test ends. A revision that goes
// backwards within an epoch fails the test.
func Follow(t *testing.T, client *clientv3.Client, service string) *Follower {
	t.Helper()
	return FollowPrefix(t, client, service+"/")
}

// FollowPrefix is Follow for every key that starts with prefix.
func FollowPrefix(t *testing.T, client *clientv3.Client, prefix string) *Follower {
	t.Helper()
	return FollowWith(t, client, prefix, rollcall.DirectoryOptions{})
}

// FollowWith is FollowPrefix with a Directory of these options.
func FollowWith(t *testing.T, client *clientv3.Client, prefix string, opts rollcall.DirectoryOptions) *Follower {
	t.Helper()
	d, err := rollcall.NewDirectory(client, opts)
	if err != nil {
		t.Fatal(err)
	}
	sub, err := d.SubscribePrefix(prefix)
	if err != nil {
		t.Fatal(err)
	}
	f := &Follower{t: t, Directory: d, Sub: sub, change: make(chan struct{})}
	ctx, cancel := context.WithCancel(context.Background())
	var wg sync.WaitGroup
	wg.Go(func() { f.record(ctx) })
	t.Cleanup(func() {
		cancel()
		wg.Wait()
		d.Close()
	})
	if tr := truthOf(t); tr != nil {
		tr.expect(func() error { return tr.checkSnapshots(f.seen) })
	}
	return f
}

func (f *Follower) record(ctx context.Context) {
	var last *rollcall.Snapshot
	for reported := ""; ; {
		select {
		case <-f.Sub.Changed():
		case <-ctx.Done():
			return
		}
		snap, err := f.Sub.Latest(), f.Sub.Err()
		f.mu.Lock()
		if snap != nil && snap != last {
			f.seen = append(f.seen, snap)
			if last != nil && snap.Epoch() == last.Epoch() && snap.Revision() < last.Revision() {
				f.t.Errorf("revision went back from %d to %d", last.Revision(), snap.Revision())
			}
			last = snap
		} else if err != nil && err.Error() != reported {
			f.errs, reported = append(f.errs, err), err.Error()
		}
		close(f.change)
		f.change = make(chan struct{})
		f.mu.Unlock()
	}
}

// Until waits until the snapshots recorded so far satisfy a condition.
func (f *Follower) Until(what string, met func(seen []*rollcall.Snapshot) bool) {
	f.t.Helper()
	ctx := Context(f.t)
	for {
		f.mu.Lock()
		seen, change := slices.Clone(f.seen), f.change
		errs := len(f.errs)
		f.mu.Unlock()
		if met(seen) {
			return
		}
		select {
		case <-change:
		case <-ctx.Done():
			state := "none"
			if len(seen) > 0 {
				state = fmt.Sprintf("%v, stale: %v", IDs(seen[len(seen)-1]), seen[len(seen)-1].Staleness())
			}
			f.t.Fatalf("no snapshot %s; %d seen, %d errors, the last: %s", what, len(seen), errs, state)
		}
	}
}

// Holds waits until the snapshot is live and has exactly these ids.
func (f *Follower) Holds(want ...string) *rollcall.Snapshot {
	f.t.Helper()
	slices.Sort(want)
	var snap *rollcall.Snapshot
	f.Until(fmt.Sprintf("live with %v", want), func(seen []*rollcall.Snapshot) bool {
		if len(seen) == 0 {
			return false
		}
		snap = seen[len(seen)-1]
		return snap.Staleness() == nil && slices.Equal(IDs(snap), want)
	})
	return snap
}

// GoesStale waits until the snapshot is stale and returns its Staleness.
func (f *Follower) GoesStale() *rollcall.Staleness {
	f.t.Helper()
	var mark *rollcall.Staleness
	f.Until("stale", func(seen []*rollcall.Snapshot) bool {
		if len(seen) > 0 {
			mark = seen[len(seen)-1].Staleness()
		}
		return mark != nil
	})
	return mark
}

// Since returns the snapshots recorded after the first n.
func (f *Follower) Since(n int) []*rollcall.Snapshot {
	f.mu.Lock()
	defer f.mu.Unlock()
	return slices.Clone(f.seen[n:])
}

// Errors returns the recorded errors before the first snapshot.
func (f *Follower) Errors() []error {
	f.mu.Lock()
	defer f.mu.Unlock()
	return slices.Clone(f.errs)
}

func (f *Follower) Count() int { return len(f.Since(0)) }

// IDs returns the ids of the instances, sorted by key.
func IDs(snap *rollcall.Snapshot) []string {
	all := []string{}
	for inst := range snap.All() {
		all = append(all, strings.TrimPrefix(inst.Key, snap.Prefix()))
	}
	return all
}

// Contents returns the distinct contents of snapshots in order, ignoring staleness.
func Contents(seen []*rollcall.Snapshot) []string {
	var all []string
	for _, snap := range seen {
		all = append(all, strings.Join(IDs(snap), " "))
	}
	return slices.Compact(all)
}

// Fails waits until the reason why there is no snapshot yet contains text.
func (f *Follower) Fails(text string) {
	f.t.Helper()
	ctx := Context(f.t)
	for {
		f.mu.Lock()
		errs, change := slices.Clone(f.errs), f.change
		f.mu.Unlock()
		if slices.ContainsFunc(errs, func(err error) bool { return strings.Contains(err.Error(), text) }) {
			return
		}
		select {
		case <-change:
		case <-ctx.Done():
			f.t.Fatalf("no error with %q: %v", text, errs)
		}
	}
}
