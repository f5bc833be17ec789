// SPDX-FileCopyrightText: The Rollcall Authors
// SPDX-License-Identifier: Apache-2.0

package rollcall

import (
	"bytes"
	"encoding/json"
	"fmt"
	"math"

	clientv3 "go.etcd.io/etcd/client/v3"

	"github.com/rollcall-grpc/rollcall/internal/jsonscan"
)

// Instance is one endpoint of a service as etcd holds it. It is immutable and
// shared: two snapshots of a Directory hold the same Instance of a key that
// nothing wrote in between.
type Instance struct {
	Key            string           // whole key: "<service>/<id>"
	Addr           string           // as stored; not checked by any AddressPolicy
	Metadata       json.RawMessage  // as stored; nil when absent or null
	Lease          clientv3.LeaseID // 0: none
	CreateRevision int64
	ModRevision    int64
}

// Equal says whether both are the same write of the same key.
func (i *Instance) Equal(o *Instance) bool {
	return i == o || i != nil && o != nil &&
		i.ModRevision == o.ModRevision && i.CreateRevision == o.CreateRevision &&
		i.Lease == o.Lease && i.Key == o.Key && i.SameValue(o)
}

// SameValue says whether both hold the same address and metadata, byte for byte.
func (i *Instance) SameValue(o *Instance) bool {
	return i.Addr == o.Addr && bytes.Equal(i.Metadata, o.Metadata)
}

// Attributes are the fields of an object in Metadata that mean something to
// Rollcall. A field of a wrong type or range keeps its default and is listed in
// Invalid; the endpoint itself stays.
type Attributes struct {
	Weight   uint32 // "weight", 1 to 2^32-1; default 1
	Region   string // "region"
	Zone     string // "zone"
	Subzone  string // "subzone"
	Version  string // "version"
	HashKey  string // "hash_key": where ring_hash puts the endpoint; default its id
	Draining bool   // "status": "draining"; default "serving"
	Invalid  []FieldError
}

// FieldError is one field of the metadata that was not understood.
type FieldError struct {
	Field  string // JSON name
	Reason string
}

func (e FieldError) Error() string { return fmt.Sprintf("metadata field %q: %s", e.Field, e.Reason) }

// The values of the metadata field "status".
const (
	StatusServing  = "serving"
	StatusDraining = "draining"
)

// Status is the field "status" as text.
func (a Attributes) Status() string {
	if a.Draining {
		return StatusDraining
	}
	return StatusServing
}

// Attributes reads Metadata.
func (i *Instance) Attributes() Attributes {
	if a, ok := scanAttributes(i.Metadata); ok {
		return a
	}
	return parseAttributes(i.Metadata)
}

// Draining is Attributes().Draining, at hardly any cost.
func (i *Instance) Draining() bool {
	named := bytes.Contains(i.Metadata, []byte(StatusDraining)) || bytes.IndexByte(i.Metadata, '\\') >= 0
	return named && i.Attributes().Draining
}

// parseAttributes reads metadata, valid JSON of any kind.
func parseAttributes(metadata json.RawMessage) Attributes {
	a := Attributes{Weight: 1}
	if len(metadata) == 0 || metadata[0] != '{' {
		return a
	}
	var fields map[string]json.RawMessage
	if err := json.Unmarshal(metadata, &fields); err != nil {
		return a
	}
	a.Region = a.text(fields, "region")
	a.Zone = a.text(fields, "zone")
	a.Subzone = a.text(fields, "subzone")
	a.Version = a.text(fields, "version")
	a.HashKey = a.text(fields, "hash_key")
	if raw, ok := fields["weight"]; ok {
		var w float64
		if json.Unmarshal(raw, &w) != nil || w < 1 || w > math.MaxUint32 || w != math.Trunc(w) {
			a.reject("weight", "want a whole number from 1 to 4294967295")
		} else {
			a.Weight = uint32(w)
		}
	}
	switch status := a.text(fields, "status"); status {
	case "", StatusServing:
	case StatusDraining:
		a.Draining = true
	default:
		a.reject("status", `want "serving" or "draining"`)
	}
	return a
}

func (a *Attributes) text(fields map[string]json.RawMessage, name string) (s string) {
	raw, ok := fields[name]
	if ok && json.Unmarshal(raw, &s) != nil {
		a.reject(name, "want a string")
	}
	return s
}

func (a *Attributes) reject(field, reason string) {
	a.Invalid = append(a.Invalid, FieldError{Field: field, Reason: reason})
}

// scanAttributes reads metadata of the usual form, every field of the type and range that
// it should have, as parseAttributes does, or says that it cannot tell.
func scanAttributes(metadata []byte) (a Attributes, ok bool) {
	s := jsonscan.New(metadata, 0)
	a.Weight = 1
	var seen jsonscan.FieldSet
	for s.Enter('{'); s.Next('}'); {
		switch string(s.Name()) {
		case "weight":
			seen.Add(&s, 0)
			a.Weight = s.Uint32()
		case "region":
			seen.Add(&s, 1)
			a.Region = string(s.Text())
		case "zone":
			seen.Add(&s, 2)
			a.Zone = string(s.Text())
		case "subzone":
			seen.Add(&s, 3)
			a.Subzone = string(s.Text())
		case "version":
			seen.Add(&s, 4)
			a.Version = string(s.Text())
		case "hash_key":
			seen.Add(&s, 5)
			a.HashKey = string(s.Text())
		case "status":
			seen.Add(&s, 6)
			switch string(s.Text()) {
			case "", StatusServing:
			case StatusDraining:
				a.Draining = true
			default:
				s.Fail()
			}
		default:
			s.Raw()
		}
	}
	return a, s.Done()
}

// WithField returns metadata with a field set to a value, or without it where the value
// is nil; other fields stay as they are, and an object without any becomes nil. Metadata
// that is neither null nor an object has no fields: an *InputError.
func WithField(metadata json.RawMessage, name string, value any) (json.RawMessage, error) {
	var fields map[string]json.RawMessage
	if len(metadata) > 0 {
		if err := json.Unmarshal(metadata, &fields); err != nil {
			return nil, inputError("metadata", string(metadata), "only an object can carry %q", name)
		}
	}
	if fields == nil {
		fields = make(map[string]json.RawMessage)
	}
	delete(fields, name)
	if value != nil {
		data, err := json.Marshal(value)
		if err != nil {
			return nil, inputError("metadata field", name, "it cannot be written as JSON: %v", err)
		}
		fields[name] = data
	}
	if len(fields) == 0 {
		return nil, nil
	}
	return json.Marshal(fields)
}
