// SPDX-FileCopyrightText: The Rollcall Authors
// SPDX-License-Identifier: Apache-2.0

package random

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
	"sync"
	"time"

	clientv3 "go.etcd.io/etcd/client/v3"

	"github.com/rollcall-grpc/rollcall"
)

// truth is the content of etcd, recorded by a watch without faults. A wiped or restored store
// begins another epoch.
type truth struct {
	mu     sync.Mutex
	epochs []*epoch
}

type epoch struct {
	first  int64              // revision that the epoch was read at, or 1
	base   map[string]stored  // the content then
	events []*clientv3.Event  // what came after, in order
	states map[int64]contents // memo of the content at a revision
	cancel context.CancelFunc
	done   chan struct{}
}

// stored is the value of a key; contents is by key.
type stored struct {
	mod   int64
	lease int64
	value string
}

type contents map[string]stored

// begin starts an epoch with the content of etcd.
func (tr *truth) begin(client *clientv3.Client) error {
	tr.end()
	ctx, cancel := context.WithCancel(context.Background())
	resp, err := patiently(func(ctx context.Context) (*clientv3.GetResponse, error) {
		return client.Get(ctx, "\x00", clientv3.WithFromKey())
	})
	if err != nil {
		cancel()
		return fmt.Errorf("read the store: %w", err)
	}
	e := &epoch{first: resp.Header.Revision, base: make(contents), states: make(map[int64]contents), cancel: cancel, done: make(chan struct{})}
	for _, kv := range resp.Kvs {
		e.base[string(kv.Key)] = stored{kv.ModRevision, kv.Lease, string(kv.Value)}
	}
	tr.mu.Lock()
	tr.epochs = append(tr.epochs, e)
	tr.mu.Unlock()
	go func() {
		defer close(e.done)
		for ctx.Err() == nil { // a member may refuse a token that it has not heard of yet
			tr.mu.Lock()
			next := e.revision() + 1
			tr.mu.Unlock()
			for resp := range client.Watch(ctx, "\x00", clientv3.WithFromKey(), clientv3.WithRev(next)) {
				tr.mu.Lock()
				e.events = append(e.events, resp.Events...)
				tr.mu.Unlock()
			}
			time.Sleep(10 * time.Millisecond)
		}
	}()
	return nil
}

// catchUp waits until the present revision is recorded, and reports whether it is.
func (tr *truth) catchUp(client *clientv3.Client) bool {
	ctx, cancel := context.WithTimeout(context.Background(), 2*time.Second)
	defer cancel()
	resp, err := client.Get(ctx, "revision")
	for err == nil && ctx.Err() == nil {
		tr.mu.Lock()
		behind := tr.epochs[len(tr.epochs)-1].revision() < resp.Header.Revision
		tr.mu.Unlock()
		if !behind {
			return true
		}
		time.Sleep(time.Millisecond)
	}
	return false
}

// end ends the watch of the present epoch.
func (tr *truth) end() {
	if len(tr.epochs) > 0 {
		last := tr.epochs[len(tr.epochs)-1]
		last.cancel()
		<-last.done
	}
}

// revision returns the newest recorded revision.
func (e *epoch) revision() int64 {
	if len(e.events) == 0 {
		return e.first
	}
	return e.events[len(e.events)-1].Kv.ModRevision
}

// at returns the content of the epoch at a revision; false if it is not known.
func (e *epoch) at(revision int64) (contents, bool) {
	if revision < e.first || revision > e.revision() {
		return nil, false
	}
	if c, ok := e.states[revision]; ok {
		return c, true
	}
	c := maps.Clone(e.base)
	for _, ev := range e.events {
		if ev.Kv.ModRevision > revision {
			break
		}
		if ev.Type == clientv3.EventTypeDelete {
			delete(c, string(ev.Kv.Key))
		} else {
			c[string(ev.Kv.Key)] = stored{ev.Kv.ModRevision, ev.Kv.Lease, string(ev.Kv.Value)}
		}
	}
	e.states[revision] = c
	return c, true
}

// forget drops everything before the given revision, up to which all snapshots were checked.
func (tr *truth) forget(revision int64) {
	tr.mu.Lock()
	defer tr.mu.Unlock()
	last := tr.epochs[len(tr.epochs)-1]
	base, known := last.at(revision)
	if !known {
		return
	}
	for len(last.events) > 0 && last.events[0].Kv.ModRevision <= revision {
		last.events = last.events[1:]
	}
	last.base, last.first = base, revision
	clear(last.states)
	tr.epochs = []*epoch{last}
}

// explain returns an error if a snapshot was never the content of etcd. Revisions before the oldest
// epoch was read are not known and pass.
func (tr *truth) explain(snap *rollcall.Snapshot) error {
	tr.mu.Lock()
	defer tr.mu.Unlock()
	if snap.Revision() < tr.epochs[0].first {
		return nil // forgotten
	}
	var closest contents
	for _, e := range tr.epochs {
		c, known := e.at(snap.Revision())
		if !known {
			continue
		}
		closest = c
		if maps.Equal(shown(snap), c.under(snap.Prefix())) {
			return nil
		}
	}
	if closest == nil {
		return fmt.Errorf("revision %d was never reached", snap.Revision())
	}
	return fmt.Errorf("at revision %d shown %v, etcd had %v", snap.Revision(), shown(snap), closest.under(snap.Prefix()))
}

// under returns the ModRevisions of the keys with a prefix.
func (c contents) under(prefix string) map[string]int64 {
	all := make(map[string]int64)
	for key, h := range c {
		if strings.HasPrefix(key, prefix) {
			all[key] = h.mod
		}
	}
	return all
}

// shown returns the ModRevisions of everything that a snapshot accounts for.
func shown(snap *rollcall.Snapshot) map[string]int64 {
	all := make(map[string]int64)
	for inst := range snap.All() {
		all[inst.Key] = inst.ModRevision
	}
	for _, rej := range snap.Invalid() {
		all[rej.Key] = rej.ModRevision
	}
	return all
}

// dialled returns the addresses that a channel may be told for a service, from the
// snapshot of a linearizable list, by rules written down here once more.
func dialled(snap *rollcall.Snapshot) []string {
	var serving, draining []string
	for inst := range snap.All() {
		switch {
		case rollcall.HostPort(inst.Addr) != nil:
		case inst.Draining():
			draining = append(draining, inst.Addr)
		default:
			serving = append(serving, inst.Addr)
		}
	}
	if len(serving) == 0 {
		serving = draining
	}
	slices.Sort(serving)
	return slices.Compact(serving)
}

// patiently tries until a call succeeds, for as long as an election may take.
func patiently[T any](call func(context.Context) (T, error)) (resp T, err error) {
	for range 100 {
		ctx, cancel := context.WithTimeout(context.Background(), 2*time.Second)
		resp, err = call(ctx)
		cancel()
		if err == nil || errors.Is(err, clientv3.ErrNoAvailableEndpoints) {
			return resp, err
		}
		time.Sleep(100 * time.Millisecond)
	}
	return resp, err
}
