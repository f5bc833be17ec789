// SPDX-FileCopyrightText: The Rollcall Authors
// SPDX-License-Identifier: Apache-2.0

package main

import (
	"maps"
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
	before, after edit.Stored
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

// planImport compares the services of a file with what etcd holds of them: all of them together, since the keys of
// one may be under the name of another. A key is of the service that lists it, else of the one that it is stored under.
func planImport(wanted manifest, stored map[string]*edit.Stored, rules importRules) ([]importPlan, error) {
	old := make(map[string]*mvccpb.KeyValue) // that no service lists
	for _, s := range stored {
		for _, kv := range s.Keys {
			old[string(kv.Key)] = kv
		}
	}
	plans := make([]importPlan, len(wanted.Services))
	for n, s := range wanted.Services {
		p := &plans[n]
		p.service, p.before.Config = s.name(), stored[s.name()].Config
		for _, i := range s.Instances {
			value, err := i.value()
			if err != nil {
				return nil, err
			}
			key := rollcall.Key(p.service, i.id())
			if old[key] != nil {
				p.before.Keys = append(p.before.Keys, old[key])
			}
			p.put(key, value, i.Leased, old[key], rules)
			delete(old, key)
		}
		config, err := s.config()
		if err != nil {
			return nil, err
		}
		p.setConfig(s.configKey(), config, rules)
	}
	for n := range plans {
		p := &plans[n]
		for _, kv := range stored[p.service].Keys {
			if old[string(kv.Key)] != nil {
				p.before.Keys = append(p.before.Keys, kv)
				p.remove(kv, rules)
			}
		}
		p.before.Sort()
		p.after.Sort()
	}
	return plans, nil
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
	p.after.Keys = append(p.after.Keys, kv)
}

// remove plans a key that the file does not have.
func (p *importPlan) remove(old *mvccpb.KeyValue, rules importRules) {
	switch {
	case !rules.prune:
		p.after.Keys = append(p.after.Keys, old)
	case old.Lease != 0 && !rules.force:
		p.left++
		p.after.Keys = append(p.after.Keys, old)
	default:
		p.changes = append(p.changes, importChange{key: string(old.Key), old: old})
	}
}

func (p *importPlan) setConfig(key string, config *string, rules importRules) {
	old := p.before.Config
	p.after.Config = old
	switch {
	case config != nil && (old == nil || string(old.Value) != *config):
		p.after.Config = &mvccpb.KeyValue{Key: []byte(key), Value: []byte(*config)}
		p.changes = append(p.changes, importChange{key: key, value: []byte(*config), old: old})
	case config == nil && old != nil && rules.prune:
		p.after.Config = nil
		p.changes = append(p.changes, importChange{key: key, old: old})
	}
}

// emptiesOne returns an error if a service is left without an endpoint: one of the file, or one within it that a key
// is removed from.
func emptiesOne(plans []importPlan) error {
	var before, after []*mvccpb.KeyValue
	services := make(map[string]bool)
	for _, p := range plans {
		before, after = append(before, p.before.Keys...), append(after, p.after.Keys...)
		services[p.service] = true
		for _, c := range p.changes {
			if service, _ := rollcall.SplitKey(c.key); c.value == nil && !strings.HasPrefix(c.key, rollcall.ConfigPrefix) {
				services[service] = true
			}
		}
	}
	for _, service := range slices.Sorted(maps.Keys(services)) {
		if n := endpointsUnder(before, service); n > 0 && endpointsUnder(after, service) == 0 {
			return &edit.EmptiesError{Service: service, Endpoints: n}
		}
	}
	return nil
}

// endpointsUnder counts the endpoints that clients of a service see.
func endpointsUnder(keys []*mvccpb.KeyValue, service string) (n int) {
	for _, kv := range keys {
		if _, err := rollcall.Decode(kv); err == nil && strings.HasPrefix(string(kv.Key), service+"/") {
			n++
		}
	}
	return n
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
	before, err := yamlText(storedManifest(p.service, &p.before))
	if err != nil {
		return "", err
	}
	after, err := yamlText(storedManifest(p.service, &p.after))
	return udiff.Unified("etcd", "import", before, after), err
}
