// SPDX-FileCopyrightText: The Rollcall Authors
// SPDX-License-Identifier: Apache-2.0

package resolver

import (
	"cmp"
	"context"
	"fmt"
	"maps"
	"slices"
	"testing"
	"testing/synctest"
	"time"

	"pgregory.net/rapid"

	"github.com/rollcall-grpc/rollcall"
	"github.com/rollcall-grpc/rollcall/internal/test/fakeetcd"
)

// chosenBy says which keys a channel may call, by the rules written down once more: all
// of a snapshot at once, rule by rule.
func chosenBy(snap *rollcall.Snapshot, selector rollcall.Selector) []string {
	taken, _ := snap.Partition(nil)
	passed := func(inst *rollcall.Instance) bool { return !selector.Matches(inst) }
	taken = slices.DeleteFunc(taken, passed)
	rules := func(among []*rollcall.Instance) []string {
		best := make(map[string]*rollcall.Instance)
		for _, inst := range among {
			if other := best[inst.Addr]; other == nil || other.CreateRevision < inst.CreateRevision {
				best[inst.Addr] = inst
			}
		}
		var keys []string
		for _, inst := range best {
			keys = append(keys, inst.Key)
		}
		slices.Sort(keys)
		return keys
	}
	callable := slices.DeleteFunc(slices.Clone(taken), (*rollcall.Instance).Draining)
	for _, inst := range slices.DeleteFunc(slices.Clone(snap.Retained()), passed) {
		if rollcall.HostPort(inst.Addr) == nil && !slices.ContainsFunc(taken, func(i *rollcall.Instance) bool { return i.Addr == inst.Addr }) {
			callable = append(callable, inst)
		}
	}
	if len(callable) == 0 {
		callable = taken
	}
	return rules(callable)
}

// hashKeysBy returns where ring_hash puts each of some keys of the service "s", by the rules
// written down once more: what a key asks for is given to the least key that asks for it.
func hashKeysBy(snap *rollcall.Snapshot, keys []string) map[string]string {
	got := make(map[string]string)
	given := make(map[string]bool)
	for _, key := range keys { // sorted
		inst := snap.Instance(key)
		if inst == nil {
			inst = snap.Retained()[slices.IndexFunc(snap.Retained(), func(i *rollcall.Instance) bool { return i.Key == key })]
		}
		asked := cmp.Or(inst.Attributes().HashKey, key[len("s/"):])
		if got[key] = asked; given[asked] {
			got[key] += "\x00" + key[len("s/"):]
		}
		given[asked] = true
	}
	return got
}

// TestViewFollows: after any changes a view has chosen what it would choose at once, and
// a new choice only if a channel could see a difference.
func TestViewFollows(t *testing.T) {
	rapid.Check(t, func(rt *rapid.T) {
		var fail string
		synctest.Test(t, func(t *testing.T) { fail = viewFollows(t, rt) })
		if fail != "" {
			rt.Fatal(fail)
		}
	})
}

