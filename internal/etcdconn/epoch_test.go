// SPDX-FileCopyrightText: The Rollcall Authors
// SPDX-License-Identifier: Apache-2.0

package etcdconn

import (
	"context"
	"strings"
	"testing"
	"time"

	"go.etcd.io/etcd/api/v3/etcdserverpb"
	"go.etcd.io/etcd/api/v3/v3rpc/rpctypes"
	clientv3 "go.etcd.io/etcd/client/v3"

	"github.com/rollcall-grpc/rollcall/internal/etcdkv"
	"github.com/rollcall-grpc/rollcall/internal/test/fakeetcd"
)

func (e *env) epoch(when string, want int) {
	e.Helper()
	if got := e.status().Epoch; got != want {
		e.Errorf("%s: epoch %d, want %d", when, got, want)
	}
}

func TestLowerRevisionIsANewEpoch(t *testing.T) {
	bubble(t, func(e *env) {
		e.epoch("at first", 1)
		recovered := e.monitor.Recovered()
		for _, revision := range []int64{10, 10, 12} {
			if got := e.monitor.ObserveResponse(revision, 2, e.monitor.Floor()); got != 1 {
				e.Errorf("revision %d: epoch %d", revision, got)
			}
		}
		if got, want := e.monitor.Floor(), (Floor{12, 2, 1}); got != want {
			e.Errorf("floor %+v, want %+v", got, want)
		}
		if got := e.monitor.ObserveResponse(11, 2, e.monitor.Floor()); got != 2 {
			e.Errorf("a lower revision is of epoch %d, want 2", got)
		}
		if got, want := e.monitor.Floor(), (Floor{11, 2, 2}); got != want {
			e.Errorf("floor %+v, want %+v", got, want)
		}
		if !closed(recovered) {
			e.Error("nobody who waits is told")
		}
		if got := e.lines(); !strings.HasPrefix(got, `level=WARN msg="etcd lost its data or was restored from a backup; following what it holds now" revision=11 term=2 lastRevision=12 lastTerm=2`) {
			e.Errorf("log: %s", got)
		}
	})
}

// A response is compared with the floor from before it was asked for: what was observed
// meanwhile makes no new epoch, and a response that was under way when one began tells
// nothing about it.
func TestFloorRaces(t *testing.T) {
	bubble(t, func(e *env) {
		early := e.monitor.Floor()
		e.monitor.ObserveRevision(100, 1)
		if got := e.monitor.ObserveResponse(50, 2, early); got != 1 || e.monitor.Floor().Revision != 100 {
			e.Errorf("epoch %d, floor %+v, want 1 and 100", got, e.monitor.Floor())
		}
		late := e.monitor.Floor()
		if got := e.monitor.ObserveResponse(5, 2, e.monitor.Floor()); got != 2 {
			e.Fatalf("epoch %d, want 2", got)
		}
		for _, revision := range []int64{3, 200} {
			if got := e.monitor.ObserveResponse(revision, 9, late); got != 1 {
				e.Errorf("a response of before, at revision %d: epoch %d, want 1", revision, got)
			}
		}
		e.monitor.ObserveRevision(300, 1)
		if got, want := e.monitor.Floor(), (Floor{5, 2, 2}); got != want {
			e.Errorf("floor %+v, want %+v", got, want)
		}
	})
}

// A lower raft term makes a new epoch once it has lasted for a second.
func TestLowerTermIsANewEpoch(t *testing.T) {
	for _, row := range []struct {
		name string
		low  float64 // seconds that the term is low
		want int
	}{{"for a moment", 0.5, 1}, {"for good", 5, 2}} {
		t.Run(row.name, func(t *testing.T) {
			bubble(t, func(e *env) {
				e.store.SetTerm(5)
				e.monitor.SuspectEpoch()
				sleep(2)
				e.store.SetTerm(4)
				if got := e.monitor.ObserveResponse(e.store.Revision(), 4, e.monitor.Floor()); got != 1 {
					e.Errorf("epoch %d at once", got)
				}
				sleep(row.low)
				e.epoch("after it was low", row.want)
				e.store.SetTerm(5)
				sleep(30)
				e.epoch("in the end", row.want)
			})
		})
	}
}

// A message on the stream that is below the floor is a hint: the epoch is verified, and
// stands where the member only lags.
func TestHint(t *testing.T) {
	for _, lost := range []bool{false, true} {
		bubble(t, func(e *env) {
			for range 5 {
				e.store.Put("p/a", "")
			}
			e.monitor.SuspectEpoch()
			sleep(3)
			if got := e.monitor.Floor().Revision; got != 6 {
				e.Fatalf("floor %d, want 6 verified", got)
			}
			if lost {
				e.store.Wipe()
			}
			e.monitor.observeMessage(e.generation(), &etcdserverpb.ResponseHeader{ClusterId: fakeetcd.ClusterID, Revision: 3})
			sleep(2)
			want := 1
			if lost {
				want = 2
			}
			e.epoch("after the hint", want)
		})
	}
}

