// SPDX-FileCopyrightText: The Rollcall Authors
// SPDX-License-Identifier: Apache-2.0

package watching_test

import (
	"fmt"
	"net/url"
	"testing"
	"time"

	grpcresolver "google.golang.org/grpc/resolver"

	"github.com/rollcall-grpc/rollcall"
	"github.com/rollcall-grpc/rollcall/internal/e2e/lab"
	"github.com/rollcall-grpc/rollcall/internal/etcdtest"
)

func TestW12VeryLargeService(t *testing.T) {
	t.Parallel()
	etcd := lab.Start(t, etcdtest.Options{})
	direct := etcd.Client(t)
	n := lab.Size(50_000, 3_000)
	if err := writeSized(etcd.Endpoints()[0], "svc/a-", n, 1024); err != nil {
		t.Fatal(err)
	}
	holds := func(f *lab.Follower, want int) {
		t.Helper()
		f.Until(fmt.Sprintf("live with %d", want), func(seen []*rollcall.Snapshot) bool {
			return len(seen) > 0 && len(seen[len(seen)-1].Instances()) == want && seen[len(seen)-1].Stale() == nil
		})
	}
	link := etcdtest.NewLink(t, etcd.Endpoints()[0])
	began := time.Now()
	f := lab.Follow(t, lab.Client(t, link.Addr()), "svc")
	holds(f, n)
	lab.Note(t, "%d keys listed in %v", n, time.Since(began).Round(time.Millisecond))
	began = time.Now()
	lab.Put(t, direct, "svc", "lone", nil)
	holds(f, n+1)
	lab.Note(t, "a change arrives in %v", time.Since(began).Round(time.Millisecond))

	// What was missed comes as one response of the watch, in fragments: no list.
	lists := f.Directory.Stats().Lists
	link.Cut()
	more := lab.Size(5_000, 3_000)
	if err := writeSized(etcd.Endpoints()[0], "svc/b-", more, 1024); err != nil {
		t.Fatal(err)
	}
	link.Mend()
	holds(f, n+1+more)
	if got := f.Directory.Stats().Lists; got != lists {
		t.Errorf("%d lists for what the watch has", got-lists)
	}
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
