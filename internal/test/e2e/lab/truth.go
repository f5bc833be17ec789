// SPDX-FileCopyrightText: The Rollcall Authors
// SPDX-License-Identifier: Apache-2.0

package lab

import (
	"context"
	"fmt"
	"maps"
	"strings"
	"sync"
	"testing"
	"time"

	clientv3 "go.etcd.io/etcd/client/v3"

	"github.com/rollcall-grpc/rollcall"
	"github.com/rollcall-grpc/rollcall/internal/test/etcdtest"
)

// Start starts an etcd and records all its events. When the test ends, the records of its followers
// and watchers are checked against the events, by etcd's guarantees for a watch: events are in
// order and complete, none comes twice, and transactions are never split.
func Start(t *testing.T, opts etcdtest.Options) *etcdtest.Cluster {
	t.Helper()
	etcd := etcdtest.New(t, opts)
	Record(t, etcd)
	return etcd
}

// truth has the events of an etcd, from the first revision on until its watch broke, if it did: the
// data were wiped or compacted, or authentication was turned on.
type truth struct {
	name string // of the test

	mu     sync.Mutex
	events []*clientv3.Event
	broken bool
	checks []func() error
}

var truths struct {
	mu  sync.Mutex
	all map[string]*truth // by name of test
}

// Record records an etcd, as Start does, that is already running.
func Record(t *testing.T, etcd *etcdtest.Cluster) {
	tr := &truth{name: t.Name()}
	client := etcd.Client(t)
	ctx, cancel := context.WithCancel(context.Background())
	var wg sync.WaitGroup
	opened := make(chan struct{})
	wg.Go(func() { tr.watch(ctx, client, opened) })
	<-opened
	truths.mu.Lock()
	defer truths.mu.Unlock()
	if truths.all == nil {
		truths.all = make(map[string]*truth)
	}
	truths.all[tr.name] = tr
	t.Cleanup(func() {
		tr.catchUp(client)
		cancel()
		wg.Wait()
		truths.mu.Lock()
		delete(truths.all, tr.name)
		truths.mu.Unlock()
		tr.validate(t)
	})
}

// truthOf returns the truth of a test or of the test that contains it, or nil.
func truthOf(t *testing.T) *truth {
	truths.mu.Lock()
	defer truths.mu.Unlock()
	for name := t.Name(); name != ""; name = name[:max(strings.LastIndexByte(name, '/'), 0)] {
		if tr := truths.all[name]; tr != nil {
			return tr
		}
	}
	return nil
}

func (tr *truth) watch(ctx context.Context, client *clientv3.Client, opened chan<- struct{}) {
	events := client.Watch(ctx, "\x00", clientv3.WithFromKey(), clientv3.WithRev(2), clientv3.WithCreatedNotify())
	close(opened) // the watch is created: all later events arrive
	for resp := range events {
		tr.mu.Lock()
		tr.events = append(tr.events, resp.Events...)
		tr.broken = tr.broken || resp.Err() != nil && ctx.Err() == nil
		tr.mu.Unlock()
	}
}

// catchUp waits until the present revision is recorded. If that fails, or the revision is of another
// epoch, the watch counts as broken.
func (tr *truth) catchUp(client *clientv3.Client) {
	ctx, cancel := context.WithTimeout(context.Background(), 2*time.Second)
	defer cancel()
	resp, err := client.Get(ctx, "revision")
	for err == nil && tr.revision() < resp.Header.Revision && ctx.Err() == nil {
		time.Sleep(10 * time.Millisecond)
	}
	tr.mu.Lock()
	defer tr.mu.Unlock()
	tr.broken = tr.broken || err != nil || tr.revisionLocked() != resp.Header.Revision
}

func (tr *truth) revision() int64 {
	tr.mu.Lock()
	defer tr.mu.Unlock()
	return tr.revisionLocked()
}

func (tr *truth) revisionLocked() int64 {
	if len(tr.events) == 0 {
		return 1
	}
	return tr.events[len(tr.events)-1].Kv.ModRevision
}

