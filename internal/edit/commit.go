// SPDX-FileCopyrightText: The Rollcall Authors
// SPDX-License-Identifier: Apache-2.0

package edit

import (
	"context"
	"errors"
	"fmt"
	"maps"

	clientv3 "go.etcd.io/etcd/client/v3"

	"github.com/rollcall-grpc/rollcall/internal/plural"
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

// Progress is how far Commit came.
type Progress struct {
	Steps, Transactions int
	Revision            int64 // of the last transaction
}

// Commit takes steps in order, as many as fit in each transaction. Where one fails it returns what was done before: of a
// transaction that etcd has not answered nobody knows.
func Commit(ctx context.Context, client *clientv3.Client, steps []Step) (done Progress, err error) {
	for len(steps) > done.Steps {
		unchanged := make(map[string]int64)
		var writes []clientv3.Op
		size, taken := 0, 0
		for _, s := range steps[done.Steps:] {
			size += s.bytes()
			if len(unchanged) > 0 && (len(writes)+len(s.Writes) > maxOps || len(union(unchanged, s.Unchanged)) > maxOps || size > maxBytes) {
				break
			}
			unchanged = union(unchanged, s.Unchanged)
			writes = append(writes, s.Writes...)
			taken++
		}
		var conditions []clientv3.Cmp
		for key, revision := range unchanged {
			conditions = append(conditions, clientv3.Compare(clientv3.ModRevision(key), "=", revision))
		}
		resp, err := client.Txn(ctx).If(conditions...).Then(writes...).Commit()
		if err != nil {
			return done, fmt.Errorf("write %s: %w", plural.Count(len(writes), "key", "keys"), err)
		}
		if !resp.Succeeded {
			return done, ErrChanged
		}
		done = Progress{done.Steps + taken, done.Transactions + 1, resp.Header.Revision}
	}
	return done, nil
}

// union returns what is in either of two maps.
func union(a, b map[string]int64) map[string]int64 {
	both := maps.Clone(a)
	maps.Copy(both, b)
	return both
}
