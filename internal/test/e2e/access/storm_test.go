// SPDX-FileCopyrightText: The Rollcall Authors
// SPDX-License-Identifier: Apache-2.0

package access_test

import (
	"fmt"
	"testing"
	"time"

	clientv3 "go.etcd.io/etcd/client/v3"

	"github.com/rollcall-grpc/rollcall"
	"github.com/rollcall-grpc/rollcall/internal/test/e2e/lab"
	"github.com/rollcall-grpc/rollcall/internal/test/etcdtest"
)

// What restarts of etcd cost it: 500 channels of one client, and 500 clients with a user
// and a channel each.
func TestA7ManyChannels(t *testing.T) {
	t.Parallel()
	lab.Compare(t, etcdtest.Options{}, func(e *lab.Env) {
		var rate lab.Rate
		client := storming(e, &rate, nil)
		storm(e, &rate, "channels of one client", func(i int) *clientv3.Client { return client })
	})
}

func TestA7ManyClients(t *testing.T) {
	t.Parallel()
	lab.Compare(t, etcdtest.Options{Flags: []string{"--bcrypt-cost=4"}}, func(e *lab.Env) {
		auth := e.Etcd.EnableAuth(e.T)
		auth.AddUser("reader", "r", etcdtest.Read("svc"))
		e.Client = auth.Client(e.T, "root")
		var rate lab.Rate
		storm(e, &rate, "clients", func(int) *clientv3.Client { return storming(e, &rate, auth.As("reader")) })
	})
}

// storming returns a client that is counted: with the defaults of whose package it is for.
func storming(e *lab.Env, rate *lab.Rate, as func(*clientv3.Config)) *clientv3.Client {
	cfg := clientv3.Config{Endpoints: e.Etcd.Endpoints(), Logger: rollcall.ClientConfig().Logger}
	if e.Naming.Name == lab.Rollcall.Name {
		cfg = rollcall.ClientConfig(e.Etcd.Endpoints()...)
	}
	if as != nil {
		as(&cfg)
	}
	rate.Count(&cfg)
	return lab.ClientOf(e.T, cfg)
}

// storm restarts etcd under channels to a hundred services and notes the messages that it
// gets in a second before, at most after, and once all is quiet again.
func storm(e *lab.Env, rate *lab.Rate, what string, clientOf func(i int) *clientv3.Client) {
	const services = 100
	channels := make([]*lab.Channel, lab.Size(500, 100))
	service := func(i int) string { return fmt.Sprintf("svc-%d", i%services) }
	for i := range services {
		lab.Put(e.T, e.Client, service(i), "a", nil)
	}
	for i := range channels {
		channels[i] = e.ResolveBy(e.BuilderOf(clientOf(i)), service(i))
	}
	for _, c := range channels {
		e.Shows(c, lab.AddrOf("a"))
	}
	idle := time.Duration(lab.Size(12, 3)) * time.Second
	quiet := time.Now()
	time.Sleep(idle)
	before, _ := rate.Between(quiet, time.Now(), "")

	member := e.Etcd.Member(0)
	member.Stop()
	time.Sleep(3 * time.Second)
	started := time.Now()
	member.Start()
	e.Etcd.WaitReady()
	ready := time.Now()
	for i := range services {
		lab.Put(e.T, e.Client, service(i), "b", nil)
	}
	for _, c := range channels {
		e.Shows(c, lab.AddrOf("a"), lab.AddrOf("b"))
	}
	e.Within(fmt.Sprintf("all %d %s follow again", len(channels), what), ready, 5*time.Second)
	time.Sleep(idle)
	end := time.Now()
	after, _ := rate.Between(end.Add(-idle), end, "")
	_, peak := rate.Between(started, end, "")
	_, logins := rate.Between(started, end, "Authenticate")
	lab.Note(e.T, "%d %s: %.1f messages/s before, %.0f at the peak (%.0f logins), %.1f after", len(channels), what, before, peak, logins, after)
}
