// SPDX-FileCopyrightText: The Rollcall Authors
// SPDX-License-Identifier: Apache-2.0

package endpoints

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/rollcall-grpc/rollcall"
)

func (m *manager) NewWatchChannel(ctx context.Context) (WatchChannel, error) {
	sub, err := m.directory.SubscribePrefix(m.target + "/")
	if err != nil {
		return nil, fmt.Errorf("endpoints: watch %q: %w", m.target, err)
	}
	// End the watch when the client is closed, so that a range over the channel ends.
	ctx, cancel := context.WithCancelCause(ctx)
	unhook := context.AfterFunc(m.client.Ctx(), func() { cancel(rollcall.ErrClosed) })
	end := func() {
		unhook()
		cancel(nil)
		sub.Close()
	}
	first, err := m.first(ctx, sub)
	if err != nil {
		err = withCause(ctx, err)
		end()
		return nil, fmt.Errorf("endpoints: watch %q: %w", m.target, err)
	}
	updates := make(chan []*Update, 1)
	go func() {
		defer close(updates)
		defer end()
		send(ctx, sub, first, updates)
	}()
	return updates, nil
}

// ownWrites bounds the wait for what the manager has written itself, which the watch brings a moment later.
const ownWrites = time.Second

// first returns a subscription's first snapshot that has what the manager has written, unless that does not come in
// time: etcd may have lost its data since.
func (m *manager) first(ctx context.Context, sub *rollcall.Subscription) (*rollcall.Snapshot, error) {
	snap, err := sub.First(ctx)
	if err != nil {
		return nil, err
	}
	waiting, cancel := context.WithTimeout(ctx, ownWrites)
	defer cancel()
	for written := m.written.Load(); snap.Revision() < written && snap.Staleness() == nil; {
		next, err := sub.Next(waiting)
		if err != nil {
			if ctx.Err() == nil { // it does not come, nor for the next watch
				m.written.CompareAndSwap(written, snap.Revision())
			}
			break
		}
		snap = next
	}
	return snap, ctx.Err()
}

// withCause adds the cause of the context's end, if it has ended.
func withCause(ctx context.Context, err error) error {
	if cause := context.Cause(ctx); cause != nil && !errors.Is(err, cause) {
		return fmt.Errorf("%w: %w", cause, err)
	}
	return err
}

// send sends the differences between snapshots until ctx ends.
func send(ctx context.Context, sub *rollcall.Subscription, snap *rollcall.Snapshot, updates chan<- []*Update) {
	var sent *rollcall.Snapshot
	for {
		if delta := deltas(snap.Diff(sent)); len(delta) > 0 {
			select {
			case updates <- delta:
			case <-ctx.Done():
				return
			}
		}
		sent = snap
		var err error
		if snap, err = sub.Next(ctx); err != nil {
			return
		}
	}
}

// deltas converts changes to updates, sorted by key.
func deltas(changes []rollcall.Change) []*Update {
	updates := make([]*Update, len(changes))
	for i, c := range changes {
		if c.New == nil {
			updates[i] = &Update{Op: Delete, Key: c.Key}
			continue
		}
		updates[i] = &Update{Op: Add, Key: c.Key, Endpoint: endpointOf(c.New)}
	}
	return updates
}
