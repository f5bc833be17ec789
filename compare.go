// SPDX-FileCopyrightText: The Rollcall Authors
// SPDX-License-Identifier: Apache-2.0

package rollcall

import (
	"context"
	"fmt"
	"time"

	clientv3 "go.etcd.io/etcd/client/v3"
)

const (
	refreshEvery = 10 * time.Second // least time between two comparisons of a feed that were asked for
	auditEvery   = 5 * time.Minute  // default of DirectoryOptions.AuditEvery
	auditedAt    = 1000             // instances that are audited so often; more in proportion less often
	compareGrace = time.Second      // how long a difference must last: its event may be on its way
)

// comparison says what a comparison with etcd is for.
type comparison int

const (
	asHint  comparison = iota // somebody suspects that the snapshot is out of date
	asProof                   // behind a proxy, nothing else proves that etcd is there: it must succeed
	asAudit                   // from time to time every key is compared
)

// compare begins a comparison with etcd, one at a time.
func (w *feedWatch) compare(f *feed, kind comparison) {
	if w.comparing || kind != asAudit && time.Since(f.compared) < refreshEvery {
		return
	}
	w.comparing, w.kind, f.compared = true, kind, time.Now()
	w.wg.Go(func() { w.compared <- f.compare(w.ctx, kind == asAudit) })
}

// audit begins the periodic comparison when it is due.
func (f *feed) audit(w *feedWatch) {
	if time.Now().Before(f.audited) {
		return
	}
	f.audited = time.Now().Add(f.auditPause())
	w.compare(f, asAudit)
}

// auditPause returns the time until the next audit.
func (f *feed) auditPause() time.Duration {
	every := f.dir.auditEvery
	if every < 0 {
		return never
	}
	if snap, _ := f.latest(); snap != nil {
		every = max(every, every/auditedAt*time.Duration(len(snap.instances)))
	}
	return every*3/4 + jitter(every/2)
}

// compare returns errDrifted where etcd holds something else than the snapshot. Unless
// every key is asked for at once, it asks first for their number and greatest
// ModRevision, which find all that a watch can miss but for rare coincidences.
func (f *feed) compare(ctx context.Context, everyKey bool) error {
	if err := sleep(ctx, jitter(compareGrace), nil); err != nil {
		return err
	}
	if !everyKey {
		if same, err := f.agrees(ctx); same || err != nil {
			return err
		}
		if err := sleep(ctx, compareGrace, nil); err != nil {
			return err
		}
	}
	first, err := f.differences(ctx)
	if len(first) == 0 || err != nil {
		return err
	}
	if err := sleep(ctx, compareGrace, nil); err != nil {
		return err
	}
	again, err := f.differences(ctx)
	for key, diff := range again {
		if first[key] == diff {
			return fmt.Errorf("%w: key %q has ModRevision %d, not %d", errDrifted, key, diff.stored, diff.shown)
		}
	}
	return err
}

// agrees asks etcd, linearizably, for the number of keys and their greatest ModRevision.
func (f *feed) agrees(ctx context.Context) (bool, error) {
	before := f.dir.link.seen()
	resp, err := get(listContext(ctx, false), f.dir.client, f.span.key,
		f.span.options(append(clientv3.WithLastRev(), clientv3.WithKeysOnly())...)...)
	if err != nil {
		return false, fmt.Errorf("compare %q: %w", f.span.key, err)
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

// difference is a key's ModRevisions, 0 for none.
type difference struct{ shown, stored int64 }

// differences asks etcd, linearizably, for every key and returns those that differ.
func (f *feed) differences(ctx context.Context) (map[string]difference, error) {
	before := f.dir.link.seen()
	got, err := f.dir.lister.list(ctx, f.span, false, nil, clientv3.WithKeysOnly())
	if err != nil {
		return nil, fmt.Errorf("compare %q: %w", f.span.key, err)
	}
	f.dir.link.sawAnswer(got.revision, got.term, before)
	snap, _ := f.latest()
	diffs := make(map[string]difference)
	for _, inst := range snap.instances {
		diffs[inst.Key] = difference{shown: inst.ModRevision}
	}
	for _, rej := range snap.rejected {
		diffs[rej.Key] = difference{shown: rej.ModRevision}
	}
	for _, kv := range got.kvs {
		diff := diffs[string(kv.Key)]
		if diff.stored = kv.ModRevision; diff.shown == diff.stored {
			delete(diffs, string(kv.Key))
		} else {
			diffs[string(kv.Key)] = diff
		}
	}
	return diffs, nil
}
