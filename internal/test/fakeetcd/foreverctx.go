// SPDX-FileCopyrightText: The Rollcall Authors
// SPDX-License-Identifier: Apache-2.0

package fakeetcd

import (
	_ "unsafe" // for go:linkname

	// Its variables are set before ours.
	_ "go.etcd.io/etcd/client/v3"
)

// neverDone is what clientv3's watcher gives as the Done channel of a stream's
// context: made when the process starts, never closed. A goroutine that waits
// on a channel from outside a synctest bubble is not durably blocked, so that
// with an open watch virtual time would stand still. A nil channel is never
// ready either and belongs to no bubble.
//
//go:linkname neverDone go.etcd.io/etcd/client/v3.valCtxCh
var neverDone chan struct{}

var _ = forgetNeverDone()

func forgetNeverDone() struct{} {
	if neverDone == nil {
		panic("fakeetcd: clientv3 has no valCtxCh any more; see how its watcher's contexts end now")
	}
	neverDone = nil
	return struct{}{}
}
