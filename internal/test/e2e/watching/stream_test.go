// SPDX-FileCopyrightText: The Rollcall Authors
// SPDX-License-Identifier: Apache-2.0

package watching_test

import (
	"context"
	"fmt"
	"net/url"
	"sync"
	"testing"
	"time"

	clientv3 "go.etcd.io/etcd/client/v3"
	grpcresolver "google.golang.org/grpc/resolver"

	"github.com/rollcall-grpc/rollcall"
	"github.com/rollcall-grpc/rollcall/internal/test/e2e/lab"
	"github.com/rollcall-grpc/rollcall/internal/test/etcdtest"
)

func TestW12VeryLargeService(t *testing.T) {
	t.Parallel()
	large(lab.NewEnv(t, lab.Rollcall, lab.Start(t, etcdtest.Options{}), "svc"), lab.Size(50_000, 3_000))
}

// large is W12. What followers saw is held against what etcd held, revision by revision:
// a list of more than one would be found out by the key that moves while it is read.
func large(e *lab.Env, n int) {
	e.OK(writeSized(e.Reach[0], e.Key("a-"), n, 1024))
	moves := moving(e)
	link := etcdtest.NewLink(e.T, e.Reach[0])
	log, client := e.Spy(func(cfg *clientv3.Config) { *cfg = rollcall.ClientConfig(link.Addr()) })
	holds := func(f *lab.Follower, want int) {
		f.Until(fmt.Sprintf("live with %d", want), func(seen []*rollcall.Snapshot) bool {
			return len(seen) > 0 && seen[len(seen)-1].Len() == want && seen[len(seen)-1].Staleness() == nil
		})
	}
	began := time.Now()
	f := lab.Follow(e.T, client, e.Target)
	holds(f, n+1)
	lab.Note(e.T, "%d keys listed in %v, in %d requests", n, time.Since(began).Round(time.Millisecond), len(log.Seen().Ranges))
	moves()
	began = time.Now()
	put(e, "lone")
	holds(f, n+2)
	lab.Note(e.T, "a change arrives in %v", time.Since(began).Round(time.Millisecond))

	// What was missed comes by the watch, in fragments: no list.
	lists := f.Directory.Stats().Lists
	link.Cut()
	more := lab.Size(5_000, 1_500)
	e.OK(writeSized(e.Reach[0], e.Key("b-"), more, 2048))
	link.Mend()
	holds(f, n+2+more)
	if got := f.Directory.Stats().Lists; got != lists {
		e.Failf("%d lists for what the watch has", got-lists)
	}
	if log.Seen().Fragments == 0 {
		e.Failf("the watch was not answered in fragments")
	}
}

// moving has one endpoint change its key, in transactions, until it is stopped.
func moving(e *lab.Env) (stop func()) {
	key := func(i int) string { return e.Key(fmt.Sprintf("%c-moving", 'a'+i%26)) }
	e.Put(key(0), `{"Addr":"moving:80"}`)
	ctx, cancel := context.WithCancel(e.Ctx)
	var wg sync.WaitGroup
	wg.Go(func() {
		for i := 0; ctx.Err() == nil; i++ {
			_, err := e.Client.Txn(ctx).Then(clientv3.OpDelete(key(i)), clientv3.OpPut(key(i+1), `{"Addr":"moving:80"}`)).Commit()
			if err != nil && ctx.Err() == nil {
				e.T.Errorf("move: %v", err)
			}
		}
	})
	stop = func() {
		cancel()
		wg.Wait()
	}
	e.T.Cleanup(stop)
	return stop
}

// stuck is a channel whose balancer never ends an update.
type stuck struct {
	lab.Channel
	entered, release chan struct{}
}

func (s *stuck) UpdateState(grpcresolver.State) error {
	close(s.entered)
	<-s.release
	return nil
}

func TestW14StuckConsumer(t *testing.T) {
	t.Parallel()
	etcd := lab.Start(t, etcdtest.Options{})
	e := lab.NewEnv(t, lab.Rollcall, etcd, "svc")
	add(e, "a")
	others := newBoth(e, e.Client)
	f := lab.Follow(t, e.Client, "svc")
	s := &stuck{entered: make(chan struct{}), release: make(chan struct{})}
	r, err := e.BuilderOf(e.Client).Build(grpcresolver.Target{URL: url.URL{Scheme: "etcd", Path: "/svc"}}, s, grpcresolver.BuildOptions{})
	if err != nil {
		t.Fatal(err)
	}
	<-s.entered
	ids := []string{"a"}
	for i := range 20 {
		ids = append(ids, fmt.Sprint("b", i))
		add(e, ids[len(ids)-1])
		others.become(ids...)
	}
	f.Holds(ids...)
	began := time.Now()
	r.Close()
	lab.Within(t, "closed", began, 100*time.Millisecond)
	close(s.release)
}
