// SPDX-FileCopyrightText: The Rollcall Authors
// SPDX-License-Identifier: Apache-2.0

package main

import (
	"sync"
	"testing"

	"github.com/rollcall-grpc/rollcall/internal/devetcd"
	"github.com/rollcall-grpc/rollcall/internal/test/etcdtest"
)

// etcdServer is an etcd of the tests: the embedded one, or a process of the version in ROLLCALL_ETCD.
type etcdServer interface {
	Endpoint() string
	Close() error
}

// etcdProcess is an etcd of another version. It ends with its test.
type etcdProcess struct{ *etcdtest.Cluster }

func (p etcdProcess) Endpoint() string { return p.Endpoints()[0] }

func (p etcdProcess) Close() error {
	if m := p.Member(0); m.Running() {
		m.Stop()
	}
	return nil
}

func startEtcd(t *testing.T) etcdServer {
	t.Helper()
	if etcdtest.Version() != etcdtest.Newest {
		return etcdProcess{etcdtest.New(t, etcdtest.Options{})}
	}
	server, err := devetcd.Start(t.Context(), devetcd.Options{})
	if err != nil {
		t.Fatal(err)
	}
	return server
}

// shared is the etcd of all tests that need no other. Each uses services of its own.
var shared struct {
	sync.Mutex
	server etcdServer
}

func sharedEtcd(t *testing.T) string {
	t.Helper()
	if etcdtest.Version() != etcdtest.Newest {
		return startEtcd(t).Endpoint() // a process ends with its test
	}
	shared.Lock()
	defer shared.Unlock()
	if shared.server == nil {
		shared.server = startEtcd(t)
	}
	return shared.server.Endpoint()
}

// freshEtcd is one whose revisions and leases nobody else has touched.
func freshEtcd(t *testing.T) etcdServer {
	t.Helper()
	server := startEtcd(t)
	t.Cleanup(func() {
		if err := server.Close(); err != nil {
			t.Errorf("close etcd: %v", err)
		}
	})
	return server
}
