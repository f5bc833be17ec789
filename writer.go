// SPDX-FileCopyrightText: The Rollcall Authors
// SPDX-License-Identifier: Apache-2.0

package rollcall

import (
	"context"
	"errors"
	"slices"
	"sync"
	"time"

	"go.etcd.io/etcd/api/v3/v3rpc/rpctypes"

	"github.com/rollcall-grpc/rollcall/internal/backoff"
	"github.com/rollcall-grpc/rollcall/internal/etcdkv"
)

const (
	maxUnderWay = 8  // transactions under way at once
	maxSteps    = 32 // of a batch in a round, lest keys that others go on changing keep the rest waiting
	parts       = 4  // into which a refused transaction is divided: halves would be sent twice as often as there are keys

	firstTry      = 1500 * time.Millisecond // what a write may take at least, where another one in its place does no harm
	refusedPeriod = 250 * time.Millisecond  // on average, between tries of all registrations that etcd refuses together
	refusedAtMost = 5 * time.Minute         // between two tries of one of them
)

// round reconciles the registrations that are dirty at one time.
type round struct {
	r       *Registrar
	ctx     context.Context // ends with the maintenance of the lease
	slots   chan struct{}   // one for each transaction under way
	batches sync.WaitGroup

	// Guarded by r.mu.
	err     error           // which concerns all, a lost lease before any other
	refused []*Registration // by etcd, each by itself
	took    time.Duration   // the longest of the transactions that were answered
}

// reconcileAll reconciles every dirty registration, those of a batch by common transactions. It
// returns when those that etcd refuses are due again, and an error that concerns all of them, a
// lost lease before any other. It stops at such an error, so that a lost lease is soon noticed.
func (r *Registrar) reconcileAll(ctx context.Context) (due time.Time, err error) {
	round := &round{r: r, ctx: ctx, slots: make(chan struct{}, maxUnderWay)}
	r.mu.Lock()
	dirty, size := r.takeDirtyLocked(), r.batch
	r.mu.Unlock()
	for batch := range slices.Chunk(dirty, size) {
		round.start(batch, maxSteps)
	}
	round.batches.Wait()
	r.mu.Lock()
	defer r.mu.Unlock()
	round.postponeLocked()
	round.adaptLocked()
	return r.dueLocked(), round.err
}

// adaptLocked has writes wait for twice as long as those that were answered took, and for longer after a failure: a
// member that hangs is soon given up for another one, and an etcd that is slow is waited for.
func (o *round) adaptLocked() {
	bound := &o.r.writeBound
	if o.err != nil {
		*bound *= 2
	} else if o.took > 0 {
		*bound = 2 * o.took
	}
	*bound = min(max(*bound, firstTry), etcdkv.CallTimeout)
}

// postponeLocked spaces the next tries of what etcd has refused. The more there are the longer each waits, so that
// all together ask no more often. When one of them gets through, the others of the same cause are due.
func (o *round) postponeLocked() {
	refused := 0
	for _, g := range o.r.dirty {
		if !g.notBefore.IsZero() {
			refused++
		}
	}
	average := time.Duration(refused) * refusedPeriod
	for _, g := range o.refused {
		if later := time.Now().Add(backoff.Jitter(min(2*average, refusedAtMost))); later.After(g.notBefore) {
			g.notBefore = later
		}
	}
}

// takeDirtyLocked returns the registrations that must be looked at now.
func (r *Registrar) takeDirtyLocked() (dirty []*Registration) {
	now := time.Now()
	r.dirty = slices.DeleteFunc(r.dirty, func(g *Registration) bool {
		if now.Before(g.notBefore) && g.state.Phase != Closed {
			return false
		}
		g.dirty, g.observed.fresh, g.notBefore = false, false, time.Time{}
		if g.state.Phase != Closed {
			dirty = append(dirty, g)
		}
		return true
	})
	return dirty
}

// dueLocked returns when registrations that etcd refuses are due: at once if the cause of their
// refusal has gone, as a write of another one has shown.
func (r *Registrar) dueLocked() time.Time {
	due := time.Now().Add(backoff.Never)
	for _, g := range r.dirty {
		if g.state.Err != nil && len(r.cleared) > 0 && r.cleared[causeOf(g.state.Err)] {
			g.notBefore, due = time.Time{}, time.Now()
		}
		if !g.notBefore.IsZero() {
			due = backoff.Earlier(due, g.notBefore)
		}
	}
	clear(r.cleared)
	return due
}

