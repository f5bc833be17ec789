// SPDX-FileCopyrightText: The Rollcall Authors
// SPDX-License-Identifier: Apache-2.0

package watching_test

import (
	"context"
	"fmt"
	"path/filepath"
	"slices"
	"sync"
	"testing"
	"time"

	clientv3 "go.etcd.io/etcd/client/v3"
	"google.golang.org/grpc"

	"github.com/rollcall-grpc/rollcall"
	"github.com/rollcall-grpc/rollcall/internal/test/e2e/lab"
	"github.com/rollcall-grpc/rollcall/internal/test/etcdtest"
)

// addrs returns the addresses that lab.Put gives these ids.
func addrs(ids ...string) []string {
	var all []string
	for _, id := range ids {
		all = append(all, lab.AddrOf(id))
	}
	return all
}

func put(e *lab.Env, ids ...string) {
	for _, id := range ids {
		lab.Put(e.T, e.Client, e.Target, id, nil)
	}
}

func remove(e *lab.Env, ids ...string) {
	for _, id := range ids {
		lab.Remove(e.T, e.Client, e.Key(id))
	}
}

// follow looks closer where the package checked is Rollcall: nil for etcd's.
func follow(e *lab.Env, client *clientv3.Client) *lab.Follower {
	if !e.Ours() {
		return nil
	}
	return lab.Follow(e.T, client, e.Target)
}

func TestW1HistoryCompactedWhileCutOff(t *testing.T) {
	t.Parallel()
	lab.Compare(t, etcdtest.Options{}, cutOffAndCompacted)
}

func cutOffAndCompacted(e *lab.Env) {
	link := etcdtest.NewLink(e.T, e.Reach[0])
	client := e.ClientWith(lab.At(link.Addr()))
	put(e, "a", "b", "c")
	channel := e.ResolveBy(e.BuilderOf(client), e.Target)
	e.Shows(channel, addrs("a", "b", "c")...)
	f := follow(e, client)
	if f != nil {
		f.Holds("a", "b", "c")
	}

	link.Cut()
	if f != nil {
		f.GoesStale()
	}
	remove(e, "a")
	put(e, "d")
	lab.Put(e.T, e.Client, e.Target, "b", map[string]string{"version": "2"})
	for i := range 20 {
		lab.Put(e.T, e.Client, "other", fmt.Sprint(i), nil)
	}
	lab.Compact(e.T, e.Client)
	told := channel.Count()
	link.Mend()
	mended := time.Now()
	e.Shows(channel, addrs("b", "c", "d")...)
	e.Within("the exact set after the link was mended", mended, time.Second)
	if n := channel.Count() - told; n != 1 {
		e.Failf("the channel was told in %d steps", n)
	}
	if f != nil {
		if got := f.Holds("b", "c", "d").Instance(e.Key("b")).Attributes().Version; got != "2" {
			e.Failf("b has version %q, want 2", got)
		}
		if got := lab.Contents(f.Since(0)); !slices.Equal(got, []string{"a b c", "b c d"}) {
			e.Failf("the difference came in steps: %q", got)
		}
	}
	added := time.Now()
	put(e, "e")
	e.Shows(channel, addrs("b", "c", "d", "e")...)
	e.Within("what came after that", added, time.Second)
}

func TestW2CompactedBetweenListAndWatch(t *testing.T) {
	t.Parallel()
	compactedBetween(lab.NewEnv(t, lab.Rollcall, lab.Start(t, etcdtest.Options{}), "svc"))
}

func compactedBetween(e *lab.Env) {
	put(e, "a")
	var once sync.Once
	var between time.Time
	client := e.ClientWith(func(cfg *clientv3.Config) {
		cfg.DialOptions = append(cfg.DialOptions, grpc.WithChainStreamInterceptor(
			func(ctx context.Context, desc *grpc.StreamDesc, conn *grpc.ClientConn, method string, open grpc.Streamer, opts ...grpc.CallOption) (grpc.ClientStream, error) {
				if method == "/etcdserverpb.Watch/Watch" {
					once.Do(func() {
						put(e, "b")
						remove(e, "a")
						lab.Compact(e.T, e.Client)
						between = time.Now()
					})
				}
				return open(ctx, desc, conn, method, opts...)
			}))
	})
	f := lab.Follow(e.T, client, e.Target)
	f.Holds("b")
	e.Within("the exact set after the compaction", between, time.Second)
	for _, snap := range f.Since(0) {
		if snap.Staleness() != nil {
			e.Failf("marked stale: %v", snap.Staleness().Cause)
		}
	}
}

