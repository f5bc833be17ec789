// SPDX-FileCopyrightText: The Rollcall Authors
// SPDX-License-Identifier: Apache-2.0

package resolving_test

import (
	"fmt"
	"testing"
	"time"

	clientv3 "go.etcd.io/etcd/client/v3"
	"google.golang.org/grpc"

	"github.com/rollcall-grpc/rollcall/internal/test/e2e/lab"
	"github.com/rollcall-grpc/rollcall/internal/test/etcdtest"
)

const watchersMetric = "etcd_debugging_mvcc_watcher_total"

// naming are the packages whose goroutines end with the channels.
var naming = []string{"rollcall-grpc/rollcall", "rollcall-grpc/rollcall/resolver",
	"client/v3/naming/resolver", "client/v3/naming/endpoints"}

func TestG11ChannelsOpenedAndClosed(t *testing.T) {
	t.Parallel()
	for _, row := range []struct {
		name        string
		begin, heal func(*etcdtest.Link, *etcdtest.Member)
	}{
		{"healthy", func(*etcdtest.Link, *etcdtest.Member) {}, func(*etcdtest.Link, *etcdtest.Member) {}},
		{"cut", func(l *etcdtest.Link, _ *etcdtest.Member) { l.Cut() }, func(l *etcdtest.Link, _ *etcdtest.Member) { l.Mend() }},
		{"frozen", func(l *etcdtest.Link, _ *etcdtest.Member) { l.Freeze() }, func(l *etcdtest.Link, _ *etcdtest.Member) { l.Mend() }},
		{"etcd stopped", func(_ *etcdtest.Link, m *etcdtest.Member) { m.Stop() }, func(_ *etcdtest.Link, m *etcdtest.Member) { m.Start() }},
	} {
		t.Run(row.name, func(t *testing.T) {
			t.Parallel()
			lab.Compare(t, etcdtest.Options{}, func(e *lab.Env) {
				e.Serve("one")
				member := e.Etcd.Member(0)
				watchers := member.Metric(e.T, watchersMetric)
				link := etcdtest.NewLink(e.T, e.Reach[0])
				var client *clientv3.Client
				var known *grpc.ClientConn
				e.Labelled(func() {
					client = e.ClientWith(lab.At(link.Addr()))
					known = e.DialBy(e.BuilderOf(client), "etcd:///"+e.Target)
					e.Reaches(known, "one")
				})
				row.begin(link, member)
				e.Labelled(func() {
					openAndClose(e, func(i int) *grpc.ClientConn {
						// Half of them resolve what the process knows, the others what it does not.
						return e.DialBy(e.BuilderOf(client), fmt.Sprintf("etcd:///%s%.*s", e.Target, i%2, "x"))
					})
					known.Close()
				})
				e.Eventually(func() error { return e.Left(naming...) }) // the fault goes on, the client is open
				row.heal(link, member)
				e.Etcd.WaitReady()
				client.Close()
				e.Eventually(func() error { return e.Left() })
				e.Eventually(func() error {
					if n := member.Metric(e.T, watchersMetric); n > watchers {
						return fmt.Errorf("%v watchers at etcd, %v before", n, watchers)
					}
					return nil
				})
			})
		})
	}
}

// openAndClose opens channels and closes them, a hundred at a time, and some before they
// are resolved.
func openAndClose(e *lab.Env, open func(i int) *grpc.ClientConn) {
	const batch = 100
	slowest := time.Duration(0)
	for from := 0; from < lab.Size(1000, 200); from += batch {
		var conns [batch]*grpc.ClientConn
		for i := range conns {
			e.OK(e.Ctx.Err())
			conns[i] = open(from + i)
			conns[i].Connect()
		}
		if from > 0 {
			time.Sleep(100 * time.Millisecond)
		}
		for _, conn := range conns {
			began := time.Now()
			conn.Close()
			slowest = max(slowest, time.Since(began))
		}
	}
	e.Within("the slowest Close", time.Now().Add(-slowest), 100*time.Millisecond)
}
