// SPDX-FileCopyrightText: The Rollcall Authors
// SPDX-License-Identifier: Apache-2.0

package rollcall

import (
	"iter"
	"slices"
	"strings"
	"time"

	"go.etcd.io/etcd/api/v3/mvccpb"
	clientv3 "go.etcd.io/etcd/client/v3"

	"github.com/rollcall-grpc/rollcall/internal/reflector"
)

// Snapshot is the content of a key prefix at one revision. It is immutable.
type Snapshot struct {
	prefix    string
	revision  int64
	epoch     int
	instances []*Instance      // Invariant: sorted by key, no key in two slices.
	invalid   []*Invalid       // Invariant: sorted by key.
	configs   []*ServiceConfig // Invariant: sorted by service. Service configs are not endpoints.
	retained  []*Instance      // Invariant: sorted by key, none in instances.
	stale     *Staleness
}

// Invalid is a key whose value is not an endpoint: see Decode.
type Invalid struct {
	Key            string
	Value          []byte // as stored; it must not be changed
	Cause          error
	Lease          clientv3.LeaseID // 0: none
	CreateRevision int64
	ModRevision    int64
}

// Disallowed is an instance whose address an AddressPolicy does not allow.
type Disallowed struct {
	Instance *Instance
	Cause    error
}

// Staleness tells since when and why a snapshot may be out of date.
type Staleness struct {
	Since time.Time
	Cause error
}

// Prefix is what the keys start with: "<service>/", or what was asked for.
func (s *Snapshot) Prefix() string { return s.prefix }

// Service is the prefix without its last "/".
func (s *Snapshot) Service() string { return strings.TrimSuffix(s.prefix, "/") }

// Revision is a revision of the store that has the content of the snapshot. Within one Epoch it
// never goes backwards.
func (s *Snapshot) Revision() int64 { return s.revision }

// Epoch counts, from 1, the epochs of the store that the Directory has followed. It grows
// when etcd lost its data or was restored from a backup; revisions of different epochs cannot
// be compared. It is 0 for what was read by List or from DirectoryOptions.CacheDir, which
// compares with none.
func (s *Snapshot) Epoch() int { return s.epoch }

// NewEpoch reports whether etcd lost its data, or was restored from a backup, between an older
// snapshot and s: nobody need have deleted what is gone since. It is false where old is nil or
// either has no Epoch.
func (s *Snapshot) NewEpoch(old *Snapshot) bool {
	return old != nil && old.epoch > 0 && s.epoch > 0 && s.epoch != old.epoch
}

// All returns an iterator over the instances, in the order of their keys.
func (s *Snapshot) All() iter.Seq[*Instance] { return slices.Values(s.instances) }

// Len returns the number of instances.
func (s *Snapshot) Len() int { return len(s.instances) }

// Invalid returns the keys whose values are not endpoints, sorted by key.
func (s *Snapshot) Invalid() []*Invalid { return slices.Clone(s.invalid) }

// ServiceConfigs returns the service configs among the keys, sorted by service: there are some
// in views of the whole store only.
func (s *Snapshot) ServiceConfigs() []*ServiceConfig { return slices.Clone(s.configs) }

// Retained returns instances that are gone from etcd but that SelfPreservation keeps callable,
// sorted by key. All does not have them.
func (s *Snapshot) Retained() []*Instance { return slices.Clone(s.retained) }

// Staleness is nil while the snapshot follows etcd.
func (s *Snapshot) Staleness() *Staleness { return s.stale }

// Instance returns the instance of a whole key, nil where there is none.
func (s *Snapshot) Instance(key string) *Instance {
	if i, ok := find(s.instances, key); ok {
		return s.instances[i]
	}
	return nil
}

