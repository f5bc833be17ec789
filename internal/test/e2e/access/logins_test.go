// SPDX-FileCopyrightText: The Rollcall Authors
// SPDX-License-Identifier: Apache-2.0

package access_test

import (
	"fmt"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	clientv3 "go.etcd.io/etcd/client/v3"

	"github.com/rollcall-grpc/rollcall"
	"github.com/rollcall-grpc/rollcall/internal/test/e2e/lab"
	"github.com/rollcall-grpc/rollcall/internal/test/etcdtest"
)

// logins counts the logins of all clients at etcd, since it started.
func logins(e *lab.Env) int {
	return int(e.Etcd.Member(0).Metric(e.T, "grpc_server_started_total", "grpc_method=Authenticate"))
}

func serviceName(i int) string { return fmt.Sprintf("svc-%d", i) }

// ready opens a channel to each of n services, until all have their endpoint.
func ready(e *lab.Env, client *clientv3.Client, n int) {
	builder := e.BuilderOf(client)
	channels := make([]*lab.Channel, n)
	for i := range channels {
		channels[i] = e.ResolveBy(builder, serviceName(i))
	}
	for _, c := range channels {
		e.Shows(c, lab.AddrOf("a"))
	}
}

// users turns authentication on, with a reader of the services and their configs.
func users(e *lab.Env) *etcdtest.Auth {
	auth := e.Etcd.EnableAuth(e.T)
	auth.AddUser("reader", "r", etcdtest.Read("svc-"), etcdtest.Read(rollcall.ConfigPrefix+"svc-"))
	e.Client = auth.Client(e.T, "root")
	return auth
}

func putServices(e *lab.Env, n int) {
	for i := range n {
		lab.Put(e.T, e.Client, serviceName(i), "a", nil)
	}
}

// What a user name costs: with Rollcall's clients, and with those of clientv3.New.
func TestA8Logins(t *testing.T) {
	t.Parallel()
	for name, make := range map[string]func(*lab.Env, func(*clientv3.Config)) *clientv3.Client{
		"rollcall.NewClient": func(e *lab.Env, as func(*clientv3.Config)) *clientv3.Client {
			cfg := rollcall.ClientConfig(e.Reach...)
			as(&cfg)
			return lab.ClientOf(e.T, cfg)
		},
		"clientv3.New": func(e *lab.Env, as func(*clientv3.Config)) *clientv3.Client { return e.ClientWith(as) },
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			lab.Compare(t, etcdtest.Options{}, func(e *lab.Env) { fewLogins(e, name, make) })
		})
	}
}

func fewLogins(e *lab.Env, name string, newClient func(*lab.Env, func(*clientv3.Config)) *clientv3.Client) {
	services := lab.Size(200, 50)
	putServices(e, services)
	began := time.Now()
	ready(e, newClient(e, func(*clientv3.Config) {}), services)
	without := time.Since(began)

	auth := users(e)
	began = time.Now()
	_, err := e.Client.Authenticate(e.Ctx, "reader", "r")
	e.OK(err)
	login := time.Since(began)
	before := logins(e)
	began = time.Now()
	client := newClient(e, auth.As("reader"))
	ready(e, client, services)
	e.Within(fmt.Sprintf("%d services ready with a user of %s, twice the time without and a login", services, name), began, 2*without+login)
	time.Sleep(time.Second) // until every watch is open
	n := logins(e) - before
	lab.Note(e.T, "%d logins for %d services with %s", n, services, name)
	if n > 5 {
		e.Failf("%d logins for %d services, want at most 5", n, services)
	}
	if !e.Ours() {
		return
	}

	noMore := func(what string, d time.Duration) {
		e.T.Helper()
		before := logins(e)
		time.Sleep(d)
		if n := logins(e) - before; n != 0 {
			e.Failf("%d logins %s for %v", n, what, d)
		}
	}
	noMore("while idle", time.Duration(lab.Size(30, 11))*time.Second)
	d, err := rollcall.NewDirectory(client, rollcall.DirectoryOptions{ConsistencyCheckPeriod: time.Second})
	e.OK(err)
	defer d.Close()
	follow := func(services int, name func(int) string) {
		for i := range services {
			_, err := d.Subscribe(name(i))
			e.OK(err)
		}
		time.Sleep(3 * time.Second)
	}
	follow(services, serviceName)
	noMore("with comparisons every second", time.Duration(lab.Size(10, 4))*time.Second)
	follow(10, func(i int) string { return fmt.Sprintf("denied-%d", i) })
	noMore("with ten services that may not be read", time.Duration(lab.Size(30, 5))*time.Second)
}

// The table of docs/reliability.md: logins, and all messages that a client sends.
func TestA8LoginsAndMessages(t *testing.T) {
	t.Parallel()
	for who, user := range map[string]bool{"no user": false, "a user": true} {
		t.Run(who, func(t *testing.T) {
			t.Parallel()
			e := lab.NewEnv(t, lab.Rollcall, etcdtest.New(t, etcdtest.Options{}), "svc")
			sizes := []int{1, lab.Size(50, 20), lab.Size(200, 20)}
			putServices(e, sizes[2])
			as := func(*clientv3.Config) {}
			if user {
				as = users(e).As("reader")
			}
			for _, services := range slices.Compact(sizes) {
				lab.Note(t, "%d services, %s: %s", services, who, costs(e, as, services, user))
			}
		})
	}
}