// expect adds a check, to be made when everything is recorded.
func (tr *truth) expect(check func() error) {
	if tr == nil {
		return
	}
	tr.mu.Lock()
	defer tr.mu.Unlock()
	tr.checks = append(tr.checks, check)
}

func (tr *truth) validate(t *testing.T) {
	for i := 1; i < len(tr.events); i++ {
		if tr.events[i].Kv.ModRevision < tr.events[i-1].Kv.ModRevision {
			t.Errorf("etcd's own watch went back from revision %d to %d", tr.events[i-1].Kv.ModRevision, tr.events[i].Kv.ModRevision)
		}
	}
	for _, check := range tr.checks {
		if err := check(); err != nil {
			t.Errorf("against etcd's guarantees: %v", err)
		}
	}
}

// replay is the content of a prefix at a revision.
type replay struct {
	tr       *truth
	prefix   string
	rest     []*clientv3.Event
	revision int64
	content  map[string]*clientv3.Event
}

func (tr *truth) replay(prefix string) *replay {
	return &replay{tr: tr, prefix: prefix, rest: tr.events, revision: 1, content: make(map[string]*clientv3.Event)}
}

// step advances to the next revision. It returns false at the end.
func (r *replay) step() bool {
	if len(r.rest) == 0 {
		return false
	}
	for r.revision = r.rest[0].Kv.ModRevision; len(r.rest) > 0 && r.rest[0].Kv.ModRevision == r.revision; r.rest = r.rest[1:] {
		ev := r.rest[0]
		switch key := string(ev.Kv.Key); {
		case !strings.HasPrefix(key, r.prefix):
		case ev.Type == clientv3.EventTypeDelete:
			delete(r.content, key)
		default:
			r.content[key] = ev
		}
	}
	return true
}

// checkSnapshots checks the snapshots of a follower against the truth. Only the first epoch is
// recorded.
func (tr *truth) checkSnapshots(seen []*rollcall.Snapshot) error {
	if len(seen) == 0 {
		return nil
	}
	r := tr.replay(seen[0].Prefix())
	for i, snap := range seen {
		if snap.Epoch() > 1 {
			return nil
		}
		if i > 0 && snap.Revision() < seen[i-1].Revision() {
			return fmt.Errorf("a snapshot of %q went back from revision %d to %d", r.prefix, seen[i-1].Revision(), snap.Revision())
		}
		for r.revision < snap.Revision() {
			if !r.step() {
				if tr.broken {
					return nil
				}
				return fmt.Errorf("a snapshot of %q has revision %d, etcd only %d", r.prefix, snap.Revision(), r.revision)
			}
		}
		if err := r.matches(snap); err != nil {
			return err
		}
	}
	return nil
}

func (r *replay) matches(snap *rollcall.Snapshot) error {
	shown := make(map[string]int64)
	for inst := range snap.All() {
		shown[inst.Key] = inst.ModRevision
	}
	for _, rej := range snap.Invalid() {
		shown[rej.Key] = rej.ModRevision
	}
	want := make(map[string]int64)
	for key, ev := range r.content {
		want[key] = ev.Kv.ModRevision
	}
	if !maps.Equal(shown, want) {
		return fmt.Errorf("a snapshot of %q at revision %d has %v, etcd had %v", r.prefix, snap.Revision(), shown, want)
	}
	return nil
}

// checkSets checks the sets of addresses by key, after each message of a watch channel, against the
// truth: each must be the content of etcd at some revision, in order.
func (tr *truth) checkSets(target string, sets []map[string]string) error {
	r := tr.replay(target + "/")
	for i, set := range sets {
		for !maps.Equal(set, r.addrs()) {
			if !r.step() {
				if tr.broken {
					return nil
				}
				return fmt.Errorf("message %d of the watch on %q leads to %v, which was not in etcd after the set before", i, target, set)
			}
		}
	}
	return nil
}

// addrs returns the addresses of the endpoints, by key.
func (r *replay) addrs() map[string]string {
	all := make(map[string]string)
	for key, ev := range r.content {
		if inst, err := rollcall.Decode(ev.Kv); err == nil {
			all[key] = inst.Addr
		}
	}
	return all
}
