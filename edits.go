// SPDX-FileCopyrightText: The Rollcall Authors
// SPDX-License-Identifier: Apache-2.0

package rollcall

import (
	"bytes"
	"encoding/json"
	"maps"
)

// values are three versions of a key's value. They are merged, so that neither an operator's
// edit nor the program's next value is lost.
type values struct {
	applied []byte // what the program wanted when the key was last written
	current []byte // the key's value when it was last an endpoint of this Registrar
	status  string // the status that an operator has set; "": none
}

// edited reports whether the value has an operator's edit.
func (v *values) edited() bool { return v.status != "" || !bytes.Equal(v.applied, v.current) }

// target returns the value to write: the program's, with an operator's edits. The program's
// drain wins over an operator's status.
func (v *values) target(wanted []byte) []byte {
	target, err := mergeEdits(v.applied, wanted, v.current)
	if err != nil { // too large together
		target = wanted
	}
	if v.status == "" || v.status == statusOf(target) || statusOf(wanted) == StatusDraining {
		return target
	}
	if with, err := withStatus(target, v.status); err == nil {
		return with
	}
	return target
}

// drained returns an endpoint's value with its status set to draining.
func drained(value []byte) ([]byte, error) { return withStatus(value, StatusDraining) }

func withStatus(value []byte, status string) ([]byte, error) {
	addr, metadata, err := parseValue(value)
	if err != nil {
		return nil, err
	}
	with, err := WithField(metadata, "status", status)
	if err != nil {
		return nil, err
	}
	return Encode(string(addr), with)
}

// statusOf returns the status that an endpoint's value sets, "" for none.
func statusOf(value []byte) (status string) {
	if !bytes.Contains(value, []byte("status")) && bytes.IndexByte(value, '\\') < 0 {
		return ""
	}
	if _, metadata, err := parseValue(value); err == nil {
		var fields map[string]json.RawMessage
		if json.Unmarshal(metadata, &fields) == nil {
			_ = json.Unmarshal(fields["status"], &status) // a status that is not a string counts as none
		}
	}
	return status
}

func isEndpoint(value []byte) bool {
	_, _, err := parseValue(value)
	return err == nil
}

// mergeEdits is a three-way merge: it takes the fields that the program changed since base
// from wanted, and all others from current, which an operator may have edited. All three
// are values of endpoints. Metadata that is not an object counts as one field.
func mergeEdits(base, wanted, current []byte) ([]byte, error) {
	switch {
	case bytes.Equal(base, wanted):
		return current, nil
	case bytes.Equal(base, current):
		return wanted, nil
	}
	var addrs [3]string
	var metadata [3]json.RawMessage
	var fields [3]map[string]json.RawMessage
	objects := true
	for i, value := range [][]byte{base, wanted, current} {
		var err error
		if addrs[i], metadata[i], err = decodeValue(value); err != nil {
			return nil, err
		}
		objects = objects && (metadata[i] == nil || json.Unmarshal(metadata[i], &fields[i]) == nil)
	}
	addr := addrs[2]
	if addrs[0] != addrs[1] {
		addr = addrs[1]
	}
	if !objects {
		if bytes.Equal(metadata[0], metadata[1]) {
			return Encode(addr, metadata[2])
		}
		return Encode(addr, metadata[1])
	}
	merged := maps.Clone(fields[2])
	for name := range fields[0] {
		if _, wanted := fields[1][name]; !wanted {
			delete(merged, name)
		}
	}
	for name, wanted := range fields[1] {
		if was, ok := fields[0][name]; !ok || !bytes.Equal(was, wanted) {
			if merged == nil {
				merged = make(map[string]json.RawMessage)
			}
			merged[name] = wanted
		}
	}
	if len(merged) == 0 {
		return Encode(addr, nil)
	}
	return Encode(addr, merged)
}
