// SPDX-FileCopyrightText: The Rollcall Authors
// SPDX-License-Identifier: Apache-2.0

package inventory

import (
	"slices"
	"strings"

	"github.com/rollcall-grpc/rollcall"
)

// Follower makes the rows of one snapshot after the other, and of each only those of keys that were
// written since the one before: a live view of many instances must not read all metadata each time.
type Follower struct {
	split   Splitter
	sources []source    // of the last snapshot, sorted by key
	rows    []*Instance // one for each
}

// source is what a row is made of: snapshots share what did not change.
type source struct {
	instance *rollcall.Instance
	invalid  *rollcall.Invalid
	retained bool
}

func (s source) key() string {
	if s.invalid != nil {
		return s.invalid.Key
	}
	return s.instance.Key
}

// NewFollower returns a Follower whose rows are split by split.
func NewFollower(split Splitter) *Follower { return &Follower{split: split} }

// Next returns what Instances returns. The rows must not be changed: they are returned again.
func (f *Follower) Next(snap *rollcall.Snapshot) []*Instance {
	sources := sourcesOf(snap)
	rows := make([]*Instance, len(sources))
	old := 0
	for i, s := range sources {
		for old < len(f.sources) && f.sources[old] != s && f.sources[old].key() < s.key() {
			old++
		}
		if old < len(f.sources) && f.sources[old] == s {
			rows[i] = f.rows[old]
			old++
		} else {
			rows[i] = f.of(s)
		}
	}
	f.sources, f.rows = sources, rows
	return rows
}

// sourcesOf returns the sources of all rows, sorted by key.
func sourcesOf(snap *rollcall.Snapshot) []source {
	invalid, retained := snap.Invalid(), snap.Retained()
	sources := make([]source, 0, snap.Len()+len(invalid)+len(retained))
	for inst := range snap.All() {
		sources = append(sources, source{instance: inst})
	}
	for _, inst := range retained {
		sources = append(sources, source{instance: inst, retained: true})
	}
	for _, i := range invalid {
		sources = append(sources, source{invalid: i})
	}
	if len(invalid)+len(retained) > 0 {
		slices.SortFunc(sources, func(a, b source) int { return strings.Compare(a.key(), b.key()) })
	}
	return sources
}

func (f *Follower) of(s source) *Instance {
	if s.invalid != nil {
		row := ofInvalid(s.invalid, f.split)
		return &row
	}
	row := Of(s.instance, f.split)
	if s.retained {
		row.Status = Retained
	}
	return &row
}
