// SPDX-FileCopyrightText: The Rollcall Authors
// SPDX-License-Identifier: Apache-2.0

package watching_test

import (
	"errors"
	"fmt"
	"testing"
	"time"

	"go.etcd.io/etcd/api/v3/v3rpc/rpctypes"
	clientv3 "go.etcd.io/etcd/client/v3"

	"github.com/rollcall-grpc/rollcall"
	"github.com/rollcall-grpc/rollcall/endpoints"
	"github.com/rollcall-grpc/rollcall/internal/test/e2e/lab"
	"github.com/rollcall-grpc/rollcall/internal/test/etcdtest"
)

// both are the watch and the channel.
type both struct {
	e       *lab.Env
	watch   *lab.Watcher
	channel *lab.Channel
}

func newBoth(e *lab.Env, client *clientv3.Client) both {
	return both{e, e.Watch(e.ManagerOf(client, e.Target)), e.ResolveBy(e.BuilderOf(client), e.Target)}
}

// become waits until both show exactly these endpoints.
func (b both) become(ids ...string) {
	set := make(map[string]string)
	var addrs []string
	for _, id := range ids {
		set[b.e.Key(id)] = lab.AddrOf(id)
		addrs = append(addrs, lab.AddrOf(id))
	}
	b.watch.Becomes(set)
	b.e.Shows(b.channel, addrs...)
}

func add(e *lab.Env, ids ...string) {
	for _, id := range ids {
		e.Eventually(func() error { // a member that has just started may not lead yet
			return e.Manager().AddEndpoint(e.Ctx, e.Key(id), endpoints.Endpoint{Addr: lab.AddrOf(id)})
		})
	}
}

func TestW10PermissionComesAndGoes(t *testing.T) {
	t.Parallel()
	lab.Compare(t, etcdtest.Options{}, func(e *lab.Env) {
		auth := e.Etcd.EnableAuth(e.T)
		auth.AddUser("reader", "r", etcdtest.Read(e.Target+"/"))
		link := etcdtest.NewLink(e.T, e.Etcd.Endpoints()[0])
		reader := auth.Client(e.T, "reader", func(cfg *clientv3.Config) { cfg.Endpoints = []string{link.Addr()} })
		e.Client = auth.Client(e.T, "root")
		add(e, "a")
		b := newBoth(e, reader)
		b.become("a")
		f := follow(e, reader)
		if f != nil {
			f.Holds("a")
		}
		auth.Revoke("reader", e.Target+"/")
		link.Cut()
		link.Mend()
		if f != nil {
			f.Until("stale for want of permission", func(seen []*rollcall.Snapshot) bool {
				return seen[len(seen)-1].Staleness() != nil &&
					errors.Is(seen[len(seen)-1].Staleness().Cause, rpctypes.ErrPermissionDenied)
			})
		}
		time.Sleep(3 * time.Second) // and several retries
		add(e, "b")
		auth.Grant("reader", etcdtest.Read(e.Target+"/"))
		granted := time.Now()
		b.become("a", "b")
		e.Within("live after the grant", granted, 6*time.Second)
		add(e, "c")
		b.become("a", "b", "c")
	})
}

func TestW11Storm(t *testing.T) {
	t.Parallel()
	joins := lab.Size(10_000, 1_000)
	lab.Compare(t, etcdtest.Options{}, func(e *lab.Env) {
		write(e, "join", 500)
		c := e.Resolve()
		e.Eventually(func() error { return counted(c, 500) })
		time.Sleep(time.Second)

		states, cpu := c.Count(), lab.CPU()
		write(e, "join", 500)
		write(e, "join", 500)
		add(e, "after") // comes after all that went before
		e.Eventually(func() error { return counted(c, 501) })
		again := c.Count() - states - 1
		lab.Note(e.T, "1,000 writes of the same values: %d states, %v of CPU", again, (lab.CPU() - cpu).Round(time.Millisecond))

		states, cpu = c.Count(), lab.CPU()
		began := time.Now()
		write(e, "more", joins)
		written := time.Now()
		e.Eventually(func() error { return counted(c, 501+joins) })
		caughtUp := time.Since(written)
		joined := c.Count() - states
		lab.Note(e.T, "%d joins over %v: %d states, %v of CPU, %v behind", joins, written.Sub(began).Round(time.Millisecond), joined,
			(lab.CPU() - cpu).Round(time.Millisecond), caughtUp.Round(time.Millisecond))
		if again > 0 {
			e.Failf("%d states for writes that changed nothing", again)
		}
		if joined > joins/4 {
			e.Failf("%d states for %d joins: they are not conflated", joined, joins)
		}
	})
}

func counted(c *lab.Channel, want int) error {
	if got := len(c.Last()); got != want {
		return fmt.Errorf("%d endpoints, want %d", got, want)
	}
	return nil
}
