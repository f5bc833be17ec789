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

// selectedBy returns which keys a channel may call, by the rules written down once more, each
// in a pass of its own.
func selectedBy(snap *rollcall.Snapshot, selector rollcall.Selector) []string {
	allowed, _ := snap.Partition(nil)
	mismatch := func(inst *rollcall.Instance) bool { return !selector.Matches(inst) }
	allowed = slices.DeleteFunc(allowed, mismatch)
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
	callable := slices.DeleteFunc(slices.Clone(allowed), (*rollcall.Instance).Draining)
	for _, inst := range slices.DeleteFunc(slices.Clone(snap.Retained()), mismatch) {
		if rollcall.HostPort(inst.Addr) == nil && !slices.ContainsFunc(allowed, func(i *rollcall.Instance) bool { return i.Addr == inst.Addr }) {
			callable = append(callable, inst)
		}
	}
	if len(callable) == 0 {
		callable = allowed
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

// After any changes candidates have selected what Select selects at once, and the
// version has grown only if a channel could see a difference.
func TestCandidatesFollow(t *testing.T) {
	rapid.Check(t, func(rt *rapid.T) {
		var fail string
		synctest.Test(t, func(t *testing.T) { fail = candidatesFollow(t, rt) })
		if fail != "" {
			rt.Fatal(fail)
		}
	})
}

func candidatesFollow(t *testing.T, rt *rapid.T) string {
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
	shared := newSharedSelection(selector, nil)
	c := &shared.candidates
	disallowedKeys := make(map[string]int64) // as a channel logs them: the revision that is disallowed
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
		before := c.version
		changes := shared.follow(sub)
		snap := sub.Latest()
		selection := &c.selection
		shown, hashKeys := make(map[string]string), make(map[string]string)
		for i, ep := range selection.endpoints {
			inst := InstanceFromEndpoint(ep)
			shown[inst.Key] = inst.Addr + string(inst.Metadata)
			hashKeys[inst.Key] = hashKeyOf(ep)
			if ep.Addresses[0].Addr != inst.Addr || selection.hashes[i] != hashOf(inst.Key) {
				return fmt.Sprintf("%s is shown as %v", inst.Key, ep)
			}
		}
		if got, want := slices.Sorted(maps.Keys(shown)), selectedBy(snap, selector); !slices.Equal(got, want) || len(selection.endpoints) != len(want) {
			return fmt.Sprintf("selected %v, want %v", got, want)
		}
		at := snap.Select(selector, nil)
		if got, want := keysOf(selection.instances), keysOf(at.Callable); !slices.Equal(got, want) || c.fallback != at.LastResort {
			return fmt.Sprintf("selected %v, fallback %v; Select has %v, %v", got, c.fallback, want, at.LastResort)
		}
		for _, inst := range selection.instances {
			if latest := snap.Instance(inst.Key); latest != nil && latest != inst {
				return fmt.Sprintf("%s is an earlier write", inst.Key)
			}
		}
		if want := hashKeysBy(snap, slices.Sorted(maps.Keys(shown))); !maps.Equal(hashKeys, want) {
			return fmt.Sprintf("hash keys are %q, want %q", hashKeys, want)
		}
		if same := maps.Equal(shown, seen); same != (c.version == before) {
			return fmt.Sprintf("the same version: %v, of the same endpoints: %v", c.version == before, same)
		}
		others := 0
		for addr, all := range c.several {
			if len(all) == 0 || len(all) == 1 && !all[0].Draining() {
				return fmt.Sprintf("%s is contested by %v", addr, all)
			}
			others += len(all)
			if c.selection.at(addr) != nil {
				others--
			}
		}
		if !c.fallback && others != len(at.Others) {
			return fmt.Sprintf("%d others in %v, want %v", others, c.several, at.Others)
		}
		for _, fresh := range changes.fresh {
			disallowedKeys[fresh.Instance.Key] = fresh.Instance.ModRevision
		}
		for _, key := range changes.mended {
			if _, was := disallowedKeys[key]; !was || snap.Instance(key) == nil {
				return fmt.Sprintf("%s is mended; known to be disallowed: %v", key, disallowedKeys)
			}
			delete(disallowedKeys, key)
		}
		_, disallowed := snap.Partition(nil)
		disallowed = slices.DeleteFunc(disallowed, func(d rollcall.Disallowed) bool { return !selector.Matches(d.Instance) })
		want := make(map[string]int64)
		for _, d := range disallowed {
			want[d.Instance.Key] = d.Instance.ModRevision
		}
		maps.DeleteFunc(disallowedKeys, func(key string, _ int64) bool { return snap.Instance(key) == nil }) // neither fresh nor mended
		if n := shared.emptiness().disallowed; n != len(disallowed) || !maps.Equal(disallowedKeys, want) {
			return fmt.Sprintf("%d disallowed, told of %v, want %v", n, disallowedKeys, want)
		}
		if rapid.Bool().Draw(rt, "prepared") {
			shared.prepare(large)
		}
		if selection.index != nil && len(selection.index) != len(selection.instances) {
			return fmt.Sprintf("%d in the index, want %d", len(selection.index), len(selection.instances))
		}
		for addr, at := range selection.index {
			if inst := selection.instances[at]; inst.Addr != addr || inst.Key != InstanceFromEndpoint(selection.endpoints[at]).Key {
				return fmt.Sprintf("%s is where %v is", addr, inst)
			}
		}
		seen = shown
	}
	return ""
}

func keysOf(instances []*rollcall.Instance) []string {
	var keys []string
	for _, inst := range instances {
		keys = append(keys, inst.Key)
	}
	slices.Sort(keys)
	return keys
}
