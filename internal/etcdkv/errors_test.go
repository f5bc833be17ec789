// SPDX-FileCopyrightText: The Rollcall Authors
// SPDX-License-Identifier: Apache-2.0

package etcdkv

import (
	"context"
	"errors"
	"fmt"
	"testing"

	"go.etcd.io/etcd/api/v3/v3rpc/rpctypes"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
)

var errOther = errors.New("other")

func TestTyped(t *testing.T) {
	for _, row := range []struct {
		name string
		err  error
		want error
	}{
		{"nil", nil, nil},
		{"typed", rpctypes.ErrNoLeader, rpctypes.ErrNoLeader},
		{"typed, wrapped", fmt.Errorf("list: %w", rpctypes.ErrCompacted), rpctypes.ErrCompacted},
		{"status", rpctypes.ErrGRPCPermissionDenied, rpctypes.ErrPermissionDenied},
		{"text of a status", errors.New(rpctypes.ErrGRPCCompacted.Error()), rpctypes.ErrCompacted},
		{"text of a status that etcd does not know", errors.New("rpc error: code = Internal desc = other"), nil},
		{"other", errOther, errOther},
	} {
		got := Typed(row.err)
		if row.want == nil {
			row.want = row.err
		}
		if !errors.Is(got, row.want) {
			t.Errorf("%s: got %v, want %v", row.name, got, row.want)
		}
	}
}

// TestPredicates lists every error that a predicate must hold of; of all others in the table
// it must not.
func TestPredicates(t *testing.T) {
	table := map[string]error{
		"nil":                 nil,
		"other":               errOther,
		"permission denied":   rpctypes.ErrPermissionDenied,
		"invalid token":       rpctypes.ErrInvalidAuthToken,
		"old revision":        rpctypes.ErrAuthOldRevision,
		"user empty":          rpctypes.ErrUserEmpty,
		"auth failed":         rpctypes.ErrAuthFailed,
		"auth not enabled":    rpctypes.ErrAuthNotEnabled,
		"no leader":           rpctypes.ErrNoLeader,
		"etcd timed out":      rpctypes.ErrTimeout,
		"compacted":           rpctypes.ErrCompacted,
		"no space":            rpctypes.ErrNoSpace,
		"too many requests":   rpctypes.ErrTooManyRequests,
		"lease not found":     rpctypes.ErrLeaseNotFound,
		"unavailable status":  status.Error(codes.Unavailable, "refused"),
		"internal status":     status.Error(codes.Internal, "broken"),
		"deadline":            context.DeadlineExceeded,
		"cancelled":           context.Canceled,
		"no answer":           ErrNoAnswer,
		"client closed":       ErrClientClosed,
		"too many operations": rpctypes.ErrTooManyOps,
		"too large":           status.Error(codes.ResourceExhausted, "received message larger than max"),
	}
	for _, row := range []struct {
		name  string
		holds func(error) bool
		want  []string
	}{
		{"IsAnswer", IsAnswer, []string{"permission denied", "invalid token", "old revision", "user empty"}},
		{"TokenRefused", TokenRefused, []string{"invalid token", "old revision", "user empty"}},
		{"LoginRefused", LoginRefused, []string{"invalid token", "old revision", "user empty", "auth failed", "auth not enabled"}},
		{"AccessDenied", AccessDenied, []string{"permission denied", "user empty", "auth failed"}},
		{"IsTemporary", IsTemporary, []string{"too many requests", "no leader", "etcd timed out", "unavailable status", "deadline", "no answer"}},
		{"ConcernsRange", ConcernsRange, []string{"permission denied", "compacted"}},
		{"MayPassAlone", MayPassAlone, []string{"permission denied", "no leader", "etcd timed out", "compacted", "no space", "too many requests", "unavailable status", "too many operations", "too large"}},
		{"OutcomeUnknown", OutcomeUnknown, []string{"too large", "other", "no leader", "etcd timed out", "unavailable status", "internal status",
			"deadline", "cancelled", "no answer", "client closed"}},
	} {
		want := make(map[string]bool)
		for _, name := range row.want {
			want[name] = true
		}
		for name, err := range table {
			if got := row.holds(err); got != want[name] {
				t.Errorf("%s(%s): got %t", row.name, name, got)
			}
			if err == nil {
				continue
			}
			if got := row.holds(fmt.Errorf("wrapped: %w", err)); got != want[name] {
				t.Errorf("%s(%s), wrapped: got %t", row.name, name, got)
			}
		}
	}
	if !errors.Is(ErrClientClosed, ErrClosed) {
		t.Error("ErrClientClosed is not an ErrClosed")
	}
}