func viewFollows(t *testing.T, rt *rapid.T) string {
	store := fakeetcd.New()
	defer store.Close()
	conn := store.Connect(context.Background())
	defer conn.Close()
	d, err := rollcall.NewDirectory(conn.Client, rollcall.DirectoryOptions{SelfPreservation: rollcall.SelfPreservation{Share: 0.4, Retain: time.Minute}})
	if err != nil {
		t.Fatal(err)
	}
	defer d.Close()
	sub, err := d.Subscribe("s")
	if err != nil {
		t.Fatal(err)
	}
	defer sub.Close()
	synctest.Wait()
	selector, err := rollcall.ParseSelector(rapid.SampledFrom([]string{"", "zone=", "zone=z", "status=draining", "status=serving&zone=z"}).Draw(rt, "selector"))
	if err != nil {
		t.Fatal(err)
	}
	v := newView(selector, nil)
	key := rapid.SampledFrom([]string{"s/1", "s/2", "s/x/3", "s/y/3", "s/a:1"})
	addr := rapid.SampledFrom([]string{"a:1", "a:1", "b:1", "c:1", "d:1", "unix:x"})
	value := rapid.SampledFrom([]string{`{"Addr":%q}`, `{"Addr":%q}`, `{"Addr":%q,"Metadata":{"hash_key":"h"}}`, `{"Addr":%q,"Metadata":{"hash_key":"1","zone":"z"}}`, `{"Addr":%q,"Metadata":{"zone":"z"}}`, `{"Addr":%q,"Metadata":{"status":"draining"}}`, `nothing%.0q`, ""})
	byAddress := rapid.Bool().Draw(rt, "keys by address")
	seen := make(map[string]string) // what a channel was shown last
	for range rapid.IntRange(1, 12).Draw(rt, "rounds") {
		for range rapid.IntRange(0, 4).Draw(rt, "writes") {
			k, a, val := key.Draw(rt, "key"), addr.Draw(rt, "address"), value.Draw(rt, "value")
			if byAddress {
				k = "s/" + a
			}
			if val == "" {
				store.Delete(k)
			} else {
				store.Put(k, fmt.Sprintf(val, a))
			}
		}
		time.Sleep(rapid.SampledFrom([]time.Duration{time.Second, 2 * time.Minute}).Draw(rt, "time"))
		before := v.version
		v.follow(sub)
		chosen := v.chosen
		shown, hashKeys := make(map[string]string), make(map[string]string)
		for i, ep := range chosen.endpoints {
			inst := InstanceFromEndpoint(ep)
			shown[inst.Key] = inst.Addr + string(inst.Metadata)
			hashKeys[inst.Key] = hashKeyOf(ep)
			if ep.Addresses[0].Addr != inst.Addr || chosen.hashes[i] != hashOf(inst.Key) {
				return fmt.Sprintf("%s is shown as %v", inst.Key, ep)
			}
		}
		if got, want := slices.Sorted(maps.Keys(shown)), chosenBy(sub.Latest(), selector); !slices.Equal(got, want) || len(chosen.endpoints) != len(want) {
			return fmt.Sprintf("chose %v, want %v", got, want)
		}
		if want := hashKeysBy(sub.Latest(), slices.Sorted(maps.Keys(shown))); !maps.Equal(hashKeys, want) {
			return fmt.Sprintf("hash keys are %q, want %q", hashKeys, want)
		}
		if same := maps.Equal(shown, seen); same != (v.version == before) {
			return fmt.Sprintf("the same version: %v, of the same endpoints: %v", v.version == before, same)
		}
		for addr, crowd := range v.crowds {
			if len(crowd) == 0 || len(crowd) == 1 && !crowd[0].Draining() {
				return fmt.Sprintf("%s is crowded by %v", addr, crowd)
			}
		}
		_, refused := sub.Latest().Partition(nil)
		refused = slices.DeleteFunc(refused, func(r rollcall.Disallowed) bool { return !selector.Matches(r.Instance) })
		if _, n := v.refusals(); n != len(refused) {
			return fmt.Sprintf("%d refused, want %d", n, len(refused))
		}
		if rapid.Bool().Draw(rt, "prepared") {
			v.prepare(large)
		}
		if v.places != nil && !v.odd && len(v.places) != len(chosen.instances) {
			return fmt.Sprintf("%d places, want %d", len(v.places), len(chosen.instances))
		}
		for addr, at := range v.places {
			if inst := chosen.instances[at]; !v.odd && (inst.Addr != addr || inst.Key != InstanceFromEndpoint(chosen.endpoints[at]).Key) {
				return fmt.Sprintf("%s is where %v is", addr, inst)
			}
		}
		seen = shown
	}
	return ""
}

func choiceOf(n int) *choice {
	c := newChoice("s/", n)
	for i := range n {
		c.push(&rollcall.Instance{Key: fmt.Sprint("s/", i)})
	}
	return &c
}

// Channels have favourites of their own, and keep them; nothing gets lost on the way.
func TestOrderSorts(t *testing.T) {
	o := newOrder()
	for n := range 100 {
		c := choiceOf(n)
		var all, keys []string
		for _, ep := range c.endpoints {
			all = append(all, InstanceFromEndpoint(ep).Key)
		}
		for _, ep := range o.sorted(c, nil) {
			keys = append(keys, InstanceFromEndpoint(ep).Key)
		}
		byRank := slices.SortedFunc(slices.Values(all), func(a, b string) int { return cmp.Compare(o.rank(hashOf(a)), o.rank(hashOf(b))) })
		if k := min(n, favourites); !slices.Equal(keys[:k], byRank[:k]) {
			t.Fatalf("of %d, %v come first, not %v", n, keys[:k], byRank[:k])
		}
		if slices.Sort(keys); !slices.Equal(keys, slices.Sorted(slices.Values(all))) {
			t.Fatalf("of %d, %v are left", n, keys)
		}
	}
	first := make(map[string]int)
	for range 3000 {
		first[InstanceFromEndpoint(newOrder().sorted(choiceOf(3), nil)[0]).Key]++
	}
	for key, n := range first {
		if n < 800 || n > 1200 {
			t.Errorf("%s is first in %d of 3,000 orders", key, n)
		}
	}
}

var sizes = []int{10, 1000, 10_000}

// BenchmarkState is the first state of a service.
func BenchmarkState(b *testing.B) {
	for _, n := range sizes {
		b.Run(fmt.Sprint(n), func(b *testing.B) {
			snap, _ := snapshotsOf(b, n)
			o := newOrder()
			b.ReportAllocs()
			for b.Loop() {
				v := newView(rollcall.Selector{}, nil)
				v.apply(snap)
				_ = o.sorted(&v.chosen, nil)
			}
		})
	}
}

// BenchmarkStateChanged is the next state after one instance changed.
func BenchmarkStateChanged(b *testing.B) {
	for _, n := range sizes {
		b.Run(fmt.Sprint(n), func(b *testing.B) {
			first, next := snapshotsOf(b, n)
			snaps, v, o := []*rollcall.Snapshot{first, next}, newView(rollcall.Selector{}, nil), newOrder()
			b.ReportAllocs()
			for i := 0; b.Loop(); i++ {
				v.apply(snaps[i%2])
				_ = o.sorted(&v.chosen, nil)
			}
		})
	}
}
