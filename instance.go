// SPDX-FileCopyrightText: The Rollcall Authors
// SPDX-License-Identifier: Apache-2.0

package rollcall

import (
	"bytes"
	"encoding/json"
	"strings"
	"time"

	clientv3 "go.etcd.io/etcd/client/v3"
)

// Instance is an endpoint of a service, as stored in etcd. It is immutable and shared: two
// snapshots of a Directory have the same *Instance for a key that was not written in between.
type Instance struct {
	Key            string           // whole key: "<service>/<id>"
	Addr           string           // as stored; not checked by any AddressPolicy
	Metadata       json.RawMessage  // as stored; nil when absent or null
	Lease          clientv3.LeaseID // 0: none
	CreateRevision int64
	ModRevision    int64

	service int // length of the service in Key; 0: up to the last "/"
}

// Service returns what precedes the "/" before the id in Key. Instances of a Snapshot know
// the target that they were asked for; others are split at the last "/".
func (i *Instance) Service() string {
	service, _ := i.splitKey()
	return service
}

// ID returns what follows Service and a "/" in Key. It may contain "/" where a Snapshot's
// target is known. A key without "/" is all id.
func (i *Instance) ID() string {
	_, id := i.splitKey()
	return id
}

func (i *Instance) splitKey() (service, id string) {
	if i.service > 0 {
		return i.Key[:i.service], i.Key[i.service+1:]
	}
	return SplitKey(i.Key)
}

// Equal reports whether both are the same write of the same key.
func (i *Instance) Equal(o *Instance) bool {
	return i == o || i != nil && o != nil &&
		i.ModRevision == o.ModRevision && i.CreateRevision == o.CreateRevision &&
		i.Lease == o.Lease && i.Key == o.Key && i.SameValue(o)
}

// SameValue reports whether both have the same address and metadata, byte for byte.
func (i *Instance) SameValue(o *Instance) bool {
	return i.Addr == o.Addr && bytes.Equal(i.Metadata, o.Metadata)
}

// NewerThan reports whether i rather than o stands for an address that both have: it was
// created later or, at the same revision, has the lesser key.
func (i *Instance) NewerThan(o *Instance) bool {
	return i.CreateRevision > o.CreateRevision || i.CreateRevision == o.CreateRevision && i.Key < o.Key
}

// Attributes reads Metadata anew at each call: to keep the result would double an Instance.
func (i *Instance) Attributes() Attributes {
	var texts fieldTexts
	invalid := texts.read(i.Metadata)
	a := Attributes{
		Weight:      max(parsePositive(texts[fieldWeight]), 1),
		Locality:    Locality{texts.get(fieldRegion), texts.get(fieldZone), texts.get(fieldSubzone)},
		Version:     texts.get(fieldVersion),
		HashKey:     texts.get(fieldHashKey),
		Draining:    string(texts[fieldStatus]) == StatusDraining,
		Host:        texts.get(fieldHost),
		MetricsPort: uint16(parsePositive(texts[fieldMetricsPort])),
		Invalid:     invalid,
	}
	if text := texts[fieldStarted]; len(text) > 0 {
		a.Started, _ = time.Parse(time.RFC3339, string(text)) // read has checked it
	}
	return a
}

// Draining returns Attributes().Draining, at hardly any cost: next to no metadata has the word, or
// an escape that may stand for it. See BenchmarkDraining.
func (i *Instance) Draining() bool {
	if !bytes.Contains(i.Metadata, []byte(StatusDraining)) && bytes.IndexByte(i.Metadata, '\\') < 0 {
		return false
	}
	texts := i.texts(fieldStatus)
	return string(texts[fieldStatus]) == StatusDraining
}

// WeightAndHashKey returns Attributes().Weight and HashKey, at hardly any cost.
func (i *Instance) WeightAndHashKey() (weight uint32, hashKey string) {
	texts := i.texts(fieldWeight, fieldHashKey)
	return max(parsePositive(texts[fieldWeight]), 1), string(texts[fieldHashKey])
}

// texts has the text of some fields, empty where there is none, and perhaps of others.
func (i *Instance) texts(some ...int) (texts fieldTexts) {
	for _, field := range some {
		text, ok := findField(i.Metadata, field)
		if !ok {
			texts = fieldTexts{}
			texts.read(i.Metadata)
			break
		}
		texts[field] = text
	}
	return texts
}

// ConfigPrefix and the name of a service are the key of its gRPC service config.
const ConfigPrefix = "_grpc_config/"

// ParseService returns the service that a user's spelling names, without one trailing
// "/". A name that is empty or consists of slashes is an *InputError.
func ParseService(name string) (string, error) {
	service := strings.TrimSuffix(name, "/")
	if strings.Trim(service, "/") == "" {
		return "", inputError("service", name, "it names no service; give a name such as my-service or foo/bar")
	}
	return service, nil
}

// checkService refuses the names that ParseService refuses; others are taken as they are.
func checkService(service string) error {
	_, err := ParseService(service)
	return err
}

// Key returns the key of a service's instance: "<service>/<id>".
func Key(service, id string) string { return service + "/" + id }

// CheckKey returns an *InputError for keys under ConfigPrefix: they are for service configs,
// not for endpoints.
func CheckKey(key string) error {
	if strings.HasPrefix(key, ConfigPrefix) {
		return inputError("key", key, "keys under %q are for service configs, not for endpoints; to write one, use rollcall config set SERVICE", ConfigPrefix)
	}
	return nil
}

// SplitKey splits a key at its last "/", for views of the whole store, where no service
// was asked for. A key without "/" has no service. See also [Instance.ID].
func SplitKey(key string) (service, id string) {
	i := strings.LastIndexByte(key, '/')
	if i < 0 {
		return "", key
	}
	return key[:i], key[i+1:]
}
