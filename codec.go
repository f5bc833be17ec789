// SPDX-FileCopyrightText: The Rollcall Authors
// SPDX-License-Identifier: Apache-2.0

package rollcall

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strings"
	"unsafe"

	"go.etcd.io/etcd/api/v3/mvccpb"
	clientv3 "go.etcd.io/etcd/client/v3"

	"github.com/rollcall-grpc/rollcall/internal/jsonscan"
)

// MaxMetadata is the maximum size of metadata, in bytes of JSON.
const MaxMetadata = 1 << 20

// storedValue is a value as etcd's naming packages have written it since 3.1, with its fields
// in this order. Op is 0 for an endpoint; grpc-go's former naming.Update also had 1, for a
// deletion.
type storedValue struct {
	Op       uint8
	Addr     string
	Metadata json.RawMessage
}

// Encode returns the value of an endpoint, byte for byte as etcd's naming package writes
// it: {"Op":0,"Addr":"...","Metadata":...}. Decode can read it. An empty address, and
// metadata that cannot be written as JSON or is over MaxMetadata, is an *InputError.
func Encode(addr string, metadata any) ([]byte, error) {
	data, err := encodeMetadata(metadata)
	if err != nil {
		return nil, err
	}
	return encodeValue(addr, data)
}

// encodeMetadata returns metadata as JSON, compact, and escaped as in an object around it.
func encodeMetadata(metadata any) ([]byte, error) {
	data, err := json.Marshal(metadata)
	if err != nil {
		text := fmt.Sprint(metadata)
		if raw, ok := metadata.(json.RawMessage); ok {
			text = string(raw)
		}
		return nil, inputError("metadata", text, "it cannot be written as JSON: %v", err)
	}
	return data, nil
}

// encodeValue is Encode for what encodeMetadata has returned.
func encodeValue(addr string, metadata []byte) ([]byte, error) {
	text, err := json.Marshal(addr)
	if err != nil {
		return nil, inputError("address", addr, "it cannot be written as JSON: %v", err)
	}
	value := slices.Concat(encoded, text, encodedMetadata, metadata, []byte{'}'})
	if _, _, err := parseValue(value); err != nil {
		field, text := "metadata", string(metadata)
		if addr == "" {
			field, text = "address", addr
		}
		return nil, inputError(field, text, "%v", err)
	}
	return value, nil
}

// Decode decodes a key-value as etcd returns it. Field names match in any case, "Op" may be
// missing, and unknown fields are ignored. An error means that the value is invalid: not
// JSON, no address, a wrong type, a stored deletion, metadata over MaxMetadata, or nested
// deeper than 10,000. The instance may refer to kv.Key and kv.Value, which must not be changed.
func Decode(kv *mvccpb.KeyValue) (*Instance, error) { return decode(kv, "") }

// decode is Decode for a key under a prefix. A prefix that ends in "/" is the instance's
// service; with any other, the key is split at its last "/".
func decode(kv *mvccpb.KeyValue, prefix string) (*Instance, error) {
	addr, metadata, err := parseValue(kv.Value)
	if err != nil {
		return nil, err
	}
	inst := &Instance{
		Key:            textOf(kv.Key),
		Metadata:       metadata,
		Lease:          clientv3.LeaseID(kv.Lease),
		CreateRevision: kv.CreateRevision,
		ModRevision:    kv.ModRevision,
		service:        serviceLen(prefix),
	}
	if metadata != nil { // it keeps the value in memory
		inst.Addr = textOf(addr)
	} else {
		inst.Addr = string(addr)
	}
	return inst, nil
}

// textOf returns bytes as a string in the same memory. They must not be changed.
func textOf(b []byte) string { return unsafe.String(unsafe.SliceData(b), len(b)) }

func serviceLen(prefix string) int {
	if !strings.HasSuffix(prefix, "/") {
		return 0
	}
	return len(prefix) - 1
}

// parseValue is decodeValue, by scanValue where the value has the usual form. What it returns
// may be parts of the value.
func parseValue(value []byte) (addr, metadata []byte, err error) {
	if addr, metadata, ok := scanValue(value); ok {
		return addr, metadata, nil
	}
	text, metadata, err := decodeValue(value)
	return []byte(text), metadata, err
}

func decodeValue(data []byte) (addr string, metadata json.RawMessage, err error) {
	var v storedValue
	if err := json.Unmarshal(data, &v); err != nil {
		return "", nil, fmt.Errorf("value is not an endpoint: %w", err)
	}
	switch {
	case v.Op != 0:
		return "", nil, fmt.Errorf("value is a stored deletion (Op %d), not an endpoint", v.Op)
	case v.Addr == "":
		return "", nil, errors.New("value has no Addr")
	case len(v.Metadata) > MaxMetadata:
		return "", nil, fmt.Errorf("metadata of %d bytes is over the limit of %d", len(v.Metadata), MaxMetadata)
	}
	if string(v.Metadata) == "null" {
		v.Metadata = nil
	}
	return v.Addr, v.Metadata, nil
}

// encoded is the start of every value that Encode returns, encodedMetadata what follows the address.
var (
	encoded         = []byte(`{"Op":0,"Addr":`)
	encodedMetadata = []byte(`,"Metadata":`)
)

// scanValue is decodeValue for values of the usual form: ASCII without escapes, each name
// once and spelled as by Encode. It reports whether the value has that form. addr and
// metadata are parts of the value. It is about thirty times faster: BenchmarkDecode.
func scanValue(value []byte) (addr, metadata []byte, ok bool) {
	s := jsonscan.New(value, 0)
	var seen jsonscan.FieldSet
	const op, address, metadataField = 0, 1, 2
	if bytes.HasPrefix(value, encoded) {
		s = jsonscan.New(value, len(encoded))
		addr = s.Text()
		seen = 1<<op | 1<<address
	} else {
		s.Enter('{')
	}
	for s.Next('}') {
		switch name := s.Name(); string(name) {
		case "Op":
			seen.Add(&s, op)
			s.Literal("0")
		case "Addr":
			seen.Add(&s, address)
			addr = s.Text()
		case "Metadata":
			seen.Add(&s, metadataField)
			metadata = s.Raw()
		default:
			if likeField(name) {
				s.Fail()
			}
			s.Raw()
		}
	}
	if !s.Done() || len(addr) == 0 || len(metadata) > MaxMetadata {
		return nil, nil, false
	}
	if string(metadata) == "null" {
		metadata = nil
	}
	return addr, metadata, true
}

// likeField reports whether encoding/json would match a name to one of the value's fields.
func likeField(name []byte) bool {
	return strings.EqualFold(string(name), "Op") || strings.EqualFold(string(name), "Addr") || strings.EqualFold(string(name), "Metadata")
}
