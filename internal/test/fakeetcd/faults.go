// SPDX-FileCopyrightText: The Rollcall Authors
// SPDX-License-Identifier: Apache-2.0

package fakeetcd

import (
	"context"

	"go.etcd.io/etcd/api/v3/v3rpc/rpctypes"
)

// Cut cuts the connection: streams break, and until Mend calls wait for their deadlines and
// watches receive nothing. A frozen stream stays as it is.
func (c *Conn) Cut() {
	c.store.mu.Lock()
	defer c.store.mu.Unlock()
	if c.cut == nil {
		c.cut = make(chan struct{})
	}
	c.failStreamsLocked(errBroken, func(p *pipe) bool { return !p.isFrozen() })
}

// Mend undoes Cut. Watches of clientv3 resume without their consumers noticing.
func (c *Conn) Mend() {
	c.store.mu.Lock()
	defer c.store.mu.Unlock()
	if c.cut != nil {
		close(c.cut)
		c.cut = nil
	}
}

// Freeze stops everything on the streams that are open now, as on a half-open connection: neither
// side notices. Calls and new streams work, as if by another member; use Cut as well for a client
// of a single member.
func (c *Conn) Freeze() { c.setFrozen(true) }

// Thaw undoes Freeze: what was sent meanwhile arrives.
func (c *Conn) Thaw() { c.setFrozen(false) }

func (c *Conn) setFrozen(frozen bool) {
	c.store.mu.Lock()
	defer c.store.mu.Unlock()
	for p := range c.streams {
		p.setFrozen(frozen)
	}
}

// LoseLeader partitions this client's member from all others. It answers serializable reads from
// its data, fails what requires a leader, ends such streams at once (etcd: after three election
// timeouts), and gives up other calls after 7 s. Its watches, and keepalives that require no
// leader, receive nothing.
func (c *Conn) LoseLeader() {
	c.store.mu.Lock()
	defer c.store.mu.Unlock()
	if c.member == nil {
		c.member = c.store.state.clone()
	}
	c.failStreamsLocked(rpctypes.ErrGRPCNoLeader, func(p *pipe) bool { return p.needLeader })
}

// FindLeader ends LoseLeader: the member catches up.
func (c *Conn) FindLeader() {
	c.store.mu.Lock()
	defer c.store.mu.Unlock()
	c.member = nil
	c.catchUpLocked()
}

// Lag makes serializable reads answer as of n revisions ago, but not from before
// the last compaction.
func (c *Conn) Lag(n int64) {
	c.store.mu.Lock()
	defer c.store.mu.Unlock()
	c.lag = n
}

// SetHook sets a function that runs before each call; the call fails with its error. The hook may
// use the Store and the Conn, and wait. An error for a Watch cancels that watch, one for a
// KeepAlive ends the stream, and one for a Progress suppresses the answer. FailNext and Fail are
// ready-made hooks.
func (c *Conn) SetHook(hook func(ctx context.Context, call Call) error) {
	c.store.mu.Lock()
	defer c.store.mu.Unlock()
	c.hook = hook
}

// FailNext makes the next calls of the method fail, one for each error; nil lets a call succeed.
// Errors may be rpctypes.ErrX, gRPC statuses or those of contexts.
func (c *Conn) FailNext(m Method, errs ...error) {
	c.store.mu.Lock()
	defer c.store.mu.Unlock()
	c.once[m] = append(c.once[m], errs...)
}

// Fail makes all calls of the method fail until it is called with nil.
func (c *Conn) Fail(m Method, err error) {
	c.store.mu.Lock()
	defer c.store.mu.Unlock()
	c.always[m] = err
}

// LoseAnswers applies the next n puts, transactions that write and grants, but drops the answers, so that the
// client reaches its deadline.
func (c *Conn) LoseAnswers(n int) {
	c.store.mu.Lock()
	defer c.store.mu.Unlock()
	c.lost = n
}

// DelayWrites delays the next n puts, transactions that write and grants, as a frozen connection does: the
// client reaches its deadline, but Land applies them later.
func (c *Conn) DelayWrites(n int) {
	c.store.mu.Lock()
	defer c.store.mu.Unlock()
	c.delayed = n
}

// Land ends DelayWrites and applies the delayed writes.
func (c *Conn) Land() {
	c.store.mu.Lock()
	defer c.store.mu.Unlock()
	for _, apply := range c.late {
		apply()
	}
	c.delayed, c.late = 0, nil
}

// StreamRanges makes GetStream answer in chunks of the given number of keys. With 0, the default, it
// answers Unimplemented, as servers before 3.7 do.
func (c *Conn) StreamRanges(chunk int) {
	c.store.mu.Lock()
	defer c.store.mu.Unlock()
	c.chunk = chunk
}

// TearRangeStream ends the next GetStream with the error, after the given number of chunks. With nil
// it stalls there.
func (c *Conn) TearRangeStream(after int, err error) {
	c.store.mu.Lock()
	defer c.store.mu.Unlock()
	c.torn = &tear{after: after, err: asStatus(err)}
}

// BreakStreams breaks all streams, as a restart of a member does. clientv3 opens them again without
// the consumers of watches noticing.
func (c *Conn) BreakStreams() {
	c.store.mu.Lock()
	defer c.store.mu.Unlock()
	c.failStreamsLocked(errBroken, anyStream)
}

// CloseWatches cancels all watches at the server, without a reason: clientv3 closes their channels
// without an error.
func (c *Conn) CloseWatches() {
	c.store.mu.Lock()
	defer c.store.mu.Unlock()
	for ws := range c.watches {
		ws.cancelAllLocked()
	}
}

// CancelWatches ends all watch streams with the error. clientv3 passes it on in
// a last response with Canceled set, if the error is final to it: anything but
// Unavailable and Internal, and ErrNoLeader; else it resumes.
func (c *Conn) CancelWatches(err error) {
	c.store.mu.Lock()
	defer c.store.mu.Unlock()
	watching := make(map[*pipe]bool)
	for ws := range c.watches {
		watching[ws.pipe] = true
	}
	c.failStreamsLocked(asStatus(err), func(p *pipe) bool { return watching[p] })
}

func anyStream(*pipe) bool { return true }

// failStreamsLocked ends the streams that match.
func (c *Conn) failStreamsLocked(err error, match func(*pipe) bool) {
	for ws := range c.watches {
		if match(ws.pipe) {
			delete(c.watches, ws)
		}
	}
	for p := range c.streams {
		if match(p) {
			delete(c.streams, p)
			p.fail(err)
		}
	}
}
