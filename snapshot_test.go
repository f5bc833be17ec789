// SPDX-FileCopyrightText: The Rollcall Authors
// SPDX-License-Identifier: Apache-2.0

package rollcall

import (
	"fmt"
	"maps"
	"slices"
	"testing"

	"go.etcd.io/etcd/api/v3/mvccpb"
	"pgregory.net/rapid"

	"github.com/rollcall-grpc/rollcall/internal/reflector"
)

// model is a store that is obvious: a map of key-values.
type model map[string]*mvccpb.KeyValue

func (m model) sorted() []*mvccpb.KeyValue {
	var kvs []*mvccpb.KeyValue
	for _, key := range slices.Sorted(maps.Keys(m)) {
		kvs = append(kvs, m[key])
	}
	return kvs
}

// TestP1SnapshotEqualsList: a snapshot made by changes equals one made by a list (P1),
// the older ones stay what they were, and differences add up.
func TestP1SnapshotEqualsList(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		store := model{}
		blank := &Snapshot{prefix: "s/"}
		snap, seen := blank, map[string]*Instance{}
		revision := int64(1)
		for range rapid.IntRange(1, 20).Draw(t, "rounds") {
			changes := make(map[string]entry)
			for range rapid.IntRange(1, 5).Draw(t, "writes") {
				revision++
				write(t, store, changes, revision)
			}
			older, was := snap, render(snap)
			snap = snap.next(sorted(changes), revision, preallocateFor(len(snap.instances)))
			if got := render(older); got != was {
				t.Fatalf("a snapshot changed from\n%s to\n%s", was, got)
			}
			list := listed(older, store.sorted(), revision)
			if got, want := render(snap), render(list); got != want {
				t.Fatalf("by changes:\n%s\nby list:\n%s", got, want)
			}
			if diff := snap.Diff(list); len(diff) != 0 {
				t.Fatalf("they differ by %+v", diff)
			}
			for _, c := range snap.Diff(older) {
				if !c.Old.Equal(seen[c.Key]) {
					t.Fatalf("change %+v of %+v", c, seen[c.Key])
				}
				if seen[c.Key] = c.New; c.New == nil {
					delete(seen, c.Key)
				}
			}
			if len(seen) != snap.Len() {
				t.Fatalf("differences add up to %d, want %d", len(seen), snap.Len())
			}
			count, last := snap.size()
			var wantLast int64
			for _, kv := range store {
				wantLast = max(wantLast, kv.ModRevision)
			}
			if count != len(store) || last != wantLast {
				t.Fatalf("size %d, %d, want %d, %d", count, last, len(store), wantLast)
			}
		}
	})
}

// sorted returns changes by key as updates.
func sorted(changes map[string]entry) (updates []update) {
	for _, key := range slices.Sorted(maps.Keys(changes)) {
		updates = append(updates, update{key: key, entry: changes[key]})
	}
	return updates
}

// write makes one change in the model and notes it.
func write(t *rapid.T, store model, changes map[string]entry, revision int64) {
	key := "s/" + rapid.StringMatching(`[a-e]{1,2}`).Draw(t, "key")
	value := rapid.SampledFrom([]string{`{"Addr":"a:1"}`, `{"Addr":"b:1","Metadata":{"zone":"z"}}`, `broken`, ""}).Draw(t, "value")
	if value == "" {
		delete(store, key)
		changes[key] = entry{}
		return
	}
	created := revision
	if old := store[key]; old != nil {
		created = old.CreateRevision
	}
	kv := &mvccpb.KeyValue{Key: []byte(key), Value: []byte(value), CreateRevision: created, ModRevision: revision}
	store[key] = kv
	changes[key] = decodeEntry(kv, "s/")
}

func render(s *Snapshot) (text string) {
	for inst := range s.All() {
		text += fmt.Sprintf("%s %s %s %d %d\n", inst.Key, inst.Addr, inst.Metadata, inst.CreateRevision, inst.ModRevision)
	}
	for _, rej := range s.Invalid() {
		text += fmt.Sprintf("%s %v %d\n", rej.Key, rej.Cause, rej.ModRevision)
	}
	return text
}

func listed(old *Snapshot, kvs []*mvccpb.KeyValue, revision int64) *Snapshot {
	var l listing
	l.Add(kvs)
	return old.replacedBy(&l, reflector.Version{Revision: revision, Epoch: 1})
}

func TestNewEpoch(t *testing.T) {
	of := func(epoch int) *Snapshot { return &Snapshot{epoch: epoch} }
	for _, row := range []struct {
		old, snap *Snapshot
		want      bool
	}{
		{nil, of(1), false},
		{of(1), of(1), false},
		{of(1), of(2), true},
		{of(0), of(2), false}, // the older is from the disk
		{of(1), of(0), false},
	} {
		if got := row.snap.NewEpoch(row.old); got != row.want {
			t.Errorf("%+v after %+v: got %t", row.snap, row.old, got)
		}
	}
}

func TestSnapshotShares(t *testing.T) {
	store := model{}
	for i, key := range []string{"s/a", "s/b"} {
		store[key] = &mvccpb.KeyValue{Key: []byte(key), Value: []byte(`{"Addr":"a:1"}`), CreateRevision: int64(i + 2), ModRevision: int64(i + 2)}
	}
	first := listed(&Snapshot{prefix: "s/"}, store.sorted(), 3)
	again := listed(first, store.sorted(), 9)
	if first.Instance("s/a") != again.Instance("s/a") {
		t.Error("a list that found nothing new made a new instance")
	}
	next := first.next([]update{{key: "s/b"}}, 10, nil)
	if first.Instance("s/a") != next.Instance("s/a") || next.Instance("s/b") != nil {
		t.Error("a change of b touched a, or b is still there")
	}
	if next.Service() != "s" || next.Instance("s/a").ID() != "a" || next.Prefix() != "s/" {
		t.Errorf("service %q, prefix %q", next.Service(), next.Prefix())
	}
}

