// SPDX-FileCopyrightText: The Rollcall Authors
// SPDX-License-Identifier: Apache-2.0

package fakeetcd

import (
	"context"
	"fmt"
	"maps"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	clientv3 "go.etcd.io/etcd/client/v3"
	"pgregory.net/rapid"
)

// The model is every revision's whole content: slow and obvious.

type entry struct {
	value                    string
	created, modified, times int64
	lease                    int // index of the grant, -1 for none
}

type model struct {
	revisions []map[string]entry // [0] is revision 1
	events    []string           // by revision, as describe prints them
	compacted int64
	leases    []int // -1: dead; else the number of seconds it has left
}

const leaseTTL = 10

func newModel() *model {
	return &model{revisions: []map[string]entry{{}}, events: []string{""}}
}

func (m *model) revision() int64 { return int64(len(m.revisions)) }

func (m *model) latest() map[string]entry { return m.revisions[len(m.revisions)-1] }

// change makes the next revision of some puts and deletes, if they change anything.
func (m *model) change(puts map[string]string, lease int, deletes []string) {
	next, rev := maps.Clone(m.latest()), m.revision()+1
	var events []string
	for _, k := range slices.Sorted(maps.Keys(puts)) {
		e, ok := next[k]
		if !ok {
			e.created = rev
		}
		next[k] = entry{puts[k], e.created, rev, e.times + 1, lease}
		events = append(events, fmt.Sprintf(" %s=%s@%d", k, puts[k], rev))
	}
	for _, k := range slices.Sorted(slices.Values(deletes)) {
		if _, ok := next[k]; ok {
			delete(next, k)
			events = append(events, fmt.Sprintf(" -%s@%d", k, rev))
		}
	}
	if len(events) > 0 {
		m.revisions = append(m.revisions, next)
		m.events = append(m.events, strings.Join(events, ""))
	}
}

func (m *model) endLease(i int) {
	var held []string
	for k, e := range m.latest() {
		if e.lease == i {
			held = append(held, k)
		}
	}
	m.leases[i] = -1
	m.change(nil, -1, held)
}

// step is one random operation; which fields count depends on the kind.
type step struct {
	Kind  string
	Keys  []string
	Value string
	N     int
}

func drawScript(rt *rapid.T) []step {
	key := rapid.SampledFrom([]string{"a", "a/1", "a/2", "b", "b\xff", "\xff"})
	return rapid.SliceOfN(rapid.Custom(func(rt *rapid.T) step {
		return step{
			Kind: rapid.SampledFrom([]string{
				"put", "put", "put", "delete", "prefix", "txn", "grant", "leased", "revoke", "sleep", "compact", "watch", "break",
			}).Draw(rt, "kind"),
			Keys:  rapid.SliceOfNDistinct(key, 1, 3, rapid.ID[string]).Draw(rt, "keys"),
			Value: rapid.StringMatching("[a-c]").Draw(rt, "value"),
			N:     rapid.IntRange(0, 40).Draw(rt, "n"),
		}
	}), 1, 40).Draw(rt, "script")
}

func TestStoreEqualsItsModel(t *testing.T) {
	rapid.Check(t, func(rt *rapid.T) {
		script := drawScript(rt)
		var err error
		synctest.Test(t, func(t *testing.T) { err = replay(t.Context(), script) })
		if err != nil {
			rt.Fatal(err)
		}
	})
}

// follower is a watch from the model's view.
type follower struct {
	ch   clientv3.WatchChan
	from int64
	seen string
}

// run is a script's state.
type run struct {
	ctx       context.Context
	store     *Store
	cli       *clientv3.Client
	conn      *Conn
	m         *model
	ids       []clientv3.LeaseID
	followers []*follower
}

