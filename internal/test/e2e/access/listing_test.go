// SPDX-FileCopyrightText: The Rollcall Authors
// SPDX-License-Identifier: Apache-2.0

package access_test

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/rollcall-grpc/rollcall"
	"github.com/rollcall-grpc/rollcall/internal/test/e2e/lab"
	"github.com/rollcall-grpc/rollcall/internal/test/etcdtest"
)

// A list waits for etcd as long as its caller does, longer than any timer within; what it
// returns then, and what subscribers hear meanwhile, is etcd's own error.
func TestA11ListWhileEtcdIsAway(t *testing.T) {
	t.Parallel()
	for name, user := range map[string]bool{"no user": false, "a user": true} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			lab.Compare(t, etcdtest.Options{}, func(e *lab.Env) { listWhileAway(e, user) })
		})
	}
}

func listWhileAway(e *lab.Env, user bool) {
	lab.Put(e.T, e.Client, "svc", "a", nil)
	cfg := rollcall.ClientConfig(e.Reach...)
	if user {
		auth := e.Etcd.EnableAuth(e.T)
		auth.AddUser("reader", "r", etcdtest.Read("svc/"))
		auth.As("reader")(&cfg)
	}
	client := lab.ClientOf(e.T, cfg)
	manager := e.ManagerOf(client, "svc")
	e.Listed(manager)
	e.Etcd.Member(0).Stop()

	const outage = 13 * time.Second
	var lists sync.WaitGroup
	failures := make(chan string, 10)
	await := func(ctx context.Context, want error, list func(context.Context) error) {
		err := list(ctx)
		if !errors.Is(err, want) || ctx.Err() == nil || !strings.Contains(err.Error(), "connection refused") {
			failures <- fmt.Sprintf("a list ended with %q, want %v and connection refused", err, want)
		}
	}
	ways := []func(context.Context) error{func(ctx context.Context) error { _, err := manager.List(ctx); return err }}
	var f *lab.Follower
	if e.Ours() {
		f = lab.Follow(e.T, client, "svc")
		ways = append(ways, func(ctx context.Context) error { _, err := f.Directory.List(ctx, "svc"); return err })
	}
	for _, list := range ways {
		for _, patience := range []time.Duration{time.Second, outage} {
			lists.Go(func() {
				ctx, cancel := context.WithTimeout(e.Ctx, patience)
				defer cancel()
				await(ctx, context.DeadlineExceeded, list)
			})
		}
		lists.Go(func() {
			ctx, cancel := context.WithTimeout(e.Ctx, time.Minute)
			time.AfterFunc(outage-time.Second, cancel)
			await(ctx, context.Canceled, list)
		})
	}
	lists.Wait()
	for _, list := range ways {
		lists.Go(func() {
			if err := list(e.Ctx); err != nil {
				failures <- fmt.Sprintf("a list that waited for etcd to return: %v", err)
			}
		})
	}
	time.Sleep(time.Second)
	e.Etcd.Member(0).Start()
	ready := time.Now()
	lists.Wait()
	if len(failures) > 0 {
		e.Failf("%s", <-failures)
	}
	e.Within("lists that waited return after etcd was started", ready, 5*time.Second)
	if f == nil {
		return
	}
	f.Holds("a")
	for _, err := range f.Errors() {
		if text := err.Error(); !strings.Contains(text, "connection refused") || strings.Contains(text, "context") {
			e.Failf("a subscriber heard %q", text)
		}
	}
}

// A server that takes connections and says nothing is named.
func TestA11ListFromAMuteServer(t *testing.T) {
	t.Parallel()
	addr := lab.Mute(t)
	d, err := rollcall.NewDirectory(lab.Client(t, addr), rollcall.DirectoryOptions{})
	if err != nil {
		t.Fatal(err)
	}
	defer d.Close()
	for _, patience := range []time.Duration{time.Second, 7 * time.Second} {
		ctx, cancel := context.WithTimeout(lab.Context(t), patience)
		_, err := d.List(ctx, "svc")
		cancel()
		if !errors.Is(err, context.DeadlineExceeded) || !strings.Contains(err.Error(), addr) {
			t.Errorf("after %v: %v, want it to name %s", patience, err, addr)
		}
	}
}
