// SPDX-FileCopyrightText: The Rollcall Authors
// SPDX-License-Identifier: Apache-2.0

package fakeetcd

import (
	"fmt"
	"maps"
	"slices"
	"strings"
	"testing/synctest"

	"go.etcd.io/etcd/api/v3/v3rpc/rpctypes"
	clientv3 "go.etcd.io/etcd/client/v3"
)

// compare reads every revision and the leases and compares them with the model.
func (r *run) compare() error {
	for rev := int64(1); rev <= r.m.revision()+1; rev++ {
		resp, err := r.cli.Get(r.ctx, "", clientv3.WithPrefix(), clientv3.WithRev(rev))
		want := error(nil)
		switch {
		case rev < r.m.compacted:
			want = rpctypes.ErrCompacted
		case rev > r.m.revision():
			want = rpctypes.ErrFutureRev
		}
		if want != nil || err != nil {
			if fmt.Sprint(err) != fmt.Sprint(want) {
				return fmt.Errorf("get at %d: got error %v, want %v", rev, err, want)
			}
			continue
		}
		var got []string
		for _, kv := range resp.Kvs {
			lease := slices.Index(r.ids, clientv3.LeaseID(kv.Lease))
			e := entry{string(kv.Value), kv.CreateRevision, kv.ModRevision, kv.Version, lease}
			got = append(got, fmt.Sprintf("%q %+v", kv.Key, e))
		}
		if g, w := strings.Join(got, "\n"), printed(r.m.revisions[rev-1]); g != w {
			return fmt.Errorf("get at %d:\ngot\n%s\nwant\n%s", rev, g, w)
		}
		if resp.Header.Revision != r.m.revision() {
			return fmt.Errorf("got revision %d, want %d", resp.Header.Revision, r.m.revision())
		}
	}
	return r.compareLeases()
}

func printed(content map[string]entry) string {
	var out []string
	for _, k := range slices.Sorted(maps.Keys(content)) {
		out = append(out, fmt.Sprintf("%q %+v", k, content[k]))
	}
	return strings.Join(out, "\n")
}

func (r *run) compareLeases() error {
	got := r.store.Leases()
	alive := 0
	for i, left := range r.m.leases {
		info, ok := got[r.ids[i]]
		if ok != (left > 0) {
			return fmt.Errorf("lease %d: got alive %v, want %d s left", i, ok, left)
		}
		if !ok {
			continue
		}
		alive++
		var want []string
		for k, e := range r.m.latest() {
			if e.lease == i {
				want = append(want, k)
			}
		}
		slices.Sort(want)
		if !slices.Equal(info.Keys, want) {
			return fmt.Errorf("lease %d: got keys %q, want %q", i, info.Keys, want)
		}
	}
	if len(got) != alive {
		return fmt.Errorf("got %d leases, want %d", len(got), alive)
	}
	return nil
}

// drain reads what the watches have.
func (r *run) drain() {
	synctest.Wait()
	for _, f := range r.followers {
		for more := true; more; {
			select {
			case resp, ok := <-f.ch:
				if !ok {
					f.ch = nil
					f.seen += " closed"
					continue
				}
				_, events, _ := strings.Cut(describe(resp), ":")
				f.seen += events
			default:
				more = false
			}
		}
	}
}

// compareFollowers checks that every watch saw every event once, in order,
// whatever broke in between.
func (r *run) compareFollowers() error {
	for i, f := range r.followers {
		var want string
		for rev := f.from; rev <= r.m.revision(); rev++ {
			want += r.m.events[rev-1]
		}
		if f.seen != want {
			return fmt.Errorf("watch %d from %d: got %q, want %q", i, f.from, f.seen, want)
		}
	}
	return nil
}
