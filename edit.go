// SPDX-FileCopyrightText: The Rollcall Authors
// SPDX-License-Identifier: Apache-2.0

package rollcall

import (
	"bytes"
	"encoding/json"
	"maps"
)

// edit is what an operator has made of an endpoint: base is what the program wanted, and
// value what the key held; status is what the operator has set, "" for nothing.
type edit struct {
	base, value []byte
	status      string
}

// drained returns an endpoint's value with its status set to draining.
func drained(value []byte) ([]byte, error) { return withStatus(value, StatusDraining) }

func withStatus(value []byte, status string) ([]byte, error) {
	addr, metadata, err := decodeValue(value)
	if err != nil {
		return nil, err
	}
	if metadata, err = WithField(metadata, "status", status); err != nil {
		return nil, err
	}
	return Encode(addr, metadata)
}

// statusOf returns the status that an endpoint's value sets, "" for none.
func statusOf(value []byte) (status string) {
	if _, metadata, err := decodeValue(value); err == nil {
		var fields map[string]json.RawMessage
		if json.Unmarshal(metadata, &fields) == nil {
			_ = json.Unmarshal(fields["status"], &status) // what is no string sets none
		}
	}
	return status
}

func isEndpoint(value []byte) bool {
	_, _, err := decodeValue(value)
	return err == nil
}

// mergeEdits returns the value of an endpoint that its program and an operator have both
// changed since base: what the program wants, in those fields that it changed, and what
// stands in etcd in all others. All three are values of endpoints. Metadata that is no
// object counts as one field.
func mergeEdits(base, wants, stands []byte) ([]byte, error) {
	switch {
	case bytes.Equal(base, wants):
		return stands, nil
	case bytes.Equal(base, stands):
		return wants, nil
	}
	var addrs [3]string
	var metadata [3]json.RawMessage
	var fields [3]map[string]json.RawMessage
	objects := true
	for i, value := range [][]byte{base, wants, stands} {
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
