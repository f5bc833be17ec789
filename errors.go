// SPDX-FileCopyrightText: The Rollcall Authors
// SPDX-License-Identifier: Apache-2.0

package rollcall

import (
	"errors"
	"fmt"
	"strings"

	"go.etcd.io/etcd/api/v3/v3rpc/rpctypes"
)

// Errors that callers branch on. etcd's own errors pass through unchanged, so
// that errors.Is(err, rpctypes.ErrPermissionDenied) holds wherever etcd said so.
var (
	// ErrNoAnswer is the cause while etcd has not been heard at all.
	ErrNoAnswer = errors.New("no answer from etcd")
	// ErrClosed is returned by what was used after its Close.
	ErrClosed = errors.New("closed")
	// ErrSuperseded is the cause in a Registration's State while its key stands
	// under a lease of somebody else: a successor took the name over.
	ErrSuperseded = errors.New("superseded: the key stands under another lease")
)

// errClosedClient is the error of what needs an etcd client that its owner has closed.
var errClosedClient = fmt.Errorf("the etcd client is %w", ErrClosed)

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

// typed returns etcd's own typed error where err only carries its text: a refused watch
// and a broken list stream come out of clientv3 as the text of a gRPC status.
func typed(err error) error {
	if err == nil || errors.As(err, new(rpctypes.EtcdError)) {
		return err
	}
	if _, desc, found := strings.Cut(err.Error(), " desc = "); found {
		if known := rpctypes.Error(errors.New(desc)); errors.As(known, new(rpctypes.EtcdError)) {
			return known
		}
	}
	return err
}

// answered reports whether an error is a member's own answer, hence a sign of life.
func answered(err error) bool { return errors.Is(err, rpctypes.ErrPermissionDenied) || badToken(err) }

// badToken reports whether a token was refused. A stream keeps the one that it was opened
// with, so that only of a new stream it says that this client cannot log in.
func badToken(err error) bool {
	return errors.Is(err, rpctypes.ErrInvalidAuthToken) || errors.Is(err, rpctypes.ErrAuthOldRevision) ||
		errors.Is(err, rpctypes.ErrUserEmpty)
}

// loginRefused reports whether etcd answers, and does not let this client log in.
func loginRefused(err error) bool {
	return errors.Is(err, rpctypes.ErrAuthFailed) || errors.Is(err, rpctypes.ErrAuthNotEnabled) || badToken(err)
}