func TestW5DataLost(t *testing.T) {
	t.Parallel()
	lab.Compare(t, etcdtest.Options{}, func(e *lab.Env) { wiped(e, 5*time.Second) })
}

func wiped(e *lab.Env, bound time.Duration) {
	var old []string
	for i := range 50 {
		old = append(old, fmt.Sprintf("old-%02d", i))
	}
	put(e, old...)
	client := e.ClientWith()
	channel := e.ResolveBy(e.BuilderOf(client), e.Target)
	e.Shows(channel, addrs(old...)...)
	f := follow(e, client)
	if f != nil {
		f.Holds(old...)
	}
	member := e.Etcd.Member(0)
	member.Stop()
	if f != nil {
		if mark := f.GoesStale(); mark.Since.IsZero() || mark.Cause == nil {
			e.Failf("mark without since or cause: %+v", mark)
		}
	}
	e.Shows(channel, addrs(old...)...)
	member.Wipe()
	member.Start()
	e.Etcd.WaitReady()
	ready := time.Now()
	put(e, "new-1")
	e.Shows(channel, addrs("new-1")...)
	e.Within("the new set after etcd was ready", ready, bound)
	if f != nil {
		if got := f.Holds("new-1").Epoch(); got != 2 {
			e.Failf("epoch %d, want 2", got)
		}
	}
	put(e, "new-2")
	e.Shows(channel, addrs("new-1", "new-2")...)
}

// Restored without a bump, etcd writes other things under the same revisions while nobody
// looks, and is beyond what the client has seen when the client is back.
func TestW6RevisionOvertakesAfterRestore(t *testing.T) {
	t.Parallel()
	const period = 2 * time.Second
	e := lab.NewEnv(t, lab.Rollcall, etcdtest.New(t, etcdtest.Options{}), "svc")
	link := etcdtest.NewLink(t, e.Reach[0])
	f := lab.FollowWith(t, e.ClientWith(lab.At(link.Addr())), "svc/", rollcall.DirectoryOptions{ConsistencyCheckPeriod: period})
	member, file := e.Etcd.Member(0), filepath.Join(t.TempDir(), "backup")
	put(e, "a", "b")
	member.Save(file)
	put(e, "ghost")
	remove(e, "a")
	f.Holds("b", "ghost")

	link.Cut()
	f.GoesStale()
	member.Stop()
	member.Restore(file)
	member.Start()
	e.Etcd.WaitReady()
	remove(e, "b")
	put(e, "c")
	for i := range 50 {
		lab.Put(t, e.Client, "other", fmt.Sprint(i), nil)
	}
	link.Mend()
	mended := time.Now()
	f.Holds("a", "c")
	lab.Within(t, "found and mended, with a comparison every 2 s", mended, period*5/4+5*time.Second)
	if stats := f.Directory.Stats(); stats.Inconsistencies == 0 && stats.Epochs == 0 {
		t.Errorf("mended by chance: %+v", stats)
	}
	put(e, "d")
	f.Holds("a", "c", "d")
}

func TestW7RestoredWithBump(t *testing.T) {
	t.Parallel()
	lab.Compare(t, etcdtest.Options{}, func(e *lab.Env) {
		client := e.ClientWith()
		put(e, "a", "b")
		member, file := e.Etcd.Member(0), filepath.Join(e.T.TempDir(), "backup")
		member.Save(file)
		put(e, "c")
		remove(e, "a")
		channel := e.ResolveBy(e.BuilderOf(client), e.Target)
		e.Shows(channel, addrs("b", "c")...)
		f := follow(e, client)
		if f != nil {
			f.Holds("b", "c")
		}
		member.Stop()
		if f != nil {
			f.GoesStale()
		}
		member.Restore(file, "--bump-revision=1000000", "--mark-compacted")
		told := channel.Count()
		member.Start()
		e.Etcd.WaitReady()
		ready := time.Now()
		e.Shows(channel, addrs("a", "b")...)
		e.Within("what was restored after etcd was ready", ready, time.Second)
		if n := channel.Count() - told; n != 1 {
			e.Failf("the channel was told in %d steps", n)
		}
		put(e, "d")
		e.Shows(channel, addrs("a", "b", "d")...)
		if f != nil {
			f.Holds("a", "b", "d")
		}
	})
}
