// SPDX-FileCopyrightText: The Rollcall Authors
// SPDX-License-Identifier: Apache-2.0

package rollcall

import (
	"bytes"
	"encoding/json"
	"maps"
	"slices"
	"strconv"
)

// FieldChange is one field of an instance that differs between two writes of its key.
type FieldChange struct {
	Field    string          // "address", "lease", a field of the metadata, or "metadata" where that is no object
	Old, New json.RawMessage // nil: absent; a lease is a string, hexadecimal
}

// Fields returns what differs between Old and New: the address, the lease, then the fields of the
// metadata, sorted. It is empty where one of the two is nil, or the same value was written again.
func (c Change) Fields() (changed []FieldChange) {
	if c.Old == nil || c.New == nil {
		return nil
	}
	add := func(field string, was, now json.RawMessage) {
		if !bytes.Equal(was, now) {
			changed = append(changed, FieldChange{field, was, now})
		}
	}
	add("address", jsonText(c.Old.Addr), jsonText(c.New.Addr))
	add("lease", c.Old.leaseText(), c.New.leaseText())
	if bytes.Equal(c.Old.Metadata, c.New.Metadata) {
		return changed
	}
	before, wasObject := objectFields(c.Old.Metadata)
	after, isObject := objectFields(c.New.Metadata)
	if !wasObject || !isObject {
		add("metadata", c.Old.Metadata, c.New.Metadata)
		return changed
	}
	all := maps.Clone(before)
	maps.Copy(all, after)
	for _, field := range slices.Sorted(maps.Keys(all)) {
		add(field, before[field], after[field])
	}
	return changed
}

// objectFields returns the fields of metadata that is an object or absent.
func objectFields(metadata json.RawMessage) (fields map[string]json.RawMessage, ok bool) {
	fields = make(map[string]json.RawMessage)
	return fields, metadata == nil || json.Unmarshal(metadata, &fields) == nil
}

func jsonText(text string) json.RawMessage {
	data, _ := json.Marshal(text) // a string can be written
	return data
}

func (i *Instance) leaseText() json.RawMessage {
	if i.Lease == 0 {
		return nil
	}
	return jsonText(strconv.FormatInt(int64(i.Lease), 16))
}
