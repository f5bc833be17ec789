// SPDX-FileCopyrightText: The Rollcall Authors
// SPDX-License-Identifier: Apache-2.0

// Package inventory is what people are shown of a snapshot: a row an instance, a row a service.
// Commands, live views and pages render from these rows, so that all of them say the same.
package inventory

import (
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"
	"unicode/utf8"

	clientv3 "go.etcd.io/etcd/client/v3"

	"github.com/rollcall-grpc/rollcall"
)

// Status tells what clients make of a key.
type Status string

// The values of Status.
const (
	Serving    Status = rollcall.StatusServing
	Draining   Status = rollcall.StatusDraining
	Invalid    Status = "invalid"    // its value is not an endpoint; clients leave it out
	Disallowed Status = "disallowed" // its address is not host:port; clients leave it out
	Retained   Status = "retained"   // it is gone from etcd; self-preservation keeps it callable
)

// Instance is one key of a service. An invalid one has neither an address nor metadata.
type Instance struct {
	Key         string          `json:"key"`
	KeyBase64   string          `json:"keyBase64,omitempty"` // where the key is not UTF-8
	Service     string          `json:"service"`
	ID          string          `json:"id"`
	Addr        string          `json:"addr"`
	Status      Status          `json:"status"`
	Cause       string          `json:"cause,omitempty"` // why it is invalid or disallowed
	Weight      uint32          `json:"weight,omitempty"`
	Region      string          `json:"region,omitempty"`
	Zone        string          `json:"zone,omitempty"`
	Subzone     string          `json:"subzone,omitempty"`
	Version     string          `json:"version,omitempty"`
	Started     time.Time       `json:"started,omitzero"`
	Host        string          `json:"host,omitempty"`
	Metadata    json.RawMessage `json:"metadata"`
	FieldErrors []FieldError    `json:"fieldErrors,omitempty"`
	Lease       string          `json:"lease,omitempty"`   // hexadecimal, as in etcdctl
	TTL         int64           `json:"ttl,omitempty"`     // seconds that the lease was granted, if they were looked up
	TTLLeft     int64           `json:"ttlLeft,omitempty"` // seconds that were left of them

	CreateRevision int64 `json:"createRevision"`
	ModRevision    int64 `json:"modRevision"`

	lease      clientv3.LeaseID
	leaseEnded bool
}

// FieldError is a field of the metadata whose value is invalid: its default applies.
type FieldError struct {
	Field  string `json:"field"`
	Reason string `json:"reason"`
}

// Splitter splits a key into service and id. [rollcall.SplitKey] is one, for views of many services.
type Splitter func(key string) (service, id string)

// Under splits the keys of one service: whatever follows it is the id.
func Under(service string) Splitter {
	return func(key string) (string, string) { return service, strings.TrimPrefix(key, service+"/") }
}

// Instances returns a row for each key of a snapshot, sorted by key. It is never nil.
func Instances(snap *rollcall.Snapshot, split Splitter) []Instance {
	invalid, retained := snap.Invalid(), snap.Retained()
	rows := make([]Instance, 0, snap.Len()+len(invalid)+len(retained))
	for inst := range snap.All() {
		rows = append(rows, Of(inst, split))
	}
	if len(invalid)+len(retained) == 0 {
		return rows
	}
	for _, inst := range retained {
		row := Of(inst, split)
		row.Status = Retained
		rows = append(rows, row)
	}
	for _, i := range invalid {
		rows = append(rows, ofInvalid(i, split))
	}
	slices.SortStableFunc(rows, func(a, b Instance) int { return strings.Compare(a.Key, b.Key) })
	return rows
}

// Of returns the row of an instance that is in etcd.
func Of(inst *rollcall.Instance, split Splitter) Instance {
	service, id := split(inst.Key)
	attributes := inst.Attributes()
	row := Instance{
		Key: inst.Key, KeyBase64: Base64(inst.Key), Service: service, ID: id, Addr: inst.Addr,
		Weight: attributes.Weight, Version: attributes.Version, Started: attributes.Started, Host: attributes.Host,
		Region: attributes.Locality.Region, Zone: attributes.Locality.Zone, Subzone: attributes.Locality.Subzone,
		Metadata: inst.Metadata,
		Lease:    LeaseText(inst.Lease), lease: inst.Lease, CreateRevision: inst.CreateRevision, ModRevision: inst.ModRevision,
	}
	row.Status, row.Cause = statusOf(inst.Addr, attributes.Draining)
	for _, field := range attributes.Invalid {
		row.FieldErrors = append(row.FieldErrors, FieldError(field))
	}
	return row
}

func ofInvalid(i *rollcall.Invalid, split Splitter) Instance {
	service, id := split(i.Key)
	return Instance{Key: i.Key, KeyBase64: Base64(i.Key), Service: service, ID: id, Status: Invalid, Cause: i.Cause.Error(),
		Lease: LeaseText(i.Lease), lease: i.Lease, CreateRevision: i.CreateRevision, ModRevision: i.ModRevision}
}

func statusOf(addr string, draining bool) (status Status, cause string) {
	if err := rollcall.HostPort(addr); err != nil {
		return Disallowed, Reason(err)
	}
	if draining {
		return Draining, ""
	}
	return Serving, ""
}

// Why returns the status and the cause of one that clients leave out, "" for others.
func (i Instance) Why() string {
	if i.Cause == "" {
		return ""
	}
	return string(i.Status) + ": " + i.Cause
}

// Base64 returns a key in base64 if it is not UTF-8, else "". JSON shows the bytes of such
// a key as U+FFFD, so that different keys look alike.
func Base64(key string) string {
	if utf8.ValidString(key) {
		return ""
	}
	return base64.StdEncoding.EncodeToString([]byte(key))
}

// Reason returns the text of an error; of an InputError, without the value that is shown
// beside it.
func Reason(err error) string {
	var input *rollcall.InputError
	if errors.As(err, &input) {
		return input.Reason
	}
	return err.Error()
}

// LeaseText returns a lease as etcdctl writes it, "" for none.
func LeaseText(lease clientv3.LeaseID) string {
	if lease == clientv3.NoLease {
		return ""
	}
	return fmt.Sprintf("%x", int64(lease))
}