// Partition splits the instances by an address policy; nil means HostPort.
func (s *Snapshot) Partition(policy AddressPolicy) (allowed []*Instance, disallowed []Disallowed) {
	allowed = make([]*Instance, 0, len(s.instances))
	for _, inst := range s.instances {
		if err := policy.Check(inst.Addr); err != nil {
			disallowed = append(disallowed, Disallowed{Instance: inst, Cause: err})
			continue
		}
		allowed = append(allowed, inst)
	}
	return allowed, disallowed
}

// InstanceCounts are numbers of instances, each in one of them.
type InstanceCounts struct {
	Serving, Draining int
	Invalid           int // keys whose values are not endpoints
	Disallowed        int // by the address policy
	Retained          int // by SelfPreservation: they are gone from etcd
}

// Count counts the instances, with an address policy; nil means HostPort.
func (s *Snapshot) Count(policy AddressPolicy) InstanceCounts {
	counts := InstanceCounts{Invalid: len(s.invalid), Retained: len(s.retained)}
	for _, inst := range s.instances {
		switch {
		case policy.Check(inst.Addr) != nil:
			counts.Disallowed++
		case inst.Draining():
			counts.Draining++
		default:
			counts.Serving++
		}
	}
	return counts
}

// Change is one key's difference between two snapshots: Old is nil for a key that
// came, New for one that went.
type Change struct {
	Key      string
	Old, New *Instance
}

// Diff returns what changed from old to s, sorted by key. A nil old is empty. A key
// that was written again with the same value is a change: its ModRevision differs.
func (s *Snapshot) Diff(old *Snapshot) []Change {
	var before []*Instance
	if old != nil {
		before = old.instances
	}
	after := s.instances
	if len(after) > 0 && len(after) == len(before) && &after[0] == &before[0] { // they share them
		return nil
	}
	changes := make([]Change, 0, max(len(after)-len(before), 1)) // enough where some only came
	for {
		shared := 0 // most are
		for shared < min(len(before), len(after)) && before[shared] == after[shared] {
			shared++
		}
		before, after = before[shared:], after[shared:]
		switch {
		case len(before) == 0 && len(after) == 0:
			return changes
		case len(after) == 0 || len(before) > 0 && before[0].Key < after[0].Key:
			changes = append(changes, Change{Key: before[0].Key, Old: before[0]})
			before = before[1:]
		case len(before) == 0 || after[0].Key < before[0].Key:
			changes = append(changes, Change{Key: after[0].Key, New: after[0]})
			after = after[1:]
		default:
			if !before[0].Equal(after[0]) {
				changes = append(changes, Change{Key: after[0].Key, Old: before[0], New: after[0]})
			}
			before, after = before[1:], after[1:]
		}
	}
}

// entry is what a key holds: an instance, an invalid value, a service config, or nothing.
type entry struct {
	instance *Instance
	invalid  *Invalid
	config   *ServiceConfig
}

// decodeEntry reads a key-value of a service's prefix; see decode.
func decodeEntry(kv *mvccpb.KeyValue, prefix string) entry {
	if isConfigKey(kv.Key) {
		return entry{config: decodeServiceConfig(kv)}
	}
	inst, err := decode(kv, prefix)
	if err == nil {
		return entry{instance: inst}
	}
	return entry{invalid: &Invalid{
		Key:            string(kv.Key),
		Value:          kv.Value,
		Cause:          err,
		Lease:          clientv3.LeaseID(kv.Lease),
		CreateRevision: kv.CreateRevision,
		ModRevision:    kv.ModRevision,
	}}
}

func decodeEvent(ev *clientv3.Event, prefix string) entry {
	if ev.Type == clientv3.EventTypeDelete {
		return entry{}
	}
	return decodeEntry(ev.Kv, prefix)
}

// update is what an event has made of a key, at a revision.
type update struct {
	key      string
	revision int64
	entry
}

