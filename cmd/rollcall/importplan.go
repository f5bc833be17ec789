// SPDX-FileCopyrightText: The Rollcall Authors
// SPDX-License-Identifier: Apache-2.0

package main

import (
	"slices"
	"strings"

	"github.com/aymanbagabas/go-udiff"
	"go.etcd.io/etcd/api/v3/mvccpb"
	clientv3 "go.etcd.io/etcd/client/v3"

	"github.com/rollcall-grpc/rollcall"
	"github.com/rollcall-grpc/rollcall/internal/edit"
)

// importRules say what an import may do beyond adding what is absent and changing what no server keeps.
type importRules struct {
	prune bool // delete what the file does not have
	force bool // change and delete what is under a lease, too
	lease bool // write what was exported under a lease, and is absent
}

// importPlan is what an import does to one service.
type importPlan struct {
	service       string
	before, after storedService
	changes       []importChange
	refused       []string // keys that the file has otherwise, and a server keeps
	left          int      // endpoints that are left to their servers
}

// importChange is a key that is put or deleted.
type importChange struct {
	key    string
	value  []byte           // nil: deleted
	leased bool             // the key is absent, and put under a lease
	old    *mvccpb.KeyValue // nil: absent
}

// planImport compares a service of a file with what etcd holds.
func planImport(wanted manifestService, stored storedService, rules importRules) (importPlan, error) {
	p := importPlan{service: wanted.name(), before: stored}
	old := make(map[string]*mvccpb.KeyValue)
	for _, kv := range stored.keys {
		old[string(kv.Key)] = kv
	}
	for _, i := range wanted.Instances {
		value, err := i.value()
		if err != nil {
			return p, err
		}
		key := rollcall.Key(p.service, i.id())
		p.put(key, value, i.Leased, old[key], rules)
		delete(old, key)
	}
	for _, kv := range stored.keys {
		if old[string(kv.Key)] != nil {
			p.remove(kv, rules)
		}
	}
	slices.SortFunc(p.after.keys, func(a, b *mvccpb.KeyValue) int { return strings.Compare(string(a.Key), string(b.Key)) })
	config, err := wanted.config()
	p.setConfig(wanted.configKey(), config, rules)
	return p, err
}

// put plans an instance of the file.
func (p *importPlan) put(key string, value []byte, leased bool, old *mvccpb.KeyValue, rules importRules) {
	kv := &mvccpb.KeyValue{Key: []byte(key), Value: value}
	switch {
	case old != nil && string(old.Value) == string(value):
		kv = old
	case old == nil && leased && !rules.lease:
		p.left++ // its server registers it, or has gone
		return
	case old != nil && old.Lease != 0 && !rules.force && leased:
		p.left++
		kv = old
	case old != nil && old.Lease != 0 && !rules.force:
		p.refused = append(p.refused, key)
		kv = old
	default:
		p.changes = append(p.changes, importChange{key: key, value: value, leased: leased && old == nil, old: old})
		if old != nil {
			kv.Lease = old.Lease
		} else if leased {
			kv.Lease = -1 // that of the import
		}
	}
	p.after.keys = append(p.after.keys, kv)
}

// remove plans a key that the file does not have.
func (p *importPlan) remove(old *mvccpb.KeyValue, rules importRules) {
	switch {
	case !rules.prune:
		p.after.keys = append(p.after.keys, old)
	case old.Lease != 0 && !rules.force:
		p.left++
		p.after.keys = append(p.after.keys, old)
	default:
		p.changes = append(p.changes, importChange{key: string(old.Key), old: old})
	}
}

func (p *importPlan) setConfig(key, config string, rules importRules) {
	old := p.before.config
	p.after.config = old
	switch {
	case config != "" && (old == nil || string(old.Value) != config):
		p.after.config = &mvccpb.KeyValue{Key: []byte(key), Value: []byte(config)}
		p.changes = append(p.changes, importChange{key: key, value: []byte(config), old: old})
	case config == "" && old != nil && rules.prune:
		p.after.config = nil
		p.changes = append(p.changes, importChange{key: key, old: old})
	}
}

// empties returns an error if the service is left without an endpoint.
func (p *importPlan) empties() error {
	if n := p.before.endpoints(); n > 0 && p.after.endpoints() == 0 {
		return &edit.EmptiesError{Service: p.service, Endpoints: n}
	}
	return nil
}

// steps returns the writes, each on condition that its key is as it was read.
func (p *importPlan) steps(lease clientv3.LeaseID) []edit.Step {
	steps := make([]edit.Step, 0, len(p.changes))
	for _, c := range p.changes {
		s := edit.Step{Unchanged: map[string]int64{c.key: c.old.GetModRevision()}}
		switch {
		case c.value == nil:
			s.Writes = []clientv3.Op{clientv3.OpDelete(c.key)}
		case c.old != nil:
			s.Writes = []clientv3.Op{clientv3.OpPut(c.key, string(c.value), clientv3.WithIgnoreLease())}
		case c.leased:
			s.Writes = []clientv3.Op{clientv3.OpPut(c.key, string(c.value), clientv3.WithLease(lease))}
		default:
			s.Writes = []clientv3.Op{clientv3.OpPut(c.key, string(c.value))}
		}
		steps = append(steps, s)
	}
	return steps
}

// diff shows the change as it would be between two exports.
func (p *importPlan) diff() (string, error) {
	before, err := yamlText(p.before.manifest(p.service))
	if err != nil {
		return "", err
	}
	after, err := yamlText(p.after.manifest(p.service))
	return udiff.Unified("etcd", "import", before, after), err
}
