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
	Lease          string          `json:"lease,omitempty"` // hexadecimal, as etcdctl has it
	TTL            int64           `json:"ttl,omitempty"`   // granted seconds, where they were asked for
	CreateRevision int64           `json:"createRevision"`
	ModRevision    int64           `json:"modRevision"`
}

// refused is an instance that no client may dial.
type refused struct {
	instance
	Cause string `json:"cause"`
}

// rejected is a key whose value is no endpoint.
type rejected struct {
	Key            string `json:"key"`
	KeyBase64      string `json:"keyBase64,omitempty"`
	Service        string `json:"service"`
	ID             string `json:"id"`
	Lease          string `json:"lease,omitempty"`
	CreateRevision int64  `json:"createRevision"`
	ModRevision    int64  `json:"modRevision"`
	Cause          string `json:"cause"`
}

// view is a snapshot as commands show it. No slice is nil.
type view struct {
	Revision   int64      `json:"revision"`
	Instances  []instance `json:"instances"`
	Invalid    []rejected `json:"rejected"`
	Disallowed []refused  `json:"refused"`
}

// splitter splits a key into service and id.
type splitter func(key string) (service, id string)

// of splits the keys of one service: whatever follows it is the id.
func of(service string) splitter {
	return func(key string) (string, string) { return service, strings.TrimPrefix(key, service+"/") }
}

// render is the one way from a snapshot to what is shown.
func render(snap *rollcall.Snapshot, split splitter) view {
	taken, left := snap.Partition(nil)
	v := view{
		Revision:   snap.Revision(),
		Instances:  make([]instance, 0, len(taken)),
		Invalid:    make([]rejected, 0, len(snap.Invalid())),
		Disallowed: make([]refused, 0, len(left)),
	}
	for _, inst := range taken {
		v.Instances = append(v.Instances, renderInstance(inst, split))
	}
	for _, ref := range left {
		v.Disallowed = append(v.Disallowed, refused{renderInstance(ref.Instance, split), reason(ref.Cause)})
	}
	for _, rej := range snap.Invalid() {
		service, id := split(rej.Key)
		v.Invalid = append(v.Invalid, rejected{Key: rej.Key, KeyBase64: base64Of(rej.Key), Service: service, ID: id, Lease: leaseText(rej.Lease),
			CreateRevision: rej.CreateRevision, ModRevision: rej.ModRevision, Cause: rej.Cause.Error()})
	}
	return v
}

func renderInstance(inst *rollcall.Instance, split splitter) instance {
	service, id := split(inst.Key)
	return instance{Key: inst.Key, KeyBase64: base64Of(inst.Key), Service: service, ID: id, Addr: inst.Addr, Metadata: inst.Metadata,
		Lease: leaseText(inst.Lease), CreateRevision: inst.CreateRevision, ModRevision: inst.ModRevision}
}

// base64Of returns a key in base64 if JSON cannot hold it: JSON is UTF-8, and bytes that
// are not become U+FFFD, so that different keys look alike. Of other keys it returns "".
func base64Of(key string) string {
	if utf8.ValidString(key) {
		return ""
	}
	return base64.StdEncoding.EncodeToString([]byte(key))
}

// reason is the cause of a refused address without the address, which stands beside it.
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

// metadataText is metadata for a table: on one line, and cut where it is long.
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

// leftOutTable lists what readers leave out and why; it is empty where they take all.
func leftOutTable(v view) string {
	if len(v.Invalid)+len(v.Disallowed) == 0 {
		return ""
	}
	rows := [][]string{{"LEFT OUT", "ADDR", "CAUSE"}}
	for _, r := range v.Invalid {
		rows = append(rows, []string{r.ID, "", "rejected: " + r.Cause})
	}
	for _, r := range v.Disallowed {
		rows = append(rows, []string{r.ID, r.Addr, "refused: " + r.Cause})
	}
	return table(rows...)
}