func replay(ctx context.Context, script []step) error {
	r := &run{ctx: ctx, store: New(), m: newModel()}
	r.conn = r.store.Connect(context.Background())
	r.cli = r.conn.Client
	defer r.store.Close()
	for i, s := range script {
		if err := r.do(s); err != nil {
			return fmt.Errorf("step %d %+v: %w", i, s, err)
		}
		if err := r.compare(); err != nil {
			return fmt.Errorf("after step %d %+v: %w", i, s, err)
		}
	}
	return r.compareFollowers()
}

func (r *run) do(s step) (err error) {
	key, lease := s.Keys[0], s.N%max(1, len(r.ids))
	alive := len(r.ids) > 0 && r.m.leases[lease] >= 0
	switch s.Kind {
	case "put":
		_, err = r.cli.Put(r.ctx, key, s.Value)
		r.m.change(map[string]string{key: s.Value}, -1, nil)
	case "delete":
		_, err = r.cli.Delete(r.ctx, key)
		r.m.change(nil, -1, []string{key})
	case "prefix":
		_, err = r.cli.Delete(r.ctx, key, clientv3.WithPrefix())
		gone := slices.DeleteFunc(slices.Collect(maps.Keys(r.m.latest())), func(k string) bool { return !strings.HasPrefix(k, key) })
		r.m.change(nil, -1, gone)
	case "txn":
		err = r.txn(s)
	case "grant":
		var resp *clientv3.LeaseGrantResponse
		if resp, err = r.cli.Grant(r.ctx, leaseTTL); err == nil {
			r.ids, r.m.leases = append(r.ids, resp.ID), append(r.m.leases, leaseTTL)
		}
	case "leased":
		if alive {
			_, err = r.cli.Put(r.ctx, key, s.Value, clientv3.WithLease(r.ids[lease]))
			r.m.change(map[string]string{key: s.Value}, lease, nil)
		}
	case "revoke":
		if alive {
			_, err = r.cli.Revoke(r.ctx, r.ids[lease])
			r.m.endLease(lease)
		}
	case "sleep":
		r.sleep(s.N % 4)
	case "compact":
		if at := int64(s.N); at > r.m.compacted && at <= r.m.revision() {
			r.m.compacted = at
			_, err = r.cli.Compact(r.ctx, at)
		}
	case "watch":
		from := max(r.m.compacted, int64(s.N), 1)
		r.followers = append(r.followers, &follower{ch: r.cli.Watch(r.ctx, "", clientv3.WithPrefix(), clientv3.WithRev(from)), from: from})
	case "break":
		r.conn.BreakStreams()
		_, err = r.cli.Put(r.ctx, key, s.Value)
		r.m.change(map[string]string{key: s.Value}, -1, nil)
		r.sleep(1) // no watch may be behind when compaction comes
	}
	r.drain()
	return err
}

// txn puts the first key and deletes the others if the first is there, else
// deletes it.
func (r *run) txn(s step) error {
	key := s.Keys[0]
	then := []clientv3.Op{clientv3.OpPut(key, s.Value)}
	for _, k := range slices.Sorted(slices.Values(s.Keys[1:])) {
		then = append(then, clientv3.OpDelete(k))
	}
	resp, err := r.cli.Txn(r.ctx).If(clientv3.Compare(clientv3.CreateRevision(key), ">", 0)).
		Then(then...).Else(clientv3.OpDelete(key)).Commit()
	if err != nil {
		return err
	}
	_, there := r.m.latest()[key]
	if resp.Succeeded != there {
		return fmt.Errorf("got succeeded %v, want %v", resp.Succeeded, there)
	}
	if there {
		r.m.change(map[string]string{key: s.Value}, -1, s.Keys[1:])
	}
	return nil
}

// sleep takes n seconds, of which each may end leases.
func (r *run) sleep(n int) {
	for range n {
		time.Sleep(time.Second)
		synctest.Wait()
		for i := range r.m.leases {
			if r.m.leases[i] > 0 {
				if r.m.leases[i]--; r.m.leases[i] == 0 {
					r.m.endLease(i)
				}
			}
		}
	}
}
