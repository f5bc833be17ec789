// SPDX-FileCopyrightText: The Rollcall Authors
// SPDX-License-Identifier: Apache-2.0

package reflector

import (
	"fmt"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"go.etcd.io/etcd/api/v3/v3rpc/rpctypes"
	"pgregory.net/rapid"

	"github.com/rollcall-grpc/rollcall/internal/test/fakeetcd"
)

// step is one thing that happens to an etcd and its client, and how long it lasts.
type step struct {
	name string
	key  string
	wait time.Duration
}

func (s step) String() string { return strings.TrimSpace(fmt.Sprint(s.name, " ", s.key, " ", s.wait)) }

var faults = map[string]func(e *env){
	"cut":             func(e *env) { e.conn.Cut() },
	"mend":            func(e *env) { e.conn.Mend() },
	"freeze":          func(e *env) { e.conn.Freeze() },
	"thaw":            func(e *env) { e.conn.Thaw() },
	"lose the leader": func(e *env) { e.conn.LoseLeader() },
	"find a leader":   func(e *env) { e.conn.FindLeader() },
	"break streams":   func(e *env) { e.conn.BreakStreams() },
	"close watches":   func(e *env) { e.conn.CloseWatches() },
	"refuse tokens":   func(e *env) { e.conn.CancelWatches(rpctypes.ErrInvalidAuthToken) },
	"compact":         func(e *env) { _ = e.store.Compact(e.store.Revision()) },
	"wipe":            func(e *env) { e.store.Wipe() },
	"refuse":          func(e *env) { e.conn.FailNext(fakeetcd.Get, rpctypes.ErrPermissionDenied) },
	"fail":            func(e *env) { e.conn.FailNext(fakeetcd.Get, rpctypes.ErrTimeout) },
	"tear":            func(e *env) { e.conn.TearRangeStream(1, rpctypes.ErrNoLeader) },
}

func drawStep(t *rapid.T) step {
	names := []string{"put", "put", "put", "put", "delete", "delete"}
	for name := range faults {
		names = append(names, name)
	}
	s := step{name: rapid.SampledFrom(slices.Sorted(slices.Values(names))).Draw(t, "step")}
	if faults[s.name] == nil {
		s.key = fmt.Sprint("p/", rapid.IntRange(0, 5).Draw(t, "key"))
	}
	s.wait = rapid.SampledFrom([]time.Duration{0, 0, time.Millisecond, 50 * time.Millisecond, 2 * time.Second, 15 * time.Second}).Draw(t, "wait")
	return s
}

// TestEventuallySame checks that after any history, once etcd is well, the content is what
// etcd has, live. Revisions of a wiped store are soon reused: what makes the difference is
// noticed by a new epoch or, where the old revision was overtaken, by a periodic check.
func TestEventuallySame(t *testing.T) {
	rapid.Check(t, func(rt *rapid.T) {
		steps := rapid.SliceOfN(rapid.Custom(drawStep), 1, 30).Draw(rt, "steps")
		chunk := rapid.SampledFrom([]int{0, 2}).Draw(rt, "chunk")
		var failure string
		synctest.Test(t, func(t *testing.T) {
			e := newEnv(t)
			defer e.close()
			e.conn.StreamRanges(chunk)
			_, s := e.follow("p/", Options{CheckPeriod: 20 * time.Second})
			for i, step := range steps {
				switch fault := faults[step.name]; {
				case fault != nil:
					fault(e)
				case step.name == "put":
					e.store.Put(step.key, fmt.Sprint(i))
				default:
					e.store.Delete(step.key)
				}
				time.Sleep(step.wait)
			}
			e.conn.Mend()
			e.conn.Thaw()
			e.conn.FindLeader()
			sleep(180)
			failure = e.differs(s, "p/")
		})
		if failure != "" {
			rt.Fatal(failure)
		}
	})
}
