// SPDX-FileCopyrightText: The Rollcall Authors
// SPDX-License-Identifier: Apache-2.0

package edit

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"go.etcd.io/etcd/api/v3/v3rpc/rpctypes"
	clientv3 "go.etcd.io/etcd/client/v3"

	"github.com/rollcall-grpc/rollcall"
	"github.com/rollcall-grpc/rollcall/internal/backoff"
	"github.com/rollcall-grpc/rollcall/internal/plural"
)

const (
	// MaxKeys bounds the keys changed in one transaction: etcd allows 128 comparisons, and a Check adds one at least.
	MaxKeys = maxOps - 1

	maxConflicts  = 20                    // so often in a row others may be quicker
	conflictPause = 10 * time.Millisecond // at most after the first, twice that after the second, and so on
)

// Written is a key that was written to.
type Written struct {
	Key      // as it was before
	Op       clientv3.Op
	Revision int64
}

// Change is what was written to keys of a service.
type Change struct {
	Before       *rollcall.Snapshot // of the last transaction
	Written      []Written          // sorted by key
	Transactions int
	Revision     int64 // of the last transaction
}

// Write returns what is to be written to a key, also where it is so already: whoever writes last is who meant it, to a
// server that keeps the key, too.
type Write func(Key) (clientv3.Op, error)

// PartialError is returned for a change that failed after a part of it was made.
type PartialError struct {
	Keys int // that were changed
	Err  error
}

func (e *PartialError) Error() string {
	return fmt.Sprintf("%v; before that, %s", e.Err, plural.Count(e.Keys, "key was changed", "keys were changed"))
}

func (e *PartialError) Unwrap() error { return e.Err }

// Check returns why keys of a service must not be written to; nil: they may, as long as the instances
// that the Check relies on are not written to either.
type Check func(snap *rollcall.Snapshot, keys []Key) (relied []*rollcall.Instance, err error)

// Apply writes to all keys that are found: to up to MaxKeys, of 1 MiB together, in one transaction, so to all or to none;
// more take several, as do fewer where the check relies on many instances. If a key was changed meanwhile, or one that the check relies on, what is not written yet is found
// anew. The nil check refuses nothing. After an error the Change has what was written before; if that is anything, the
// error is a *PartialError.
func Apply(ctx context.Context, dir *rollcall.Directory, service string, find Finder, check Check, write Write) (c Change, err error) {
	defer func() {
		if n := len(c.Written); n > 0 && err != nil {
			err = &PartialError{n, err}
		}
	}()
	most := MaxKeys
	var left map[string]bool // of what was found first; nil while nothing is written
	for conflicts := 0; ; conflicts++ {
		if conflicts > maxConflicts {
			return c, fmt.Errorf("service %q: keys were %w, again and again", service, ErrChanged)
		}
		if err := backoff.Sleep(ctx, backoff.Jitter(time.Duration(conflicts)*conflictPause), nil); err != nil {
			return c, err
		}
		if c.Before, err = dir.List(ctx, service); err != nil {
			return c, fmt.Errorf("list service %q: %w", service, err)
		}
		keys, err := find(c.Before)
		if left != nil {
			keys, err = slices.DeleteFunc(keys, func(k Key) bool { return !left[k.Key] }), nil
		}
		if err != nil {
			return c, err
		}
		var relied []*rollcall.Instance
		if check != nil {
			if relied, err = check(c.Before, keys); err != nil {
				return c, err
			}
		}
		room := maxOps - len(relied)
		if room < 1 {
			return c, fmt.Errorf("service %q: one endpoint of each of %d services is to stay as it is, and one transaction can see to %d; "+
				"change fewer services at a time", service, len(relied), maxOps-1)
		}
		for len(keys) > 0 {
			n, err := c.transact(ctx, dir.Client(), keys[:min(len(keys), most, room)], relied, write)
			keys = keys[n:]
			if errors.Is(err, rpctypes.ErrTooManyOps) && most > 1 {
				most /= 2
			} else if errors.Is(err, ErrChanged) {
				break
			} else if err != nil {
				return c, err
			}
			conflicts = 0
		}
		if len(keys) == 0 {
			return c, nil
		}
		if len(c.Written) > 0 {
			left = make(map[string]bool, len(keys))
			for _, k := range keys {
				left[k.Key] = true
			}
		}
	}
}

// transact writes to as many of the first keys as one transaction takes, and returns how many. It is ErrChanged if one of
// them, or of the instances that are relied on, is not as it was listed.
func (c *Change) transact(ctx context.Context, client *clientv3.Client, keys []Key, relied []*rollcall.Instance, write Write) (n int, err error) {
	if err := readValues(ctx, client, keys); err != nil {
		return 0, fmt.Errorf("read %s of service %q: %w", plural.Count(len(keys), "key", "keys"), c.Before.Service(), err)
	}
	var conditions []clientv3.Cmp
	unchanged := func(key string, modRevision int64) {
		conditions = append(conditions, clientv3.Compare(clientv3.ModRevision(key), "=", modRevision))
	}
	for _, inst := range relied {
		unchanged(inst.Key, inst.ModRevision)
	}
	var ops []clientv3.Op
	size := 0
	for _, k := range keys {
		op, err := write(k)
		if err != nil {
			return 0, err
		}
		if size += len(op.KeyBytes()) + len(op.ValueBytes()); len(ops) > 0 && size > maxBytes {
			break
		}
		ops = append(ops, op)
		unchanged(k.Key, k.ModRevision)
	}
	resp, err := client.Txn(ctx).If(conditions...).Then(ops...).Commit()
	switch {
	case err != nil && refused(err):
		return 0, fmt.Errorf("write to %s of service %q: %w", plural.Count(len(ops), "key", "keys"), c.Before.Service(), err)
	case err != nil:
		return 0, fmt.Errorf("write to %s of service %q: %w; etcd may have done it nevertheless", plural.Count(len(ops), "key", "keys"), c.Before.Service(), err)
	case !resp.Succeeded:
		return 0, ErrChanged
	}
	c.Transactions++
	c.Revision = resp.Header.Revision
	for i, op := range ops {
		c.Written = append(c.Written, Written{keys[i], op, c.Revision})
	}
	return len(ops), nil
}

// readValues reads the stored values. It returns ErrChanged if a key was changed since it was listed.
func readValues(ctx context.Context, client *clientv3.Client, keys []Key) error {
	var gets []clientv3.Op
	for _, k := range keys {
		gets = append(gets, clientv3.OpGet(k.Key))
	}
	resp, err := client.Txn(ctx).Then(gets...).Commit()
	if err != nil {
		return err
	}
	for i := range keys {
		kvs := resp.Responses[i].GetResponseRange().Kvs
		if len(kvs) == 0 || kvs[0].ModRevision != keys[i].ModRevision {
			return ErrChanged
		}
		keys[i].Value = kvs[0].Value
	}
	return nil
}