// The epoch is verified no more than once in a second.
func TestVerifiedSparingly(t *testing.T) {
	bubble(t, func(e *env) {
		sleep(2)
		before := e.conn.Calls(fakeetcd.Get)
		for range 100 {
			e.monitor.SuspectEpoch()
			sleep(0.05)
		}
		if n := e.conn.Calls(fakeetcd.Get) - before; n < 4 || n > 6 {
			e.Errorf("%d questions in 5 s", n)
		}
	})
}

// A key that may not be read any more cannot tell, and the next one is tried; where none may
// be read nothing is known, and that is no outage.
func TestVerifyUnreadableKeys(t *testing.T) {
	bubble(t, func(e *env) {
		e.probe(true, "a/", "b/", "c/")
		for range 5 {
			e.store.Put("x", "")
		}
		e.monitor.SuspectEpoch()
		sleep(2)
		e.store.Wipe()
		readable := ""
		var asked []string
		e.conn.SetHook(func(_ context.Context, call fakeetcd.Call) error {
			if call.Method == fakeetcd.Get {
				asked = append(asked, call.Key)
				if call.Key != readable {
					return rpctypes.ErrPermissionDenied
				}
			}
			return nil
		})
		e.monitor.SuspectEpoch()
		sleep(2)
		e.epoch("all refused", 1)
		e.outage("all refused", nil)
		if strings.Join(asked, " ") != "a/ b/ c/" {
			e.Errorf("asked for %v, want each once", asked)
		}
		readable = "b/"
		asked = nil
		e.monitor.SuspectEpoch()
		sleep(2)
		e.epoch("one may be read", 2)
		if strings.Join(asked, " ") != "a/ b/" {
			e.Errorf("asked for %v, want no more than needed", asked)
		}
	})
}

// A verification that fails is an outage, and is made when etcd is back.
func TestVerifyFails(t *testing.T) {
	bubble(t, func(e *env) {
		e.store.Put("x", "")
		e.monitor.SuspectEpoch()
		sleep(2)
		e.conn.FailNext(fakeetcd.Get, rpctypes.ErrNoLeader)
		e.store.Wipe()
		e.monitor.SuspectEpoch()
		time.Sleep(time.Millisecond)
		e.outage("it failed", rpctypes.ErrNoLeader)
		sleep(5)
		e.outage("etcd is back", nil)
		e.epoch("etcd is back", 2)
	})
}

// Behind a proxy that names no cluster a probe proves nothing: everybody has to compare.
func TestVerifyBehindAProxy(t *testing.T) {
	bubble(t, func(e *env) {
		sleep(60)
		if got := e.status().Verify; got != 0 {
			e.Errorf("verify %d with an etcd that names its cluster", got)
		}
		e.stop()
		e.conn.Client.Watcher = proxied{e.conn.Client.Watcher}
		e.start()
		sleep(60)
		if got := e.status().Verify; got < 4 || got > 7 {
			e.Errorf("verify %d after a minute, want one for each probe", got)
		}
		e.outage("behind a proxy", nil)
	})
}

// proxied is a Watcher whose headers name no cluster.
type proxied struct{ clientv3.Watcher }

func (p proxied) Watch(ctx context.Context, key string, opts ...clientv3.OpOption) clientv3.WatchChan {
	out := make(chan clientv3.WatchResponse, 1)
	in := p.Watcher.Watch(ctx, key, opts...)
	go func() {
		defer close(out)
		for resp := range in {
			if resp.Header != nil {
				resp.Header.ClusterId = 0
			}
			select {
			case out <- resp:
			case <-ctx.Done():
			}
		}
	}()
	return out
}

// Without a range that may be read there is no stream: etcd is asked instead.
func TestNothingReadable(t *testing.T) {
	for _, keys := range [][]string{nil, {"p/"}} {
		bubble(t, func(e *env) {
			e.probe(false, keys...)
			probes, asked := e.conn.Calls(fakeetcd.Watch), e.conn.Calls(fakeetcd.Get)
			sleep(60)
			if n := e.conn.Calls(fakeetcd.Watch) - probes; n != 0 {
				e.Errorf("%d probes of no stream", n)
			}
			if n := e.conn.Calls(fakeetcd.Get) - asked; n < 4 || n > 7 {
				e.Errorf("%d questions in a minute, want one in 10 s", n)
			}
			e.conn.Cut()
			sleep(20)
			e.outage("cut", etcdkv.ErrNoAnswer)
		})
	}
}
