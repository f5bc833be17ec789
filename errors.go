// SPDX-FileCopyrightText: The Rollcall Authors
// SPDX-License-Identifier: Apache-2.0

package rollcall

import (
	"errors"
	"fmt"

	"github.com/rollcall-grpc/rollcall/internal/etcdkv"
)

// Errors that callers branch on. Errors of etcd are wrapped, so that for example
// errors.Is(err, rpctypes.ErrPermissionDenied) works.
var (
	// ErrNoAnswer is the cause while etcd has not answered at all.
	ErrNoAnswer = etcdkv.ErrNoAnswer
	// ErrClosed is returned by methods of a value that was closed.
	ErrClosed = etcdkv.ErrClosed
	// ErrSuperseded is the cause in a Registration's State while its key is under the lease
	// of another process, a successor.
	ErrSuperseded = errors.New("superseded: the key is under another lease")
)

// InputError reports an argument that is invalid, whatever the state of etcd.
type InputError struct {
	Field  string // "address", "service", "metadata", ...
	Value  string // at most 80 bytes of it
	Reason string // why it is invalid, and what would be valid
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

// errDirectoryClosed is the error of what needs a Directory that its owner has closed.
var errDirectoryClosed = fmt.Errorf("the Directory is %w", ErrClosed)
