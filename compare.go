// SPDX-FileCopyrightText: The Rollcall Authors
// SPDX-License-Identifier: Apache-2.0

package rollcall

import (
	"context"
	"fmt"
	"time"

	clientv3 "go.etcd.io/etcd/client/v3"

	"github.com/rollcall-grpc/rollcall/internal/backoff"
)

const (
	refreshEvery = 10 * time.Second // least time between two comparisons of a feed that were asked for
	auditEvery   = 5 * time.Minute  // default of DirectoryOptions.ConsistencyCheckPeriod
	auditRetry   = 30 * time.Second // until an audit that failed is done again
	auditedAt    = 1000             // instances that are audited so often; more in proportion less often
	compareGrace = time.Second      // how long a difference must last: its event may be on its way
)

// comparison says what a comparison with etcd is for.
type comparison int

const (
	asHint  comparison = iota // somebody suspects that the snapshot is out of date
	asProof                   // behind a proxy, nothing else proves that etcd is there: it must succeed
	asAudit                   // from time to time everything is compared
)

// compare begins a comparison with etcd, one at a time.
func (w *feedWatch) compare(f *feed, kind comparison) {
	if w.comparing && kind == asProof {
		w.kind = asProof // the one under way proves it as well
	}
	if w.comparing || kind != asAudit && time.Since(f.compared) < refreshEvery {
		return
	}
	w.comparing, w.kind, f.compared = true, kind, time.Now()
	w.wg.Go(func() { w.compared <- f.compare(w.ctx, kind == asAudit) })
}

func earlier(a, b time.Time) time.Time {
	if b.Before(a) {
		return b
	}
	return a
}

// audit begins the periodic comparison when it is due.
func (f *feed) audit(w *feedWatch) {
	if time.Now().Before(f.audited) {
		return
	}
	if w.comparing {
		f.audited = time.Now().Add(auditRetry)
		return
	}
	f.audited = time.Now().Add(f.auditPause())
	w.compare(f, asAudit)
}

// auditPause returns the time until the next audit.
func (f *feed) auditPause() time.Duration {
	every := f.dir.auditEvery
	if every < 0 {
		return backoff.Never
	}
	if snap, _ := f.latest(); snap != nil {
		every = max(every, every/auditedAt*time.Duration(len(snap.instances)))
	}
	return every*3/4 + backoff.Jitter(every/2)
}

// compare returns errDrifted where etcd holds something else than the snapshot. Unless
// everything is asked for at once, it asks first for the number of keys and their greatest
// ModRevision, which find all that a watch can miss but for rare coincidences.
func (f *feed) compare(ctx context.Context, everything bool) error {
	if err := backoff.Sleep(ctx, backoff.Jitter(compareGrace), nil); err != nil {
		return err
	}
	if !everything {
		if same, err := f.agrees(ctx); same || err != nil {
			return err
		}
		if err := backoff.Sleep(ctx, compareGrace, nil); err != nil {
			return err
		}
	}
	first, err := f.differences(ctx)
	if len(first) == 0 || err != nil {
		return err
	}
	if err := backoff.Sleep(ctx, compareGrace, nil); err != nil {
		return err
	}
	again, err := f.differences(ctx)
	for key, diff := range again {
		if first[key] == diff {
			return fmt.Errorf("%w: key %q holds (%s), not (%s)", errDrifted, key, diff.stored, diff.shown)
		}
	}
	return err
}

// agrees asks etcd, linearizably, for the number of keys and their greatest ModRevision.
func (f *feed) agrees(ctx context.Context) (bool, error) {
	before := f.dir.link.seen()
	resp, err := f.dir.lister.first(ctx, f.span, append(clientv3.WithLastRev(), clientv3.WithKeysOnly())...)
	if err != nil {
		return false, fmt.Errorf("compare %q: %w", f.span.Key, err)
	}
	f.dir.link.sawAnswer(resp.Header.Revision, resp.Header.RaftTerm, before)
	var last int64
	if len(resp.Kvs) > 0 {
		last = resp.Kvs[0].ModRevision
	}
	snap, _ := f.latest()
	count, modRevision := snap.extent()
	return count == resp.Count && modRevision == last, nil
}

// difference is what a key holds here and in etcd, as text.
type difference struct{ shown, stored string }

// differences lists the span, linearizably, and returns the keys that hold something else.
func (f *feed) differences(ctx context.Context) (map[string]difference, error) {
	before := f.dir.link.seen()
	got, err := f.dir.lister.list(ctx, f.span, false, nil)
	if err != nil {
		return nil, fmt.Errorf("compare %q: %w", f.span.Key, err)
	}
	f.dir.link.sawAnswer(got.revision, got.term, before)
	shown, _ := f.latest()
	stored := shown.relisted(got, shown.history)
	diffs := make(map[string]difference)
	for _, change := range stored.Diff(shown) {
		diffs[change.Key] = difference{change.Old.text(), change.New.text()}
	}
	for key, mods := range rejections(shown, stored) {
		diffs[key] = difference{fmt.Sprintf("rejected, ModRevision %d", mods[0]), fmt.Sprintf("rejected, ModRevision %d", mods[1])}
	}
	return diffs, nil
}

// rejections returns the keys that one of two snapshots alone rejects as they are, with
// the ModRevisions in both, 0 for none.
func rejections(a, b *Snapshot) map[string][2]int64 {
	odd := make(map[string][2]int64)
	for _, rej := range a.rejected {
		odd[rej.Key] = [2]int64{rej.ModRevision, 0}
	}
	for _, rej := range b.rejected {
		if mods := odd[rej.Key]; mods[0] == rej.ModRevision {
			delete(odd, rej.Key)
		} else {
			odd[rej.Key] = [2]int64{mods[0], rej.ModRevision}
		}
	}
	return odd
}

// text tells writes of a key apart, without the metadata, which may be large or secret.
func (i *Instance) text() string {
	if i == nil {
		return "nothing"
	}
	return fmt.Sprintf("%s, ModRevision %d, CreateRevision %d, lease %x, metadata of hash %s", i.Addr, i.ModRevision, i.CreateRevision,
		int64(i.Lease), sumOf(i.Metadata)[:8])
}
