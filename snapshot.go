// SPDX-FileCopyrightText: The Rollcall Authors
// SPDX-License-Identifier: Apache-2.0

package rollcall

import (
	"bytes"
	"encoding/json"
	"errors"
	"iter"
	"slices"
	"strings"
	"time"

	"go.etcd.io/etcd/api/v3/mvccpb"
	clientv3 "go.etcd.io/etcd/client/v3"
)

// Snapshot is what etcd held under one prefix at one revision. It is immutable:
// its slices are shared and must not be changed.
type Snapshot struct {
	prefix    string
	revision  int64
	history   int
	instances []*Instance // Invariant: sorted by key, no key in both slices.
	rejected  []*Invalid  // Invariant: sorted by key.
	held      []*Instance // Invariant: sorted by key, none in instances.
	stale     *Staleness
}

// Invalid is a key whose value is no endpoint. Decode says what is.
type Invalid struct {
	Key            string
	Value          []byte // as stored; it must not be changed
	Cause          error
	Lease          clientv3.LeaseID // 0: none
	CreateRevision int64
	ModRevision    int64
}

// Disallowed is an instance whose address an AddressPolicy refuses.
type Disallowed struct {
	Instance *Instance
	Cause    error
}

// Staleness says why a snapshot may be out of date. What it holds was true.
type Staleness struct {
	Since time.Time
	Cause error
}

// Prefix is what the keys start with: "<service>/", or what was asked for.
func (s *Snapshot) Prefix() string { return s.prefix }

// Service is the prefix without its last "/".
func (s *Snapshot) Service() string { return strings.TrimSuffix(s.prefix, "/") }

// Revision is a revision of the store at which the snapshot held. Within one
// History it never goes backwards.
func (s *Snapshot) Revision() int64 { return s.revision }

// History counts the histories that the Directory has followed, from 0. It grows
// when etcd lost its data or was restored from a backup; revisions of different
// histories cannot be compared.
// -1 is the history of a file of DirectoryOptions.CacheDir, comparable to none.
func (s *Snapshot) Epoch() int { return s.history }

// Instances returns the endpoints, sorted by key.
func (s *Snapshot) Instances() []*Instance { return s.instances }

// All returns an iterator over the instances, in the order of their keys.
func (s *Snapshot) All() iter.Seq[*Instance] { return slices.Values(s.instances) }

// Len returns the number of instances.
func (s *Snapshot) Len() int { return len(s.instances) }

// Invalid returns the keys whose values are no endpoints, sorted by key.
func (s *Snapshot) Invalid() []*Invalid { return s.rejected }

// Held returns instances that etcd holds no longer, sorted by key, but that a Hold keeps
// callable. Instances does not hold them.
func (s *Snapshot) Retained() []*Instance { return s.held }

// Stale is nil while the snapshot follows etcd.
func (s *Snapshot) Staleness() *Staleness { return s.stale }

// ID is what follows the prefix in an instance's key.
func (s *Snapshot) ID(i *Instance) string { return strings.TrimPrefix(i.Key, s.prefix) }

// Instance returns the instance of a whole key, nil where there is none.
func (s *Snapshot) Instance(key string) *Instance {
	if i, ok := find(s.instances, key); ok {
		return s.instances[i]
	}
	return nil
}

// ServiceConfig returns what SubscribeConfig found, which may be empty or worse; nil where
// the service has none.
func (s *Snapshot) ServiceConfig() json.RawMessage {
	if i, ok := find(s.rejected, s.prefix); ok {
		return append(json.RawMessage{}, s.rejected[i].Value...)
	}
	return nil
}