// next returns the snapshot after updates of different keys, sorted by key, live and at the given
// revision. Its instances are in preallocated where that is large enough, which is then no longer the
// caller's.
func (s *Snapshot) next(updates []update, revision int64, preallocated []*Instance) *Snapshot {
	n := *s
	n.revision = max(revision, s.revision)
	n.stale, n.retained = nil, nil
	n.instances = merge(s.instances, updates, func(e entry) *Instance { return e.instance }, preallocated)
	n.invalid = merge(s.invalid, updates, func(e entry) *Invalid { return e.invalid }, nil)
	n.configs = merge(s.configs, updates, func(e entry) *ServiceConfig { return e.config }, nil)
	return &n
}

// replacedBy returns the snapshot of a complete list, reusing the instances that did not
// change.
func (s *Snapshot) replacedBy(l *listing, at reflector.Version) *Snapshot {
	n := &Snapshot{prefix: s.prefix, revision: at.Revision, epoch: at.Epoch, instances: l.instances, invalid: l.invalid, configs: l.configs}
	old := s.instances
	for i, inst := range n.instances {
		if len(old) == 0 {
			break
		}
		for len(old) > 0 && old[0].Key < inst.Key {
			old = old[1:]
		}
		if len(old) > 0 && old[0].Equal(inst) {
			n.instances[i] = old[0]
		}
	}
	return n
}

// withStaleness returns the same content with another staleness.
func (s *Snapshot) withStaleness(stale *Staleness) *Snapshot {
	n := *s
	n.stale = stale
	return &n
}

// sameContent reports whether two snapshots of a prefix have the same writes.
func (s *Snapshot) sameContent(o *Snapshot) bool {
	return s.epoch == o.epoch && slices.EqualFunc(s.instances, o.instances, (*Instance).Equal)
}

// size returns how many keys the snapshot accounts for and their greatest ModRevision.
func (s *Snapshot) size() (keys int, modRevision int64) {
	for _, inst := range s.instances {
		modRevision = max(modRevision, inst.ModRevision)
	}
	for _, inv := range s.invalid {
		modRevision = max(modRevision, inv.ModRevision)
	}
	for _, config := range s.configs {
		modRevision = max(modRevision, config.ModRevision)
	}
	return len(s.instances) + len(s.invalid) + len(s.configs), modRevision
}

type keyed interface {
	*Instance | *Invalid | *ServiceConfig
	key() string
}

func (i *Instance) key() string { return i.Key }
func (r *Invalid) key() string  { return r.Key }

func find[E keyed](sorted []E, key string) (int, bool) {
	return slices.BinarySearchFunc(sorted, key, func(e E, key string) int { return strings.Compare(e.key(), key) })
}

// merge returns old with the keys of updates replaced by what of returns for them, or left out where that
// is nil. Both inputs are sorted; old is not changed.
func merge[E keyed](old []E, updates []update, of func(entry) E, preallocated []E) []E {
	if len(old) == 0 && !slices.ContainsFunc(updates, func(u update) bool { return of(u.entry) != nil }) {
		return nil
	}
	merged := preallocated[:0]
	if cap(merged) < len(old)+len(updates) {
		merged = make([]E, 0, len(old)+len(updates))
	}
	for _, u := range updates {
		i, found := find(old, u.key)
		merged = append(merged, old[:i]...)
		if e := of(u.entry); e != nil {
			merged = append(merged, e)
		}
		if found {
			i++
		}
		old = old[i:]
	}
	return append(merged, old...)
}

// listing is a key range's content while it arrives.
type listing struct {
	prefix    string
	instances []*Instance      // sorted by key
	invalid   []*Invalid       // sorted by key
	configs   []*ServiceConfig // sorted by key
}

// Add decodes the next part of the list.
func (l *listing) Add(kvs []*mvccpb.KeyValue) {
	l.instances = slices.Grow(l.instances, len(kvs))
	for _, kv := range kvs {
		switch e := decodeEntry(kv, l.prefix); {
		case e.instance != nil:
			l.instances = append(l.instances, e.instance)
		case e.invalid != nil:
			l.invalid = append(l.invalid, e.invalid)
		default:
			l.configs = append(l.configs, e.config)
		}
	}
}
