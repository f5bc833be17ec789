// SPDX-FileCopyrightText: The Rollcall Authors
// SPDX-License-Identifier: Apache-2.0

package edit

import (
	"slices"
	"strings"

	"github.com/rollcall-grpc/rollcall"
	"github.com/rollcall-grpc/rollcall/internal/printable"
)

// Finder returns keys of a service, each once and sorted. Where a name has none, or a selector selects none, there is a
// *NotFoundError beside those that were found.
type Finder func(*rollcall.Snapshot) ([]Key, error)

// WithID finds the key of an id.
func WithID(id string) Finder {
	return func(snap *rollcall.Snapshot) ([]Key, error) {
		keys := withKey(snap, rollcall.Key(snap.Service(), id))
		if len(keys) == 0 {
			return nil, notFound(snap, NotFoundError{Name: id})
		}
		return keys, nil
	}
}

// Named finds the keys of names. A name is an id or, if there is no such id, an address; or else an id as it is shown
// where it has characters that cannot be printed.
func Named(names ...string) Finder {
	return func(snap *rollcall.Snapshot) (all []Key, err error) {
		for _, name := range names {
			keys := named(snap, name)
			if len(keys) == 0 && err == nil {
				err = notFound(snap, NotFoundError{Name: name})
			}
			all = append(all, keys...)
		}
		slices.SortFunc(all, func(a, b Key) int { return strings.Compare(a.Key, b.Key) })
		return slices.CompactFunc(all, func(a, b Key) bool { return a.Key == b.Key }), err
	}
}

// Selected finds the keys of the instances that a selector selects.
func Selected(selector rollcall.Selector) Finder {
	return func(snap *rollcall.Snapshot) (all []Key, err error) {
		for i := range snap.All() {
			if selector.Matches(i) {
				all = append(all, keyOf(i))
			}
		}
		if len(all) == 0 {
			return nil, notFound(snap, NotFoundError{Selector: selector.String()})
		}
		return all, nil
	}
}

// SelectedOf is Selected, but for keys that a list of all services shows under a service within the given one.
func SelectedOf(service string, selector rollcall.Selector) Finder {
	return func(snap *rollcall.Snapshot) ([]Key, error) {
		keys, err := Selected(selector)(snap)
		keys = slices.DeleteFunc(keys, func(k Key) bool {
			of, _ := rollcall.SplitKey(k.Key)
			return of != service
		})
		if len(keys) == 0 && err == nil {
			err = notFound(snap, NotFoundError{Selector: selector.String()})
		}
		return keys, err
	}
}

// Everything is a Finder of all keys of a service.
func Everything(snap *rollcall.Snapshot) (all []Key, err error) {
	for i := range snap.All() {
		all = append(all, keyOf(i))
	}
	for _, r := range snap.Invalid() {
		all = append(all, invalidKey(r))
	}
	if len(all) == 0 {
		return nil, notFound(snap, NotFoundError{})
	}
	slices.SortFunc(all, func(a, b Key) int { return strings.Compare(a.Key, b.Key) })
	return all, nil
}

func notFound(snap *rollcall.Snapshot, missing NotFoundError) error {
	missing.Service, missing.Revision, missing.NoService = snap.Service(), snap.Revision(), snap.Len()+len(snap.Invalid()) == 0
	for i := range snap.All() {
		missing.IDs = append(missing.IDs, i.ID())
	}
	return &missing
}

func named(snap *rollcall.Snapshot, name string) (keys []Key) {
	key := rollcall.Key(snap.Service(), name)
	if keys = withKey(snap, key); len(keys) > 0 {
		return keys
	}
	for i := range snap.All() {
		if i.Addr == name {
			keys = append(keys, keyOf(i))
		}
	}
	if len(keys) > 0 || !strings.Contains(name, `\`) {
		return keys
	}
	for _, r := range snap.Invalid() {
		if printable.Escape(r.Key) == key {
			keys = append(keys, invalidKey(r))
		}
	}
	for i := range snap.All() {
		if printable.Escape(i.Key) == key {
			keys = append(keys, keyOf(i))
		}
	}
	return keys
}

// withKey returns the key, or nothing if the service does not have it.
func withKey(snap *rollcall.Snapshot, key string) []Key {
	for _, r := range snap.Invalid() {
		if r.Key == key {
			return []Key{invalidKey(r)}
		}
	}
	if i := snap.Instance(key); i != nil {
		return []Key{keyOf(i)}
	}
	return nil
}

func invalidKey(r *rollcall.Invalid) Key {
	return Key{r.Key, r.Lease, r.CreateRevision, r.ModRevision, nil, nil, r.Cause}
}

func keyOf(i *rollcall.Instance) Key {
	return Key{i.Key, i.Lease, i.CreateRevision, i.ModRevision, nil, i, nil}
}