// start has a batch reconciled, in so many steps at most, by a goroutine of its own.
func (o *round) start(batch []*Registration, left int) {
	o.batches.Go(func() {
		for ; left > 0 && len(batch) > 0; left-- {
			batch = o.step(batch, left-1)
		}
		if len(batch) > 0 {
			o.r.mu.Lock()
			defer o.r.mu.Unlock()
			o.r.againLocked(batch)
			backoff.Wake(o.r.wake)
		}
	})
}

// againLocked has registrations looked at again.
func (r *Registrar) againLocked(batch []*Registration) {
	for _, g := range batch {
		g.dirtyLocked()
	}
}

// step takes the next step of registrations, as many as one transaction may have, and returns
// those that need another one. Those whose keys were found changed take it apart, lest they keep the
// rest waiting.
func (o *round) step(batch []*Registration, left int) (rest []*Registration) {
	r := o.r
	o.slots <- struct{}{}
	defer func() { <-o.slots }()
	r.mu.Lock()
	if o.err != nil {
		r.againLocked(batch)
		r.mu.Unlock()
		return nil
	}
	steps, rest := r.nextLocked(batch)
	r.mu.Unlock()
	if len(steps) == 0 {
		return rest
	}
	ctx, cancel := context.WithTimeout(o.ctx, r.boundOf(steps))
	defer cancel()
	began := time.Now()
	answers, err := r.send(ctx, steps)
	r.mu.Lock()
	defer r.mu.Unlock()
	if err == nil {
		o.took = max(o.took, time.Since(began))
		var changed []*Registration
		for i, s := range steps {
			switch a := answers[i]; {
			case r.doneLocked(s, a):
			case a.changed(s.kv):
				changed = append(changed, s.g)
			default:
				rest = append(rest, s.g)
			}
		}
		if len(changed) > 0 {
			o.start(changed, left)
		}
		return rest
	}
	for _, s := range steps {
		r.unansweredLocked(s, err)
	}
	if divided := r.divideLocked(steps, err); len(divided) > 1 {
		for _, part := range divided {
			o.start(part, maxSteps)
		}
		return rest
	}
	for _, s := range steps {
		if s.act == actMark && !concernsAll(err) { // a full etcd refuses the mark and takes the deletion
			s.g.observed.tried = true
			rest = append(rest, s.g)
		} else {
			o.failedLocked(s, err)
		}
	}
	return rest
}

// boundOf returns how long steps may take in one transaction.
func (r *Registrar) boundOf(steps []step) time.Duration {
	if slices.ContainsFunc(steps, func(s step) bool { return s.create() }) {
		return etcdkv.CallTimeout // a late create would have to be fenced
	}
	return r.writeBound
}

// divideLocked returns the registrations of a failed transaction in parts, of which some may get through; one part
// where none would.
func (r *Registrar) divideLocked(steps []step, err error) [][]*Registration {
	all := make([]*Registration, len(steps))
	var puts, others []*Registration
	for i, s := range steps {
		if all[i] = s.g; s.act == actRead || s.act == actDelete {
			others = append(others, s.g)
		} else {
			puts = append(puts, s.g)
		}
	}
	size := len(all)
	switch {
	case len(all) == 1, concernsAll(err):
	case errors.Is(err, rpctypes.ErrNoSpace): // which refuses puts alone
		return slices.DeleteFunc([][]*Registration{others, puts}, func(part []*Registration) bool { return len(part) == 0 })
	case errors.Is(err, rpctypes.ErrTooManyOps):
		size = r.lowerBatchLocked(len(all))
	default:
		size = (len(all) + parts - 1) / parts
	}
	return slices.Collect(slices.Chunk(all, size))
}

// lowerBatchLocked takes in that a server allows fewer operations than were sent, and returns how
// many are sent from now on.
func (r *Registrar) lowerBatchLocked(sent int) int {
	r.batch = max(1, min(r.batch, sent/2))
	return r.batch
}

// failedLocked records that a registration's step failed.
func (o *round) failedLocked(s step, err error) {
	err = s.explain(err)
	s.g.dirtyLocked()
	if !concernsAll(err) {
		s.g.notBefore = time.Now().Add(s.g.retry.Next())
		o.refused = append(o.refused, s.g)
	} else if !errors.Is(o.err, rpctypes.ErrLeaseNotFound) {
		o.err = err
	}
	if o.ctx.Err() == nil && !errors.Is(err, rpctypes.ErrLeaseNotFound) { // else all are interrupted
		o.r.failedLocked(s.g, o.r.explain(err))
	}
}
