// SPDX-FileCopyrightText: The Rollcall Authors
// SPDX-License-Identifier: Apache-2.0

package registering_test

import (
	"fmt"
	"sync"
	"testing"
	"time"

	clientv3 "go.etcd.io/etcd/client/v3"

	"github.com/rollcall-grpc/rollcall"
	"github.com/rollcall-grpc/rollcall/internal/test/e2e/lab"
	"github.com/rollcall-grpc/rollcall/internal/test/etcdtest"
)

// fleet registers endpoints, each by a client of its own of all members.
func fleet(t *testing.T, etcd *etcdtest.Cluster, n int, ttl time.Duration) (all []*rollcall.Registration) {
	t.Helper()
	for i := range n {
		r, err := rollcall.NewRegistrar(lab.Directory(t, lab.ClientOf(t, rollcall.ClientConfig(etcd.Endpoints()...))), rollcall.RegistrarOptions{TTL: ttl})
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(r.Close)
		all = append(all, enrol(t, r, fmt.Sprint(i), nil))
	}
	return all
}

// followerOf returns a member that does not lead.
func followerOf(etcd *etcdtest.Cluster) int { return (etcd.Leader().Index() + 1) % len(etcd.Members()) }

// A member that hangs keeps its connections, and with them the keepalives of a third of the clients, for longer
// than their leases live. No endpoint goes.
func TestL19MemberHangs(t *testing.T) {
	t.Parallel()
	const ttl = 6 * time.Second
	etcd := etcdtest.New(t, etcdtest.Options{Members: 3})
	follower := followerOf(etcd)
	all := fleet(t, etcd, 9, ttl)
	rest := etcd.Client(t, func(cfg *clientv3.Config) { cfg.Endpoints = []string{etcd.Leader().Addr()} })
	time.Sleep(ttl / 2) // until they are renewed by keepalives
	events := rest.Watch(lab.Context(t), "svc/", clientv3.WithPrefix())
	var lost sync.Map
	for _, g := range all {
		go func() {
			for state, changed := g.State(); state.Phase != rollcall.Closed; state, changed = g.State() {
				if state.Phase == rollcall.Lost {
					lost.Store(g.Key(), state.Err)
				}
				<-changed
			}
		}()
	}
	etcd.Member(follower).Pause()
	defer etcd.Member(follower).Resume()
	for over := time.After(3 * ttl); ; {
		select {
		case resp := <-events:
			for _, ev := range resp.Events {
				t.Errorf("%s %s", ev.Type, ev.Kv.Key)
			}
			continue
		case <-over:
		}
		break
	}
	lost.Range(func(key, why any) bool {
		t.Errorf("%s was lost: %v", key, why)
		return true
	})
}

// A member that has lost its leader, or hangs, keeps no server from leaving.
func TestL20LeavingBesideABrokenMember(t *testing.T) {
	for _, fault := range []struct {
		name  string
		start func(testing.TB, etcdtest.Options) *etcdtest.Cluster
		of    func(etcd *etcdtest.Cluster, member int)
		bound time.Duration
	}{
		{"without a leader", etcdtest.NewPartitionable, (*etcdtest.Cluster).Isolate, time.Second},
		{"that hangs", etcdtest.New, func(etcd *etcdtest.Cluster, member int) { etcd.Member(member).Pause() }, 4 * time.Second},
	} {
		t.Run(fault.name, func(t *testing.T) {
			t.Parallel()
			etcd := fault.start(t, etcdtest.Options{Members: 3})
			all := fleet(t, etcd, 9, 10*time.Second)
			fault.of(etcd, followerOf(etcd))
			time.Sleep(5 * time.Second) // until the member knows
			began := time.Now()
			var leaving sync.WaitGroup
			for _, g := range all {
				leaving.Go(func() {
					if err := g.Drain(lab.Context(t)); err != nil {
						t.Errorf("drain %s: %v", g.Key(), err)
					}
					if err := g.Shutdown(lab.Context(t)); err != nil {
						t.Errorf("deregister %s: %v", g.Key(), err)
					}
				})
			}
			leaving.Wait()
			lab.Within(t, "all have left", began, fault.bound)
			if took := time.Since(began); took > 10*time.Second {
				t.Errorf("all have left after %v", took)
			}
		})
	}
}
