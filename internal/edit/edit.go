// SPDX-FileCopyrightText: The Rollcall Authors
// SPDX-License-Identifier: Apache-2.0

// Package edit changes keys of a service by hand: what commands and pages do when somebody drains
// endpoints, sets their weights or removes them.
package edit

import (
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"net/url"
	"slices"
	"strings"

	clientv3 "go.etcd.io/etcd/client/v3"

	"github.com/rollcall-grpc/rollcall"
)

// NotFoundError is returned where a service has no key of a name, or none that a selector selects.
type NotFoundError struct {
	Service   string // "": all
	Name      string // "": see Selector
	Selector  string
	Revision  int64
	NoService bool     // the service has no key at all
	IDs       []string // that the service has
}

func (e *NotFoundError) Error() string {
	switch {
	case e.Service == "" && e.NoService:
		return fmt.Sprintf("no endpoint found: there is no key of one at revision %d", e.Revision)
	case e.Service == "":
		return fmt.Sprintf("no service has an endpoint with %s at revision %d", selectorText(e.Selector), e.Revision)
	case e.NoService:
		return fmt.Sprintf("service %q not found: no key under %q at revision %d", e.Service, e.Service+"/", e.Revision)
	case e.Name == "":
		return fmt.Sprintf("service %q has no endpoint with %s at revision %d", e.Service, selectorText(e.Selector), e.Revision)
	}
	return fmt.Sprintf("service %q has neither an id nor an address %q at revision %d", e.Service, e.Name, e.Revision)
}

// Key is a key of a service as it is in etcd.
type Key struct {
	Key            string
	Lease          clientv3.LeaseID
	CreateRevision int64
	ModRevision    int64
	Value          []byte             // as stored
	Instance       *rollcall.Instance // nil if the value is invalid: see Cause
	Cause          error
}

// SetField returns a function for Apply that sets a field of the metadata, or removes it if the
// value is nil, and leaves the rest of the value and the lease as they are.
func SetField(field string, value any) Write {
	return func(k Key) (op clientv3.Op, err error) {
		metadata, err := withField(k, field, value)
		if err != nil {
			return op, err
		}
		data, err := rollcall.Encode(k.Instance.Addr, metadata)
		if err == nil {
			data, err = withOthers(data, k.Value)
		}
		if err != nil {
			return op, fmt.Errorf("%q cannot be edited: %v", k.Key, err)
		}
		return clientv3.OpPut(k.Key, string(data), clientv3.WithIgnoreLease()), nil
	}
}

// withField returns the metadata of a key with a field set, or removed.
func withField(k Key, field string, value any) (json.RawMessage, error) {
	if k.Instance == nil {
		return nil, fmt.Errorf("%q cannot be edited: %v; replace it with rollcall add --force", k.Key, k.Cause)
	}
	metadata, err := rollcall.WithField(k.Instance.Metadata, field, value)
	if err != nil {
		return nil, fmt.Errorf("%q cannot be edited: %v", k.Key, err)
	}
	return metadata, nil
}

// withOthers adds to an endpoint's value the fields of an older value that gRPC naming does
// not know: they may matter to whoever wrote them.
func withOthers(value, old []byte) ([]byte, error) {
	var fields, others map[string]json.RawMessage
	if err := errors.Join(json.Unmarshal(value, &fields), json.Unmarshal(old, &others)); err != nil {
		return nil, err
	}
	known := slices.Collect(maps.Keys(fields))
	maps.DeleteFunc(others, func(name string, _ json.RawMessage) bool {
		return slices.ContainsFunc(known, func(k string) bool { return strings.EqualFold(k, name) })
	})
	if len(others) == 0 {
		return value, nil
	}
	maps.Copy(fields, others)
	return json.Marshal(fields)
}

// selectorText returns a selector as people write it.
func selectorText(selector string) string {
	if text, err := url.QueryUnescape(selector); err == nil {
		return text
	}
	return selector
}
