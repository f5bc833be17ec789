// SPDX-FileCopyrightText: The Rollcall Authors
// SPDX-License-Identifier: Apache-2.0

package main

import (
	"bytes"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"strings"
	"unicode/utf8"

	clientv3 "go.etcd.io/etcd/client/v3"

	"github.com/rollcall-grpc/rollcall"
)

// instance is one endpoint as commands show it.
type instance struct {
	Key            string          `json:"key"`
	KeyBase64      string          `json:"keyBase64,omitempty"` // where the key is not UTF-8
	Service        string          `json:"service"`
	ID             string          `json:"id"`
	Addr           string          `json:"addr"`
	Metadata       json.RawMessage `json:"metadata"`
	Lease          string          `json:"lease,omitempty"` // hexadecimal, as in etcdctl
	TTL            int64           `json:"ttl,omitempty"`   // granted seconds, if they were looked up
	CreateRevision int64           `json:"createRevision"`
	ModRevision    int64           `json:"modRevision"`
}

// disallowed is an instance whose address the address policy does not allow.
type disallowed struct {
	instance
	Cause string `json:"cause"`
}

// invalid is a key whose value is not an endpoint.
type invalid struct {
	Key            string `json:"key"`
	KeyBase64      string `json:"keyBase64,omitempty"`
	Service        string `json:"service"`
	ID             string `json:"id"`
	Lease          string `json:"lease,omitempty"`
	CreateRevision int64  `json:"createRevision"`
	ModRevision    int64  `json:"modRevision"`
	Cause          string `json:"cause"`
}

// snapshot is a rollcall.Snapshot as commands show it. No slice is nil.
type snapshot struct {
	Revision   int64        `json:"revision"`
	Instances  []instance   `json:"instances"`
	Invalid    []invalid    `json:"invalid"`
	Disallowed []disallowed `json:"disallowed"`
}

// splitter splits a key into service and id.
type splitter func(key string) (service, id string)

// of splits the keys of one service: whatever follows it is the id.
func of(service string) splitter {
	return func(key string) (string, string) { return service, strings.TrimPrefix(key, service+"/") }
}

// render returns a snapshot as commands show it.
func render(snap *rollcall.Snapshot, split splitter) snapshot {
	allowed, barred := snap.Partition(nil)
	v := snapshot{
		Revision:   snap.Revision(),
		Instances:  make([]instance, 0, len(allowed)),
		Invalid:    make([]invalid, 0, len(snap.Invalid())),
		Disallowed: make([]disallowed, 0, len(barred)),
	}
	for _, inst := range allowed {
		v.Instances = append(v.Instances, renderInstance(inst, split))
	}
	for _, d := range barred {
		v.Disallowed = append(v.Disallowed, disallowed{renderInstance(d.Instance, split), reason(d.Cause)})
	}
	for _, i := range snap.Invalid() {
		service, id := split(i.Key)
		v.Invalid = append(v.Invalid, invalid{Key: i.Key, KeyBase64: base64Of(i.Key), Service: service, ID: id, Lease: leaseText(i.Lease),
			CreateRevision: i.CreateRevision, ModRevision: i.ModRevision, Cause: i.Cause.Error()})
	}
	return v
}

func renderInstance(inst *rollcall.Instance, split splitter) instance {
	service, id := split(inst.Key)
	return instance{Key: inst.Key, KeyBase64: base64Of(inst.Key), Service: service, ID: id, Addr: inst.Addr, Metadata: inst.Metadata,
		Lease: leaseText(inst.Lease), CreateRevision: inst.CreateRevision, ModRevision: inst.ModRevision}
}

// base64Of returns a key in base64 if it is not UTF-8, else "". JSON shows the bytes of such
// a key as U+FFFD, so that different keys look alike.
func base64Of(key string) string {
	if utf8.ValidString(key) {
		return ""
	}
	return base64.StdEncoding.EncodeToString([]byte(key))
}

// reason returns the text of an error; of an InputError, without the value that is shown
// beside it.
func reason(err error) string {
	var input *rollcall.InputError
	if errors.As(err, &input) {
		return input.Reason
	}
	return err.Error()
}

func leaseText(lease clientv3.LeaseID) string {
	if lease == clientv3.NoLease {
		return ""
	}
	return fmt.Sprintf("%x", int64(lease))
}

// metadataText is metadata for a table: on one line, at most 60 characters.
func metadataText(metadata json.RawMessage) string {
	var b bytes.Buffer
	if json.Compact(&b, metadata) != nil {
		return string(metadata)
	}
	return shorten(b.String(), 60)
}

// ttlText is a lease's granted time for a table.
func ttlText(seconds int64) string {
	if seconds == 0 {
		return ""
	}
	return fmt.Sprintf("%ds", seconds)
}

// leftOutTable lists what clients leave out and why. It is empty if they use everything.
func leftOutTable(v snapshot) string {
	if len(v.Invalid)+len(v.Disallowed) == 0 {
		return ""
	}
	rows := [][]string{{"LEFT OUT", "ADDR", "CAUSE"}}
	for _, r := range v.Invalid {
		rows = append(rows, []string{r.ID, "", "invalid: " + r.Cause})
	}
	for _, r := range v.Disallowed {
		rows = append(rows, []string{r.ID, r.Addr, "disallowed: " + r.Cause})
	}
	return table(rows...)
}
