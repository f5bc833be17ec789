// SPDX-FileCopyrightText: The Rollcall Authors
// SPDX-License-Identifier: Apache-2.0

package endpoints_test

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"strings"
	"testing"
	"time"

	"go.etcd.io/etcd/api/v3/v3rpc/rpctypes"
	clientv3 "go.etcd.io/etcd/client/v3"

	"github.com/rollcall-grpc/rollcall"
	"github.com/rollcall-grpc/rollcall/endpoints"
	"github.com/rollcall-grpc/rollcall/internal/test/etcdtest"
)

// watcher adds up the messages of a watch.
type watcher struct {
	t   *testing.T
	ch  endpoints.WatchChannel
	set map[string]string // addresses by key
}

func watch(t *testing.T, m endpoints.Manager) *watcher {
	t.Helper()
	ctx, cancel := context.WithCancel(context.Background())
	ch, err := m.NewWatchChannel(ctx)
	if err != nil {
		cancel()
		t.Fatal(err)
	}
	t.Cleanup(func() {
		cancel()
		for range ch {
		}
	})
	return &watcher{t: t, ch: ch, set: make(map[string]string)}
}

func (w *watcher) next() []*endpoints.Update {
	w.t.Helper()
	select {
	case updates, ok := <-w.ch:
		if !ok {
			w.t.Fatal("the channel was closed")
		}
		for _, u := range updates {
			if u.Op == endpoints.Delete {
				delete(w.set, u.Key)
			} else {
				w.set[u.Key] = u.Endpoint.Addr
			}
		}
		return updates
	case <-time.After(time.Minute):
		w.t.Fatalf("no further message; the watch stands at %v", w.set)
		return nil
	}
}

func (w *watcher) becomes(want map[string]string) {
	w.t.Helper()
	for !maps.Equal(w.set, want) {
		w.next()
	}
}

func put(t *testing.T, m endpoints.Manager, key, addr string) {
	t.Helper()
	must(t, m.AddEndpoint(deadline(t), key, endpoints.Endpoint{Addr: addr}))
}

// The first message of a watch has what its manager wrote before, also where another watch of the target has not brought
// it yet.
func TestFirstMessageHasOwnWrites(t *testing.T) {
	m := newManager(t, etcdtest.New(t, etcdtest.Options{}).Client(t), "foo")
	put(t, m, "foo/first", "a:1")
	watch(t, m).next() // is not read any more
	for i := range 200 {
		key := fmt.Sprintf("foo/%d", i)
		put(t, m, key, "a:1")
		w := watch(t, m)
		if w.next(); w.set[key] == "" {
			t.Fatalf("%s is not in the first of the messages", key)
		}
		must(t, m.DeleteEndpoint(deadline(t), key))
		must(t, m.DeleteEndpoint(deadline(t), key)) // of no effect, so that no event has its revision
		began := time.Now()
		w = watch(t, m)
		if w.next(); w.set[key] != "" {
			t.Fatalf("%s was deleted, and is in the first of the messages", key)
		}
		if took := time.Since(began); took > 900*time.Millisecond {
			t.Errorf("the first message took %v", took)
		}
	}
}

func TestWatchSurvivesMemberRestart(t *testing.T) {
	etcd := etcdtest.New(t, etcdtest.Options{})
	m := newManager(t, etcd.Client(t), "foo")
	put(t, m, "foo/a", "a:1")
	w := watch(t, m)
	w.becomes(map[string]string{"foo/a": "a:1"})
	for i := range 2 {
		etcd.Member(0).Kill()
		etcd.Member(0).Start()
		etcd.WaitReady()
		addr := fmt.Sprintf("b:%d", i+1)
		put(t, m, "foo/b", addr)
		w.becomes(map[string]string{"foo/a": "a:1", "foo/b": addr})
	}
}

