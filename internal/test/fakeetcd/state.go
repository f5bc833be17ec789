// SPDX-FileCopyrightText: The Rollcall Authors
// SPDX-License-Identifier: Apache-2.0

package fakeetcd

import (
	"maps"
	"slices"
	"sort"

	"go.etcd.io/etcd/api/v3/mvccpb"
	"go.etcd.io/etcd/api/v3/v3rpc/rpctypes"
)

// version is the value of a key from one revision on.
type version struct {
	revision int64
	kv       *mvccpb.KeyValue // nil: deleted; never changed once stored
}

// commit is the events of one revision, in the order of their operations.
type commit struct {
	revision int64
	events   []*mvccpb.Event // PrevKv always set where there was one
}

// state is the data at its latest revision and since the last compaction. It
// knows neither time nor clients.
type state struct {
	revision  int64
	compacted int64    // 0: never
	keys      []string // sorted; all that have versions
	versions  map[string][]version
	log       []commit
	attached  map[int64]map[string]struct{} // lease to keys; every live lease has an entry
}

func newState() *state {
	return &state{
		revision: 1,
		versions: make(map[string][]version),
		attached: make(map[int64]map[string]struct{}),
	}
}

// clone copies what changes in place.
func (s *state) clone() *state {
	c := &state{
		revision:  s.revision,
		compacted: s.compacted,
		keys:      slices.Clone(s.keys),
		versions:  make(map[string][]version, len(s.versions)),
		log:       slices.Clone(s.log),
		attached:  make(map[int64]map[string]struct{}, len(s.attached)),
	}
	for k, v := range s.versions {
		c.versions[k] = slices.Clone(v)
	}
	for id, keys := range s.attached {
		c.attached[id] = maps.Clone(keys)
	}
	return c
}

// at returns the value of a key at the revision, or nil.
func (s *state) at(key string, revision int64) *mvccpb.KeyValue {
	vs := s.versions[key]
	i := sort.Search(len(vs), func(i int) bool { return vs[i].revision > revision })
	if i == 0 {
		return nil
	}
	return vs[i-1].kv
}

// span returns the values of the keys in [key, end) at the revision, sorted by key. Without an end it
// is the key alone; with "\x00", all keys from key on.
func (s *state) span(key, end []byte, revision int64) []*mvccpb.KeyValue {
	if len(end) == 0 {
		if kv := s.at(string(key), revision); kv != nil {
			return []*mvccpb.KeyValue{kv}
		}
		return nil
	}
	var out []*mvccpb.KeyValue
	from, _ := slices.BinarySearch(s.keys, string(key))
	for _, k := range s.keys[from:] {
		if !inRange(k, key, end) {
			break
		}
		if kv := s.at(k, revision); kv != nil {
			out = append(out, kv)
		}
	}
	return out
}

// inRange reports whether k is in [key, end), with etcd's two special ends.
func inRange(k string, key, end []byte) bool {
	switch {
	case len(end) == 0:
		return k == string(key)
	case isFromKey(end):
		return k >= string(key)
	default:
		return k >= string(key) && k < string(end)
	}
}

func isFromKey(end []byte) bool { return len(end) == 1 && end[0] == 0 }

// since returns the commits from the revision on.
func (s *state) since(revision int64) []commit {
	i := sort.Search(len(s.log), func(i int) bool { return s.log[i].revision >= revision })
	return s.log[i:]
}

// compact drops what no read at revision or later can see.
func (s *state) compact(revision int64) error {
	switch {
	case revision <= s.compacted:
		return rpctypes.ErrGRPCCompacted
	case revision > s.revision:
		return rpctypes.ErrGRPCFutureRev
	}
	s.compacted = revision
	s.log = slices.Clone(s.since(revision))
	for key, vs := range s.versions {
		i := sort.Search(len(vs), func(i int) bool { return vs[i].revision > revision })
		if i == 0 {
			continue
		}
		if vs = vs[i-1:]; vs[0].kv == nil {
			vs = vs[1:]
		}
		s.versions[key] = slices.Clone(vs)
		if len(vs) == 0 {
			delete(s.versions, key)
		}
	}
	s.keys = slices.DeleteFunc(s.keys, func(k string) bool { return s.versions[k] == nil })
	return nil
}

// bump raises the revision by n and marks all that was before as compacted.
func (s *state) bump(n int64) {
	s.revision += n
	_ = s.compact(s.revision) // above the last compaction since n > 0
}

// record adds one version of a key.
func (s *state) record(key string, v version) {
	if _, ok := s.versions[key]; !ok {
		i, _ := slices.BinarySearch(s.keys, key)
		s.keys = slices.Insert(s.keys, i, key)
	}
	s.versions[key] = append(s.versions[key], v)
}

// cloneKV copies a key-value for a client; empty bytes become nil, as when decoded.
func cloneKV(kv *mvccpb.KeyValue) *mvccpb.KeyValue {
	if kv == nil {
		return nil
	}
	return &mvccpb.KeyValue{
		Key:            append([]byte(nil), kv.Key...),
		CreateRevision: kv.CreateRevision,
		ModRevision:    kv.ModRevision,
		Version:        kv.Version,
		Value:          append([]byte(nil), kv.Value...),
		Lease:          kv.Lease,
	}
}

func cloneKVs(kvs []*mvccpb.KeyValue) []*mvccpb.KeyValue {
	out := make([]*mvccpb.KeyValue, len(kvs))
	for i, kv := range kvs {
		out[i] = cloneKV(kv)
	}
	return out
}

// leaseKeys returns the keys attached to a lease, sorted.
func (s *state) leaseKeys(id int64) []string {
	return slices.Sorted(maps.Keys(s.attached[id]))
}