// costs describes what a client with channels to so many services sends.
func costs(e *lab.Env, as func(*clientv3.Config), services int, user bool) (line string) {
	var rate lab.Rate
	client := storming(e, &rate, as)
	defer client.Close()
	const aMinute, restarted = " for a minute", "etcd restarted"
	spent := func(state string, d time.Duration, do func()) {
		began := time.Now()
		do()
		time.Sleep(d)
		now := time.Now()
		n := rate.Sent(began, now, "Authenticate")
		messages := rate.Sent(began, now, "") - n
		if strings.HasSuffix(state, aMinute) {
			messages = int(time.Duration(messages) * time.Minute / d)
		}
		line += fmt.Sprintf("%s %d messages, %d logins; ", state, messages, n)
		most := 5
		if state == restarted { // for the new watch stream
			most = 1
		}
		if n > most || n > 0 && !user {
			e.Failf("%d logins while %s, for %d services", n, state, services)
		}
	}
	e.Ctx = lab.Context(e.T)
	channels := make([]*lab.Channel, services)
	builder := e.BuilderOf(client)
	spent("starting", time.Second, func() {
		for i := range channels {
			channels[i] = e.ResolveBy(builder, serviceName(i))
		}
		for _, c := range channels {
			e.Shows(c, lab.AddrOf("a"))
		}
	})
	idle := time.Duration(lab.Size(30, 4)) * time.Second
	spent("idle"+aMinute, idle, func() {})
	member := e.Etcd.Member(0)
	e.Ctx = lab.Context(e.T)
	spent(restarted, 3*time.Second, func() {
		member.Stop()
		time.Sleep(3 * time.Second)
		member.Start()
		e.Etcd.WaitReady()
		id := fmt.Sprint("restarted-", services)
		for i := range services {
			lab.Put(e.T, e.Client, serviceName(i), id, nil)
		}
		for i, c := range channels {
			e.Eventually(func() error {
				if len(c.Addrs()) < 2 {
					return fmt.Errorf("the channel to %s was not told", serviceName(i))
				}
				return nil
			})
		}
		for i := range services {
			lab.Remove(e.T, e.Client, rollcall.Key(serviceName(i), id))
		}
	})
	if !user {
		return strings.TrimSuffix(line, "; ")
	}
	refused := storming(e, &rate, as)
	defer refused.Close()
	builder = e.BuilderOf(refused)
	spent("refused, at first", time.Duration(lab.Size(60, 4))*time.Second, func() {
		for i := range services {
			e.ResolveBy(builder, fmt.Sprintf("denied-%d", i))
		}
	})
	return strings.TrimSuffix(line, "; ")
}

// A password that is refused is tried by the connection, not by each service.
func TestA8WrongPassword(t *testing.T) {
	t.Parallel()
	e := lab.NewEnv(t, lab.Rollcall, etcdtest.New(t, etcdtest.Options{}), "svc")
	users(e)
	cfg := rollcall.ClientConfig(e.Reach...)
	cfg.Username, cfg.Password = "reader", "wrong"
	client := lab.ClientOf(t, cfg)
	before := logins(e)
	f := lab.Follow(t, client, serviceName(0))
	services := lab.Size(200, 50)
	for i := range services {
		if _, err := f.Directory.Subscribe(serviceName(i)); err != nil {
			t.Fatal(err)
		}
	}
	f.Fails("authentication failed")
	d := time.Duration(lab.Size(30, 10)) * time.Second
	time.Sleep(d)
	n := logins(e) - before
	lab.Note(t, "%d logins in %v with a wrong password, for %d services", n, d, services)
	if n > 30 {
		t.Errorf("%d logins in %v", n, d)
	}
}

// Many calls that find out together that they have no token share one login.
func TestA8CallsShareALogin(t *testing.T) {
	t.Parallel()
	e := lab.NewEnv(t, lab.Rollcall, etcdtest.New(t, etcdtest.Options{}), "svc")
	cfg := rollcall.ClientConfig(e.Reach...)
	users(e).As("reader")(&cfg)
	client := lab.ClientOf(t, cfg)
	before := logins(e)
	var calls sync.WaitGroup
	for i := range 50 {
		calls.Go(func() {
			if _, err := client.Get(e.Ctx, serviceName(i)); err != nil {
				t.Error(err)
			}
		})
	}
	calls.Wait()
	if n := logins(e) - before; n > 3 {
		t.Errorf("%d logins for 50 calls", n)
	}
}

// A stream from before authentication was turned on has no token: what is followed from then on needs another.
func TestAuthenticationTurnedOn(t *testing.T) {
	t.Parallel()
	e := lab.NewEnv(t, lab.Rollcall, etcdtest.New(t, etcdtest.Options{}), "svc")
	putServices(e, 2)
	cfg := rollcall.ClientConfig(e.Reach...)
	cfg.Username, cfg.Password = "reader", "r"
	d := lab.Directory(t, lab.ClientOf(t, cfg))
	follow := func(service string) (shows func(n int)) {
		sub, err := d.Subscribe(service)
		e.OK(err)
		return func(n int) {
			t.Helper()
			snap, err := sub.Next(e.Ctx)
			for err == nil && (snap.Len() != n || snap.Staleness() != nil) {
				snap, err = sub.Next(e.Ctx)
			}
			e.OK(err)
		}
	}
	changes := func(service string) {
		t.Helper()
		shows := follow(service)
		shows(1)
		lab.Put(t, e.Client, service, "b", nil)
		shows(2)
	}
	changes(serviceName(0)) // its watch, and with it the stream, is open
	users(e)
	changes(serviceName(1))
}
