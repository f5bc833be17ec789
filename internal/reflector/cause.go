// SPDX-FileCopyrightText: The Rollcall Authors
// SPDX-License-Identifier: Apache-2.0

package reflector

import (
	"errors"
	"sync/atomic"

	"go.etcd.io/etcd/api/v3/v3rpc/rpctypes"

	"github.com/rollcall-grpc/rollcall/internal/etcdkv"
)

// Cause is why a range was listed, or why a watch ended.
type Cause int

const (
	Start          Cause = iota // of a list: nothing was known of the range
	Request                     // of a list: somebody asked for it once
	Check                       // of a list: a consistency check
	Compacted                   // etcd does not have the events any more
	NewEpoch                    // etcd has lost its data, or was restored
	Inconsistent                // a check found a difference
	Refused                     // the range may not be read
	TokenRefused                // of a watch: its stream keeps the auth token that it was opened with
	StreamReplaced              // of a watch: its stream was silent, or another watch met TokenRefused
	Disconnected                // of a watch: everything else
	numCauses
)

func (c Cause) String() string {
	return [numCauses]string{"start", "request", "check", "compacted", "new_epoch", "inconsistent", "refused", "token_refused", "stream_replaced", "disconnected"}[c]
}

// causeOf returns why a watch ended with err.
func causeOf(err error) Cause {
	switch {
	case errors.Is(err, rpctypes.ErrCompacted):
		return Compacted
	case errors.Is(err, errNewEpoch):
		return NewEpoch
	case errors.Is(err, errInconsistent):
		return Inconsistent
	case errors.Is(err, rpctypes.ErrPermissionDenied):
		return Refused
	case etcdkv.TokenRefused(err):
		return TokenRefused
	case errors.Is(err, etcdkv.ErrStreamReplaced):
		return StreamReplaced
	}
	return Disconnected
}

// Causes count by cause.
type Causes [numCauses]uint64

type causeCounter [numCauses]atomic.Uint64

func (c *causeCounter) add(cause Cause) { c[cause].Add(1) }

func (c *causeCounter) load() (all Causes, total uint64) {
	for i := range c {
		all[i] = c[i].Load()
		total += all[i]
	}
	return all, total
}
