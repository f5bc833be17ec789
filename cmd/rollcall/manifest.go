// SPDX-FileCopyrightText: The Rollcall Authors
// SPDX-License-Identifier: Apache-2.0

package main

import (
	"bytes"
	"encoding/json"
	"regexp"
	"strings"
	"unicode/utf8"

	"go.etcd.io/etcd/api/v3/mvccpb"

	"github.com/rollcall-grpc/rollcall"
	"github.com/rollcall-grpc/rollcall/resolver"
)

// manifest is what export writes and import reads: services with all that etcd holds of them, so that each value
// can be written again byte for byte. It has no revisions: what has not changed reads the same.
type manifest struct {
	APIVersion string            `json:"apiVersion"`
	Kind       string            `json:"kind"`
	Services   []manifestService `json:"services"`
}

const manifestKind = "Services"

// manifestService is a service. Of Config, ConfigText and ConfigBase64 there is one at most.
type manifestService struct {
	Service       *string            `json:"service,omitempty"`
	ServiceBase64 []byte             `json:"serviceBase64,omitempty"` // where it is not UTF-8
	Config        json.RawMessage    `json:"config,omitempty"`
	ConfigText    *string            `json:"configText,omitempty"`   // as stored, where Config would not be written so
	ConfigBase64  []byte             `json:"configBase64,omitempty"` // where that is not UTF-8
	Instances     []manifestInstance `json:"instances"`
}

// manifestInstance is a key of a service, and its value in one of three forms.
type manifestInstance struct {
	ID          *string         `json:"id,omitempty"`       // nil: Addr
	IDBase64    []byte          `json:"idBase64,omitempty"` // where it is not UTF-8
	Addr        string          `json:"addr,omitempty"`
	Metadata    json.RawMessage `json:"metadata,omitempty"`
	Value       *string         `json:"value,omitempty"`       // as stored, where an address and metadata would not be written so
	ValueBase64 []byte          `json:"valueBase64,omitempty"` // where that is not UTF-8
	Leased      bool            `json:"leased,omitempty"`      // it is under a lease: a process keeps it
}

// textOrBytes returns s as text or, where it is not UTF-8, as bytes.
func textOrBytes(s string) (*string, []byte) {
	if utf8.ValidString(s) {
		return &s, nil
	}
	return nil, []byte(s)
}

func (s *manifestService) name() string {
	if s.Service != nil {
		return *s.Service
	}
	return string(s.ServiceBase64)
}

// id returns the id that is given or else the address, which serves as one.
func (i *manifestInstance) id() string {
	switch {
	case i.ID != nil:
		return *i.ID
	case i.IDBase64 != nil:
		return string(i.IDBase64)
	}
	return i.Addr
}

func (s *manifestService) configKey() string { return rollcall.ConfigPrefix + s.name() }

// setConfig has the service config as JSON if it is written again as it is, and gRPC accepts it.
func (s *manifestService) setConfig(text string) {
	if canonical, err := canonicalJSON([]byte(text)); err == nil && string(canonical) == text && resolver.CheckServiceConfig(text) == nil {
		s.Config = canonical
		return
	}
	s.ConfigText, s.ConfigBase64 = textOrBytes(text)
}

// config returns the text of the service config, nil for none.
func (s *manifestService) config() (*string, error) {
	switch {
	case s.ConfigBase64 != nil:
		text := string(s.ConfigBase64)
		return &text, nil
	case s.Config == nil:
		return s.ConfigText, nil
	}
	text, err := canonicalJSON(s.Config)
	if err == nil {
		err = resolver.CheckServiceConfig(string(text))
	}
	config := string(text)
	return &config, err
}

// newManifestInstance describes a key of a service.
func newManifestInstance(service string, kv *mvccpb.KeyValue) manifestInstance {
	i := manifestInstance{Leased: kv.Lease != 0}
	i.ID, i.IDBase64 = textOrBytes(strings.TrimPrefix(string(kv.Key), service+"/"))
	if inst, err := rollcall.Decode(kv); err == nil && utf8.Valid(kv.Value) {
		plain := manifestInstance{Addr: inst.Addr, Metadata: inst.Metadata}
		if bytes.Equal(inst.Metadata, []byte("null")) {
			plain.Metadata = nil
		}
		if value, err := plain.value(); err == nil && bytes.Equal(value, kv.Value) {
			i.Addr, i.Metadata = plain.Addr, plain.Metadata
			return i
		}
	}
	i.Value, i.ValueBase64 = textOrBytes(string(kv.Value))
	return i
}

// value returns the value to be stored. An address is checked as rollcall add does; what is stored as it is, is not.
func (i *manifestInstance) value() ([]byte, error) {
	switch {
	case i.Value != nil:
		return []byte(*i.Value), nil
	case i.ValueBase64 != nil:
		return i.ValueBase64, nil
	}
	if err := rollcall.HostPort(i.Addr); err != nil {
		return nil, err
	}
	if i.Metadata == nil {
		return rollcall.Encode(i.Addr, nil)
	}
	metadata, err := canonicalJSON(i.Metadata)
	if err != nil {
		return nil, err
	}
	return rollcall.Encode(i.Addr, json.RawMessage(metadata))
}

var jsonString = regexp.MustCompile(`"(?:[^"\\]|\\.)*"`)

// canonicalJSON returns a JSON text without spaces and with the escapes that Go's encoder writes, however a format
// has spelt its strings. The order of fields and the digits of numbers stay.
func canonicalJSON(text []byte) ([]byte, error) {
	var b bytes.Buffer
	if err := json.Compact(&b, text); err != nil {
		return nil, err
	}
	return jsonString.ReplaceAllFunc(b.Bytes(), func(quoted []byte) []byte {
		var s string
		_ = json.Unmarshal(quoted, &s)
		again, _ := json.Marshal(s)
		return again
	}), nil
}
