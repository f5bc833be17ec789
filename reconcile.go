// SPDX-FileCopyrightText: The Rollcall Authors
// SPDX-License-Identifier: Apache-2.0

package rollcall

import (
	"bytes"
	"errors"
	"fmt"
	"slices"

	"go.etcd.io/etcd/api/v3/mvccpb"
	clientv3 "go.etcd.io/etcd/client/v3"
)

// desired is what the program wants of a registration. With both flags false the endpoint is
// to be registered.
type desired struct {
	plain    []byte // the endpoint's value as the program gave it
	value    []byte // the same, with the mark that Drain sets
	draining bool   // Drain was called
	removed  bool   // Close was called
}

// with returns what is desired with another value, or another mark.
func (d desired) with(plain []byte, draining bool) (_ desired, err error) {
	d.plain, d.value, d.draining = plain, plain, draining
	if draining {
		d.value, err = drained(plain)
	}
	return d, err
}

// keyState is what a key was found to be.
type keyState int

const (
	keyAbsent   keyState = iota
	keyUnleased          // it has no lease: an operator has put it
	keyOurs              // it is under the Registrar's lease
	keyFormer            // it is under an earlier lease of the Registrar
	keyForeign           // it is under another lease: a successor's, or a predecessor's before the first put
)

// observed is what is known of a registration's key.
type observed struct {
	fresh bool             // the key was read since there was a reason to
	tried bool             // a mark was sent since then
	kv    *mvccpb.KeyValue // the key when it was last read or written; nil: absent or unknown
	state keyState         // of kv
	values
	unconfirmed []sentValue // writes since the last one that etcd confirmed, the latest last
	missedMarks int         // marks that found the key changed
	claimed     bool        // the registration has written its key: from then on it respects a successor
	revision    int64       // ModRevision at which the key was as desired, or a successor's
	landing     bool        // a create that was never answered may still happen
}

// sentValue is a value that was sent to replace a key's, and what the program wanted then.
type sentValue struct {
	value, wanted []byte
	replaced      int64 // ModRevision that the key must have for the write to happen; 0: no key
}

// maxUnconfirmed is how many writes of a registration without an answer are remembered.
const maxUnconfirmed = 16

// maxMissedMarks is how often a key that others keep changing is marked before it is deleted.
const maxMissedMarks = 2

// lease returns the lease of this Registrar under which the endpoint was found, 0 for none.
// An invalid value hides the endpoint from all clients.
func (o *observed) lease() clientv3.LeaseID {
	if (o.state == keyOurs || o.state == keyFormer) && isEndpoint(o.kv.Value) {
		return clientv3.LeaseID(o.kv.Lease)
	}
	return clientv3.NoLease
}

// takenOver tells from whom the key is taken by a write, nil where it is nobody's.
func (o *observed) takenOver() error {
	switch o.state {
	case keyForeign:
		return fmt.Errorf("it was under another lease, %x", o.kv.Lease)
	case keyUnleased:
		return errors.New("it was there without a lease")
	}
	return nil
}

// phase returns the phase of an endpoint that is not removed.
func (o *observed) phase() Phase {
	switch {
	case o.lease() != clientv3.NoLease:
		return phaseOf(o.kv.Value)
	case o.claimed:
		return Lost
	}
	return Registering
}

// action is the next step about a key.
type action int

const (
	actRead   action = iota // read the key
	actPut                  // write the value under the lease
	actKeep                 // nothing: the key is as desired
	actYield                // nothing: a successor has it
	actAdopt                // put what an operator has put without a lease under the lease, to delete it then
	actMark                 // mark the key as draining, so that watchers can tell that it goes on purpose
	actDelete               // delete the key, once the mark was tried
	actFence                // retire the leases under which a create may still happen
	actFinish               // nothing: none of ours is left
)

// sent reports whether the step is sent to etcd; those that are not are the last ones.
func (a action) sent() bool { return a != actKeep && a != actYield && a != actFence && a != actFinish }

// reconcile returns the next step about a key, and the phase until it is taken. Its outcome
// is observed, until a step is the last one: keep, yield, fence or finish. The first put of
// an endpoint takes the key for absent without reading it. A value as desired is put again if
// an unanswered write may still replace it, which then fails. Steps lead from phase to phase:
//
//	Registering ─── put ───> Registered <───── put (1) ─────> Draining
//	                             ^                               ^
//	                    lost (2) │ put                  lost (2) │ put
//	                             v                               v
//	                             └──────────── Lost ─────────────┘
//
//	any phase ── read, adopt, mark, delete, fence (3) ──> Closed
//
// (1) The mark is set or taken away, by Drain and Undrain or by an operator; an endpoint may
// have it from the first put on. Other edits stay, or are merged and put, in the same phase.
//
// (2) The lease has expired or was not renewed for its whole time, or a successor has the
// key, or etcd refuses to have a key again that was deleted, overwritten or put without a
// lease. A loss that can be mended at once shows in no phase.
//
// (3) After Shutdown or Close.
func reconcile(d desired, o *observed) (action, Phase) {
	phase := o.phase()
	switch {
	case !o.fresh && (o.claimed || o.kv != nil || d.removed):
		return actRead, phase
	case d.removed && (o.state == keyOurs || o.state == keyFormer):
		if !o.tried && o.missedMarks < maxMissedMarks && o.mark(d) != nil {
			return actMark, phase
		}
		return actDelete, phase
	case d.removed && o.state == keyUnleased && o.claimed:
		return actAdopt, phase
	case d.removed && o.landing:
		return actFence, phase
	case d.removed:
		return actFinish, Closed
	case o.state == keyForeign && o.claimed:
		return actYield, Lost
	case o.state == keyOurs && bytes.Equal(o.kv.Value, o.target(d.value)) && !o.mayBeReplaced():
		return actKeep, phase
	}
	return actPut, phase
}

