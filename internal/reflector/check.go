// SPDX-FileCopyrightText: The Rollcall Authors
// SPDX-License-Identifier: Apache-2.0

package reflector

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/rollcall-grpc/rollcall/internal/background"
	"github.com/rollcall-grpc/rollcall/internal/backoff"
)

const (
	checkMinimum = 10 * time.Second // least time between two checks that were asked for
	checkRetry   = 30 * time.Second // until a periodic check that failed is done again
	checkKeys    = 1000             // ranges of more keys are checked less often, in proportion
	eventGrace   = time.Second      // how long a difference must last: its event may be on its way
)

// checkReason is why the content is compared with etcd.
type checkReason int

const (
	onHint   checkReason = iota // somebody suspects that the content is out of date
	onProxy                     // behind a proxy only this proves that etcd is there: it must succeed
	periodic                    // everything is compared
)

// check begins a consistency check, one at a time.
func (s *session) check(r *Reflector, reason checkReason) {
	if s.checking && reason == onProxy {
		s.reason = onProxy // the one under way proves it as well
	}
	if s.checking || reason != periodic && time.Since(r.checked) < checkMinimum {
		return
	}
	if s.checks == nil {
		s.checks = make(chan error, 1)
	} else {
		s.stop() // the one before has ended
	}
	s.checking, s.reason, r.checked = true, reason, time.Now()
	s.stop = background.Start(r.group.client.Ctx(), func(ctx context.Context) { s.checks <- r.compare(ctx, reason == periodic) })
}

// checkIfDue begins the periodic check if it is due.
func (r *Reflector) checkIfDue(s *session) {
	if time.Now().Before(r.nextCheck) {
		return
	}
	if s.checking {
		r.nextCheck = time.Now().Add(checkRetry)
		return
	}
	r.nextCheck = time.Now().Add(r.checkPause())
	s.check(r, periodic)
}

// checkPause returns the time until the next periodic check.
func (r *Reflector) checkPause() time.Duration {
	keys, _ := r.store.Size()
	every := r.opts.CheckPeriod
	if every < backoff.Never {
		every = max(every, every/checkKeys*time.Duration(keys))
	}
	return backoff.Around(every)
}

// heedCheck acts on the outcome of a check.
func (r *Reflector) heedCheck(s *session, err error) error {
	switch {
	case errors.Is(err, errInconsistent):
		r.group.inconsistencies.Add(1)
		r.group.log.Warn("content differs from etcd; listing again", "prefix", r.keys.Key, "cause", err)
		r.resume = 0
		return err
	case err != nil && s.reason == onProxy:
		r.store.SetStatus(err)
	case err != nil:
		r.group.log.Debug("cannot compare with etcd", "cause", err)
		if retry := time.Now().Add(checkRetry); s.reason == periodic && retry.Before(r.nextCheck) {
			r.nextCheck = retry
		}
	default:
		if status, _ := r.monitor.Status(); status.Outage == nil && s.created {
			r.store.SetStatus(nil)
		}
	}
	return nil
}

// compare returns errInconsistent where etcd holds something else than the store. Unless
// everything is asked for at once, it asks first for the number of keys and their greatest
// ModRevision, which reveal all that a watch can miss but for rare coincidences.
func (r *Reflector) compare(ctx context.Context, everything bool) error {
	if err := backoff.Sleep(ctx, backoff.Jitter(eventGrace), nil); err != nil {
		return err
	}
	if !everything {
		if same, err := r.sameSize(ctx); same || err != nil {
			return err
		}
		if err := backoff.Sleep(ctx, eventGrace, nil); err != nil {
			return err
		}
	}
	before, err := r.differences(ctx)
	if len(before) == 0 || err != nil {
		return err
	}
	if err := backoff.Sleep(ctx, eventGrace, nil); err != nil {
		return err
	}
	after, err := r.differences(ctx)
	for key, diff := range after {
		if before[key] == diff {
			return fmt.Errorf("%w: key %q holds (%s), not (%s)", errInconsistent, key, diff.Etcd, diff.Store)
		}
	}
	return err
}

// sameSize reports whether store and etcd agree on the number of keys and their greatest
// ModRevision.
func (r *Reflector) sameSize(ctx context.Context) (bool, error) {
	count, newest, at, err := r.group.lister.newest(ctx, r.keys)
	if err != nil {
		return false, r.errorOf("compare", err)
	}
	r.monitor.ObserveResponse(at.Revision, at.Term, at.floor)
	keys, modRevision := r.store.Size()
	return int64(keys) == count && modRevision == newest, nil
}

// differences lists the range and returns the keys that hold something else in the store.
func (r *Reflector) differences(ctx context.Context) (map[string]Difference, error) {
	var list List
	at, err := r.group.lister.list(ctx, query{keys: r.keys, cause: Check, newList: func() Adder {
		list = r.store.NewList()
		return list
	}})
	if err != nil {
		return nil, r.errorOf("compare", err)
	}
	r.monitor.ObserveResponse(at.Revision, at.Term, at.floor)
	return list.Differences(), nil
}