func TestWatchSurvivesCompactionWhileCutOff(t *testing.T) {
	etcd := etcdtest.New(t, etcdtest.Options{})
	link := etcdtest.NewLink(t, etcd.Member(0).Addr())
	behind := etcd.Client(t, func(cfg *clientv3.Config) { cfg.Endpoints = []string{link.Addr()} })
	client := etcd.Client(t)
	m := newManager(t, client, "foo")
	put(t, m, "foo/a", "a:1")
	put(t, m, "foo/b", "b:1")
	w := watch(t, newManager(t, behind, "foo"))
	w.becomes(map[string]string{"foo/a": "a:1", "foo/b": "b:1"})

	link.Cut()
	must(t, m.DeleteEndpoint(deadline(t), "foo/a"))
	put(t, m, "foo/b", "b:2")
	put(t, m, "foo/c", "c:1")
	now, err := client.Get(deadline(t), "foo")
	must(t, err)
	_, err = client.Compact(deadline(t), now.Header.Revision)
	must(t, err)
	link.Mend()

	updates := w.next() // one message: the difference, not a replay
	if len(updates) != 3 {
		t.Errorf("%d updates in the first message, want 3", len(updates))
	}
	w.becomes(map[string]string{"foo/b": "b:2", "foo/c": "c:1"})
	put(t, m, "foo/d", "d:1")
	w.becomes(map[string]string{"foo/b": "b:2", "foo/c": "c:1", "foo/d": "d:1"})
}

// However slow the reader and however many the writes: after each message all keys of
// a transaction are of the same one.
func TestMergedMessagesNeverSplitATransaction(t *testing.T) {
	const keys, transactions = 40, 100
	m := newManager(t, etcdtest.New(t, etcdtest.Options{}).Client(t), "foo")
	w := watch(t, m)
	written := make(chan error, 1)
	ctx := deadline(t)
	go func() {
		for n := range transactions {
			var updates []*endpoints.UpdateWithOpts
			for k := range keys {
				updates = append(updates, add(fmt.Sprintf("foo/%d", k), fmt.Sprintf("a:%d", n+1)))
			}
			if err := m.Update(ctx, updates); err != nil {
				written <- err
				return
			}
		}
		written <- nil
	}()
	last, messages := fmt.Sprintf("a:%d", transactions), 0
	for w.set["foo/0"] != last {
		w.next()
		messages++
		for k := range keys {
			if got := w.set[fmt.Sprintf("foo/%d", k)]; got != w.set["foo/0"] {
				t.Fatalf("a transaction was split: foo/%d is %q, foo/0 %q", k, got, w.set["foo/0"])
			}
		}
		if messages%7 == 0 {
			time.Sleep(30 * time.Millisecond) // a slow reader
		}
	}
	must(t, <-written)
	if messages > transactions {
		t.Errorf("%d messages for %d transactions", messages, transactions)
	}
}

func TestContextClosesChannel(t *testing.T) {
	m := newManager(t, etcdtest.New(t, etcdtest.Options{}).Client(t), "foo")
	for name, writes := range map[string]int{"idle": 0, "while nobody reads": 5} {
		t.Run(name, func(t *testing.T) {
			ctx, cancel := context.WithCancel(deadline(t))
			ch, err := m.NewWatchChannel(ctx)
			must(t, err)
			for i := range writes {
				put(t, m, "foo/a", fmt.Sprintf("a:%d", i+1))
			}
			cancel()
			closes(t, ch)
			must(t, m.DeleteEndpoint(deadline(t), "foo/a"))
		})
	}
}

func closes(t *testing.T, ch endpoints.WatchChannel) {
	t.Helper()
	for {
		select {
		case _, ok := <-ch:
			if !ok {
				return
			}
		case <-time.After(time.Minute):
			t.Fatal("the channel stays open")
		}
	}
}

func TestClientCloseClosesChannel(t *testing.T) {
	etcd := etcdtest.New(t, etcdtest.Options{})
	client := etcd.Client(t)
	m := newManager(t, client, "foo")
	ch, err := m.NewWatchChannel(context.Background())
	must(t, err)
	client.Close()
	closes(t, ch)
	if _, err := m.NewWatchChannel(deadline(t)); err == nil {
		t.Error("a watch channel of a closed client")
	}
}

