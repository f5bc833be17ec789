// SPDX-FileCopyrightText: The Rollcall Authors
// SPDX-License-Identifier: Apache-2.0

package random

import (
	"context"
	"errors"
	"slices"
	"time"

	"go.etcd.io/etcd/api/v3/v3rpc/rpctypes"
	clientv3 "go.etcd.io/etcd/client/v3"

	"github.com/rollcall-grpc/rollcall/internal/test/fakeetcd"
)

// fakeFaults are those of fakeWorld; N is a client.
var fakeFaults = []string{"cut N", "cut N", "freeze N", "mend N", "mend N", "leaderless N", "break N", "close N", "cancel N", "lose N",
	"refuse N", "stick N", "stick N", "deny N", "token N", "resubscribe N", "compact", "compact", "expire", "wipe", "save", "restore"}

// fakeWorld is the fake etcd, to be used in virtual time.
type fakeWorld struct {
	store *fakeetcd.Store
	root  *fakeetcd.Conn
	conns []*fakeetcd.Conn
	saved *fakeetcd.Snapshot
}

func newFakeWorld() *fakeWorld {
	w := &fakeWorld{store: fakeetcd.New()}
	w.root = w.store.Connect(context.Background())
	for range clients {
		w.conns = append(w.conns, w.store.Connect(context.Background()))
	}
	return w
}

func (w *fakeWorld) close() {
	for _, conn := range append(w.conns, w.root) {
		conn.Close()
	}
	w.store.Close()
}

func (w *fakeWorld) client(i int) *clientv3.Client { return w.conns[i].Client }
func (w *fakeWorld) cacheDir(int) string           { return "" } // virtual time does not pass while a disk is busy
func (w *fakeWorld) direct() *clientv3.Client      { return w.root.Client }

func (w *fakeWorld) fault(op string, i int, losing func(lose func())) {
	conn := w.conns[i]
	switch op {
	case "cut":
		conn.Cut()
	case "freeze":
		conn.Freeze()
	case "mend":
		w.mend(conn)
	case "leaderless":
		conn.LoseLeader()
	case "break":
		conn.BreakStreams()
	case "close":
		conn.CloseWatches()
	case "cancel":
		conn.CancelWatches(errors.New("etcdserver: mvcc: some fault"))
	case "lose":
		conn.LoseAnswers(2)
	case "refuse":
		conn.FailNext(fakeetcd.Get, errors.New("rpc error: code = Unknown desc = some fault"), context.DeadlineExceeded)
	case "stick":
		conn.DelayWrites(3)
	case "deny":
		for _, m := range rights {
			conn.Fail(m, rpctypes.ErrPermissionDenied)
		}
	case "token":
		conn.FailNext(fakeetcd.Get, rpctypes.ErrInvalidAuthToken)
		conn.FailNext(fakeetcd.Txn, rpctypes.ErrInvalidAuthToken)
		conn.CancelWatches(rpctypes.ErrInvalidAuthToken)
	case "compact":
		_ = w.store.Compact(w.store.Revision()) // compacted already is as good
	case "expire":
		ids := make([]clientv3.LeaseID, 0, 4)
		for id := range w.store.Leases() {
			ids = append(ids, id)
		}
		slices.Sort(ids)
		if len(ids) > 0 {
			w.store.ExpireLease(ids[0])
		}
	case "wipe":
		losing(w.store.Wipe)
	case "save":
		w.saved = w.store.Snapshot()
	case "restore":
		if w.saved != nil {
			losing(func() { w.store.Restore(w.saved, 0) })
		}
	}
}

func (w *fakeWorld) mend(conn *fakeetcd.Conn) {
	conn.Mend()
	conn.Thaw()
	conn.FindLeader()
	conn.LoseAnswers(0)
	conn.Land()
	for _, m := range rights {
		conn.Fail(m, nil)
	}
}

// rights are what a role may be granted and refused. A watch that is refused in the moment
// in which its stream ends leaves clientv3's goroutines behind, and in virtual time all is
// one moment: watches are refused on real etcd alone.
var rights = []fakeetcd.Method{fakeetcd.Get, fakeetcd.GetStream, fakeetcd.Txn}

func (w *fakeWorld) heal() {
	for _, conn := range w.conns {
		w.mend(conn)
	}
}

// patience allows for what the fake lacks, a connection whose state can be seen: silence is
// noticed after 10 s, and its answer may take 5 s.
func (w *fakeWorld) patience() patience {
	return patience{bound: 25 * time.Second, poll: time.Second}
}