// Screen splits the instances by an address policy; nil means HostPort.
func (s *Snapshot) Partition(policy AddressPolicy) (taken []*Instance, refused []Disallowed) {
	taken = make([]*Instance, 0, len(s.instances))
	for _, inst := range s.instances {
		if err := policy.Check(inst.Addr); err != nil {
			refused = append(refused, Disallowed{Instance: inst, Cause: err})
			continue
		}
		taken = append(taken, inst)
	}
	return taken, refused
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

var errServiceConfig = errors.New("a service config, no endpoint")

// entry is what a key holds: an instance, a rejected value, or nothing.
type entry struct {
	instance *Instance
	rejected *Invalid
}

// decodeEntry reads a key-value. A service config is no endpoint, whatever it says.
func decodeEntry(kv *mvccpb.KeyValue) entry {
	err := errServiceConfig
	if !bytes.HasPrefix(kv.Key, []byte(ConfigPrefix)) {
		var inst *Instance
		if inst, err = decode(kv, ""); err == nil {
			return entry{instance: inst}
		}
	}
	return entry{rejected: &Invalid{
		Key:            string(kv.Key),
		Value:          kv.Value,
		Cause:          err,
		Lease:          clientv3.LeaseID(kv.Lease),
		CreateRevision: kv.CreateRevision,
		ModRevision:    kv.ModRevision,
	}}
}

func decodeEvent(ev *clientv3.Event) entry {
	if ev.Type == clientv3.EventTypeDelete {
		return entry{}
	}
	return decodeEntry(ev.Kv)
}

// next returns the snapshot after changes by key, live and at the given revision. Its
// instances are in room where that is large enough, which is then no longer the caller's.
func (s *Snapshot) next(changes map[string]entry, revision int64, room []*Instance) *Snapshot {
	keys := make([]string, 0, len(changes))
	for key := range changes {
		keys = append(keys, key)
	}
	slices.Sort(keys)
	n := *s
	n.revision = max(revision, s.revision)
	n.stale, n.held = nil, nil
	n.instances = merge(s.instances, keys, func(key string) *Instance { return changes[key].instance }, room)
	n.rejected = merge(s.rejected, keys, func(key string) *Invalid { return changes[key].rejected }, nil)
	return &n
}

// relisted returns the snapshot of a complete list, reusing what did not change.
func (s *Snapshot) relisted(got listing, history int) *Snapshot {
	n := &Snapshot{prefix: s.prefix, revision: got.revision, history: history, instances: got.instances, rejected: got.rejected}
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

// restated returns the same content with another staleness.
func (s *Snapshot) restated(stale *Staleness) *Snapshot {
	n := *s
	n.stale = stale
	return &n
}

// sameContent says whether two snapshots of a prefix hold the same writes.
func (s *Snapshot) sameContent(o *Snapshot) bool {
	return s.history == o.history && slices.EqualFunc(s.instances, o.instances, (*Instance).Equal)
}

// extent returns how many keys the snapshot accounts for and their greatest
// ModRevision: what a read of the store must agree with.
func (s *Snapshot) extent() (count int64, modRevision int64) {
	for _, inst := range s.instances {
		modRevision = max(modRevision, inst.ModRevision)
	}
	for _, rej := range s.rejected {
		modRevision = max(modRevision, rej.ModRevision)
	}
	return int64(len(s.instances) + len(s.rejected)), modRevision
}

type keyed interface {
	*Instance | *Invalid
	key() string
}

func (i *Instance) key() string { return i.Key }
func (r *Invalid) key() string  { return r.Key }

func find[E keyed](sorted []E, key string) (int, bool) {
	return slices.BinarySearchFunc(sorted, key, func(e E, key string) int { return strings.Compare(e.key(), key) })
}

// merge returns old with the given keys replaced by what at returns for them, or
// left out where that is nil. Both inputs are sorted; old is not changed.
func merge[E keyed](old []E, keys []string, at func(key string) E, room []E) []E {
	merged := room[:0]
	if cap(merged) < len(old)+len(keys) {
		merged = make([]E, 0, len(old)+len(keys))
	}
	for _, key := range keys {
		i, found := find(old, key)
		merged = append(merged, old[:i]...)
		if e := at(key); e != nil {
			merged = append(merged, e)
		}
		if found {
			i++
		}
		old = old[i:]
	}
	return append(merged, old...)
}

// roomFor returns memory for the instances of a next snapshot, in advance: a page that was
// never touched costs more than all that is written to it.
func roomFor(n int) []*Instance {
	room := make([]*Instance, n+n/16+4)
	clear(room)
	return room
}