func TestPartition(t *testing.T) {
	snap := &Snapshot{instances: []*Instance{{Key: "s/a", Addr: "1.2.3.4"}, {Key: "s/b", Addr: "1.2.3.4:5"}}}
	taken, refused := snap.Partition(nil)
	if len(taken) != 1 || taken[0].Key != "s/b" || len(refused) != 1 || refused[0].Instance.Key != "s/a" || refused[0].Cause == nil {
		t.Errorf("taken %v, refused %v", taken, refused)
	}
	if taken, refused = snap.Partition(func(string) error { return nil }); len(taken) != 2 || len(refused) != 0 {
		t.Errorf("taken %v, refused %v", taken, refused)
	}
}

func benchmarkSnapshot(b *testing.B, n int) (*Snapshot, []*mvccpb.KeyValue) {
	var kvs []*mvccpb.KeyValue
	for i := range n {
		kvs = append(kvs, &mvccpb.KeyValue{Key: fmt.Appendf(nil, "s/%06d", i), CreateRevision: int64(i), ModRevision: int64(i),
			Value: fmt.Appendf(nil, `{"Op":0,"Addr":"10.0.0.1:%d","Metadata":{"weight":10,"zone":"eu-1"}}`, i)})
	}
	b.ReportAllocs()
	return listed(&Snapshot{prefix: "s/"}, kvs, int64(n)), kvs
}

var sizes = []int{10, 1000, 10_000}

func BenchmarkDecode(b *testing.B) {
	_, kvs := benchmarkSnapshot(b, 1)
	for b.Loop() {
		_, _ = Decode(kvs[0])
	}
}

func BenchmarkEncode(b *testing.B) {
	b.ReportAllocs()
	metadata := map[string]any{"weight": 10, "zone": "eu-1"}
	for b.Loop() {
		_, _ = Encode("10.0.0.1:50051", metadata)
	}
}

func BenchmarkAttributes(b *testing.B) {
	for _, row := range []struct{ name, fields string }{{"plain", ""}, {"origin", `,"started":"2026-11-29T00:40:58Z","host":"node-7"`}} {
		b.Run(row.name, func(b *testing.B) {
			inst := &Instance{Metadata: []byte(`{"weight":10,"zone":"eu-1"` + row.fields + "}")}
			b.ReportAllocs()
			for b.Loop() {
				_ = inst.Attributes()
			}
		})
	}
}

// BenchmarkWeight is what a resolver reads of an endpoint: one that a Registrar has registered, and one
// with an escape, which encoding/json reads.
func BenchmarkWeight(b *testing.B) {
	for _, row := range []struct{ name, metadata string }{
		{"origin", `{"weight":10,"zone":"eu-1","started":"2026-11-29T00:40:58Z","host":"node-7"}`},
		{"escaped", `{"weight":10,"zone":"eu-1","note":"a\"b"}`},
	} {
		b.Run(row.name, func(b *testing.B) {
			inst := &Instance{Metadata: []byte(row.metadata)}
			b.ReportAllocs()
			for b.Loop() {
				_, _ = inst.WeightAndHashKey()
			}
		})
	}
}

// BenchmarkDraining is read of each endpoint whenever endpoints are selected or counted.
func BenchmarkDraining(b *testing.B) {
	for _, row := range []struct{ name, metadata string }{
		{"serving", `{"zone":"a","status":"serving"}`}, {"nested", `{"zone":"a","build":{"number":7},"status":"serving"}`}, {"draining", `{"zone":"a","status":"draining"}`},
	} {
		b.Run(row.name, func(b *testing.B) {
			inst := &Instance{Metadata: []byte(row.metadata)}
			for b.Loop() {
				_ = inst.Draining()
			}
		})
	}
}

// BenchmarkApply is one change of one endpoint among n, with memory got in advance and without.
func BenchmarkApply(b *testing.B) {
	for _, n := range sizes {
		for _, advance := range []bool{true, false} {
			b.Run(fmt.Sprintf("%d/preallocated=%v", n, advance), func(b *testing.B) {
				snap, kvs := benchmarkSnapshot(b, n)
				change := []update{{key: string(kvs[n/2].Key), entry: decodeEntry(kvs[n/2], "s/")}}
				for b.Loop() {
					var preallocated []*Instance
					if advance {
						b.StopTimer()
						preallocated = preallocateFor(n)
						b.StartTimer()
					}
					_ = snap.next(change, int64(n+1), preallocated)
				}
			})
		}
	}
}

func BenchmarkDiff(b *testing.B) {
	for _, n := range sizes {
		b.Run(fmt.Sprint(n), func(b *testing.B) {
			snap, kvs := benchmarkSnapshot(b, n)
			next := snap.next([]update{{key: string(kvs[n/2].Key)}}, int64(n+1), nil)
			for b.Loop() {
				_ = next.Diff(snap)
			}
		})
	}
}

// BenchmarkSnapshot is a list decoded and compared with what was there before.
func BenchmarkSnapshot(b *testing.B) {
	for _, n := range sizes {
		b.Run(fmt.Sprint(n), func(b *testing.B) {
			snap, kvs := benchmarkSnapshot(b, n)
			for b.Loop() {
				_ = listed(snap, kvs, int64(n+1))
			}
		})
	}
}