func TestNewWatchChannelWithoutEtcd(t *testing.T) {
	etcd := etcdtest.New(t, etcdtest.Options{})
	link := etcdtest.NewLink(t, etcd.Member(0).Addr())
	link.Cut()
	client := etcd.Client(t, func(cfg *clientv3.Config) { cfg.Endpoints = []string{link.Addr()} })
	m := newManager(t, client, "foo")
	t.Run("its context ends, and the error says why", func(t *testing.T) {
		ctx, cancel := context.WithTimeout(deadline(t), 3*time.Second)
		defer cancel()
		_, err := m.NewWatchChannel(ctx)
		if !errors.Is(err, context.DeadlineExceeded) || !strings.Contains(err.Error(), link.Addr()) {
			t.Errorf("got %v, want the deadline and %s", err, link.Addr())
		}
	})
	t.Run("its context has ended", func(t *testing.T) {
		ctx, cancel := context.WithCancel(deadline(t))
		cancel()
		if _, err := m.NewWatchChannel(ctx); !errors.Is(err, context.Canceled) {
			t.Errorf("got %v", err)
		}
	})
	t.Run("etcd comes back", func(t *testing.T) {
		put(t, newManager(t, etcd.Client(t), "foo"), "foo/a", "a:1")
		back := time.AfterFunc(300*time.Millisecond, link.Mend)
		defer back.Stop()
		watch(t, m).becomes(map[string]string{"foo/a": "a:1"})
	})
	t.Run("the client closes", func(t *testing.T) {
		link.Cut()
		client := etcd.Client(t, func(cfg *clientv3.Config) { cfg.Endpoints = []string{link.Addr()} })
		soon := time.AfterFunc(300*time.Millisecond, func() { client.Close() })
		defer soon.Stop()
		if _, err := newManager(t, client, "foo").NewWatchChannel(deadline(t)); err == nil || errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("got %v", err)
		}
	})
}

// Whoever may not read is told, instead of waiting; whoever may later, may.
func TestNewWatchChannelWithoutRights(t *testing.T) {
	etcd := etcdtest.New(t, etcdtest.Options{})
	setUp := etcd.Client(t)
	ctx := deadline(t)
	for _, name := range []string{"root", "reader"} {
		_, err := setUp.RoleAdd(ctx, name)
		must(t, err)
		_, err = setUp.UserAdd(ctx, name, "secret")
		must(t, err)
		_, err = setUp.UserGrantRole(ctx, name, name)
		must(t, err)
	}
	_, err := setUp.AuthEnable(ctx)
	must(t, err)
	as := func(name, password string) *clientv3.Client {
		cfg := rollcall.ClientConfig(etcd.Endpoints()...)
		cfg.Username, cfg.Password = name, password
		client, err := rollcall.NewClient(cfg)
		must(t, err)
		t.Cleanup(func() { client.Close() })
		return client
	}
	root, reader := as("root", "secret"), as("reader", "secret")
	for name, tt := range map[string]struct {
		client *clientv3.Client
		want   error
	}{
		"no right":       {reader, rpctypes.ErrPermissionDenied},
		"no user":        {etcd.Client(t), rpctypes.ErrUserEmpty},
		"wrong password": {as("reader", "guess"), rpctypes.ErrAuthFailed},
	} {
		t.Run(name, func(t *testing.T) {
			m := newManager(t, tt.client, "foo")
			if _, err := m.NewWatchChannel(deadline(t)); !errors.Is(err, tt.want) {
				t.Errorf("watch: got %v, want %v", err, tt.want)
			}
			if _, err := m.List(deadline(t)); !errors.Is(err, tt.want) {
				t.Errorf("list: got %v, want %v", err, tt.want)
			}
			if err := m.AddEndpoint(deadline(t), "foo/a", endpoints.Endpoint{Addr: "a:1"}); err == nil {
				t.Error("add: no error")
			}
		})
	}
	put(t, newManager(t, root, "foo"), "foo/a", "a:1")
	_, err = root.RoleGrantPermission(ctx, "reader", "foo/", clientv3.GetPrefixRangeEnd("foo/"), clientv3.PermissionType(clientv3.PermRead))
	must(t, err)
	watch(t, newManager(t, reader, "foo")).becomes(map[string]string{"foo/a": "a:1"})
}
