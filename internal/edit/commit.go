// SPDX-FileCopyrightText: The Rollcall Authors
// SPDX-License-Identifier: Apache-2.0

package edit

import (
	"context"
	"errors"
	"fmt"
	"maps"

	clientv3 "go.etcd.io/etcd/client/v3"
)

// Bounds of a transaction: a server allows 128 operations and as many comparisons, and requests of 1.5 MiB.
const (
	maxOps   = 128
	maxBytes = 1 << 20
)

// ErrChanged is returned by Commit where a key was changed meanwhile.
var ErrChanged = errors.New("changed meanwhile")

// Step is a part of a change that must not be divided: what is written if each of its keys still has a ModRevision,
// 0 for a key that is absent.
type Step struct {
	Unchanged map[string]int64
	Writes    []clientv3.Op
}

func (s Step) bytes() (n int) {
	for _, op := range s.Writes {
		n += len(op.KeyBytes()) + len(op.ValueBytes())
	}
	return n
}

// Commit takes steps in order, as many as fit in each transaction. It returns how many transactions were made and
// the revision of the last one, also where a later one fails.
func Commit(ctx context.Context, client *clientv3.Client, steps []Step) (made int, revision int64, err error) {
	for len(steps) > 0 {
		unchanged := make(map[string]int64)
		var writes []clientv3.Op
		size := 0
		for len(steps) > 0 {
			s := steps[0]
			size += s.bytes()
			if len(unchanged) > 0 && (len(writes)+len(s.Writes) > maxOps || len(union(unchanged, s.Unchanged)) > maxOps || size > maxBytes) {
				break
			}
			unchanged = union(unchanged, s.Unchanged)
			writes = append(writes, s.Writes...)
			steps = steps[1:]
		}
		var conditions []clientv3.Cmp
		for key, revision := range unchanged {
			conditions = append(conditions, clientv3.Compare(clientv3.ModRevision(key), "=", revision))
		}
		resp, err := client.Txn(ctx).If(conditions...).Then(writes...).Commit()
		if err != nil {
			return made, revision, fmt.Errorf("write %d keys: %w", len(writes), err)
		}
		if !resp.Succeeded {
			return made, revision, ErrChanged
		}
		made, revision = made+1, resp.Header.Revision
	}
	return made, revision, nil
}

// union returns what is in either of two maps.
func union(a, b map[string]int64) map[string]int64 {
	both := maps.Clone(a)
	maps.Copy(both, b)
	return both
}
