// SPDX-FileCopyrightText: The Rollcall Authors
// SPDX-License-Identifier: Apache-2.0

package rollcall

import (
	"errors"
	"fmt"

	"github.com/rollcall-grpc/rollcall/internal/etcdkv"
)

// Errors that callers branch on. etcd's own errors pass through unchanged, so
// that errors.Is(err, rpctypes.ErrPermissionDenied) holds wherever etcd said so.
var (
	// ErrNoAnswer is the cause while etcd has not been heard at all.
	ErrNoAnswer = etcdkv.ErrNoAnswer
	// ErrClosed is returned by what was used after its Close.
	ErrClosed = etcdkv.ErrClosed
	// ErrSuperseded is the cause in a Registration's State while its key stands
	// under a lease of somebody else: a successor took the name over.
	ErrSuperseded = errors.New("superseded: the key stands under another lease")
)

// InputError reports a value that can never work, whatever etcd holds.
type InputError struct {
	Field  string // what was given: "address", "service", "metadata", ...
	Value  string // the value, perhaps shortened
	Reason string // why it is refused and what would be taken
}

func (e *InputError) Error() string {
	return fmt.Sprintf("invalid %s %q: %s", e.Field, e.Value, e.Reason)
}

func inputError(field, value, format string, args ...any) error {
	const most = 80
	if len(value) > most {
		value = value[:most] + "..."
	}
	return &InputError{Field: field, Value: value, Reason: fmt.Sprintf(format, args...)}
}