// pending reports whether the value in etcd may differ from what the program wants.
func pending(d desired, o *observed) bool {
	return !o.claimed || len(o.unconfirmed) > 0 || !bytes.Equal(d.value, o.applied)
}

// observe records what a key was found to be, nil for absent, and reports whether an
// operator has edited it: a value that the Registrar has not written is an edit, unless it
// is older than the last write, since etcd was restored then. An invalid value is never an
// edit. The last value written again is one only where it drains: an operator who drains what the
// program drains means it to stay so when the program undrains it.
func (o *observed) observe(kv *mvccpb.KeyValue, state keyState) (edited bool) {
	news := kv.GetModRevision() != o.kv.GetModRevision() // else it was only read again
	o.fresh, o.tried, o.kv, o.state = true, false, kv, state
	if kv == nil || state == keyForeign || !isEndpoint(kv.Value) {
		return false
	}
	wanted, sent := o.sent(kv.Value)
	switch {
	case !o.claimed && !sent: // of an earlier process
		return false
	case kv.ModRevision < o.revision:
		return false
	case bytes.Equal(kv.Value, o.current):
		if edited = !sent && news && kv.ModRevision > o.revision && statusOf(kv.Value) == StatusDraining; edited {
			o.status = StatusDraining
		}
		return edited
	case sent: // and not answered
		o.applied = wanted
	default:
		edited = true
		if status := statusOf(kv.Value); status != statusOf(o.current) {
			o.status = status
		}
	}
	o.current = kv.Value
	return edited
}

// confirm records that etcd has a value with what the program wanted.
func (o *observed) confirm(kv *mvccpb.KeyValue, wanted []byte) {
	o.fresh, o.kv, o.state = true, kv, keyOurs
	o.applied, o.current, o.unconfirmed = wanted, kv.Value, nil
	o.claimed, o.revision = true, kv.ModRevision
}

// draining makes the mark of a Drain the program's latest change, also if it is desired already
// and an operator has removed it.
func (o *observed) draining(d desired) {
	if bytes.Equal(o.applied, d.value) && statusOf(o.current) != StatusDraining {
		o.applied = d.plain
	}
}

// forget records that the key's state is unknown, and the endpoint not to be relied on.
func (o *observed) forget() { o.fresh, o.kv, o.state = false, nil, keyAbsent }

// mark returns the key's value with the mark of what is removed, or nil if it is marked already or
// cannot be.
func (o *observed) mark(d desired) []byte {
	marked, err := d.value, error(nil)
	if !bytes.Equal(o.kv.Value, d.plain) {
		marked, err = drained(o.kv.Value)
	}
	if err != nil || bytes.Equal(marked, o.kv.Value) {
		return nil
	}
	return marked
}

// sending records a write before it is sent.
func (o *observed) sending(value, wanted []byte, replaced int64) {
	o.unconfirmed = append(o.unconfirmed[max(0, len(o.unconfirmed)-maxUnconfirmed+1):], sentValue{value, wanted, replaced})
}

// refused records that the last write was answered and did not happen.
func (o *observed) refused() { o.unconfirmed = o.unconfirmed[:len(o.unconfirmed)-1] }

// mayBeReplaced reports whether a write without an answer may still replace the key's value.
func (o *observed) mayBeReplaced() bool {
	return slices.ContainsFunc(o.unconfirmed, func(s sentValue) bool { return s.replaced == o.kv.ModRevision })
}

// sent returns what was wanted when a value was sent that etcd has not confirmed.
func (o *observed) sent(value []byte) (wanted []byte, ok bool) {
	for _, s := range slices.Backward(o.unconfirmed) {
		if bytes.Equal(s.value, value) {
			return s.wanted, true
		}
	}
	return nil, false
}

// Phase is the state of a registration in etcd.
type Phase int

const (
	Registering Phase = iota // not yet in etcd
	Registered               // in etcd, under a lease that is kept alive
	Lost                     // was in etcd; State.Err says why it is not, and it is being put back
	Draining                 // in etcd, marked so that clients send nothing new
	Closed                   // removed
)

func (p Phase) String() string {
	names := [...]string{"registering", "registered", "lost", "draining", "closed"}
	if p < 0 || int(p) >= len(names) {
		return fmt.Sprintf("Phase(%d)", int(p))
	}
	return names[p]
}

// phaseOf returns the phase of an endpoint whose value is in etcd.
func phaseOf(value []byte) Phase {
	if _, metadata, err := parseValue(value); err == nil && (&Instance{Metadata: metadata}).Draining() {
		return Draining
	}
	return Registered
}
