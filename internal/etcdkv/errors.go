// SPDX-FileCopyrightText: The Rollcall Authors
// SPDX-License-Identifier: Apache-2.0

package etcdkv

import (
	"context"
	"errors"
	"fmt"
	"strings"

	"go.etcd.io/etcd/api/v3/v3rpc/rpctypes"
	clientv3 "go.etcd.io/etcd/client/v3"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
)

// etcd's own errors pass through unchanged, so that errors.Is(err,
// rpctypes.ErrPermissionDenied) holds wherever etcd said so.
var (
	// ErrNoAnswer is the cause while etcd is connected, or connecting, and does not answer.
	ErrNoAnswer = errors.New("no answer from etcd")
	// ErrClosed is returned by what is used after its Close.
	ErrClosed = errors.New("closed")
	// ErrClientClosed is the error of what needs an etcd client that its owner has closed.
	ErrClientClosed = fmt.Errorf("the etcd client is %w", ErrClosed)
)

// NoAnswer returns an ErrNoAnswer that names the client's endpoints.
func NoAnswer(client *clientv3.Client) error {
	return fmt.Errorf("%w at %s", ErrNoAnswer, strings.Join(client.Endpoints(), ", "))
}

// Typed returns etcd's own typed error where err only carries its text: a refused watch comes out
// of clientv3 as the text of a gRPC status.
func Typed(err error) error {
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

// IsAnswer reports whether an error is a member's own answer, hence a sign of life.
func IsAnswer(err error) bool {
	return errors.Is(err, rpctypes.ErrPermissionDenied) || TokenRefused(err)
}

// TokenRefused reports whether etcd refused the client's token. A stream keeps the token
// that it was opened with; only a refusal on a new stream means that the client cannot
// log in.
func TokenRefused(err error) bool {
	return errors.Is(err, rpctypes.ErrInvalidAuthToken) || errors.Is(err, rpctypes.ErrAuthOldRevision) ||
		errors.Is(err, rpctypes.ErrUserEmpty)
}

// LoginRefused reports whether etcd answers, and does not let this client log in.
func LoginRefused(err error) bool {
	return errors.Is(err, rpctypes.ErrAuthFailed) || errors.Is(err, rpctypes.ErrAuthNotEnabled) || TokenRefused(err)
}

// AccessDenied reports whether etcd does not let the client log in or do what it asked for.
func AccessDenied(err error) bool {
	return errors.Is(err, rpctypes.ErrPermissionDenied) || errors.Is(err, rpctypes.ErrUserEmpty) || errors.Is(err, rpctypes.ErrAuthFailed)
}

// IsTemporary reports whether waiting may cure an error.
func IsTemporary(err error) bool {
	var etcd rpctypes.EtcdError
	if errors.As(err, &etcd) {
		return etcd.Code() == codes.Unavailable || errors.Is(err, rpctypes.ErrTooManyRequests)
	}
	return status.Code(err) == codes.Unavailable || errors.Is(err, ErrNoAnswer) || errors.Is(err, context.DeadlineExceeded)
}

// ConcernsRange reports whether an error of a list is about the range that was asked for,
// and not about the connection.
func ConcernsRange(err error) bool {
	return errors.Is(err, rpctypes.ErrPermissionDenied) || errors.Is(err, rpctypes.ErrCompacted)
}

// MayPassAlone reports whether what etcd refused in one request with others may pass by itself:
// one of them is refused, they are too many or too large together, or etcd was unavailable for a
// moment.
func MayPassAlone(err error) bool {
	code := status.Code(err)
	var etcd rpctypes.EtcdError
	if errors.As(err, &etcd) {
		code = etcd.Code()
	}
	return ConcernsRange(err) || errors.Is(err, rpctypes.ErrTooManyOps) || code == codes.ResourceExhausted || code == codes.Unavailable
}

// OutcomeUnknown reports whether a write that failed with err may have happened, or may
// still happen.
func OutcomeUnknown(err error) bool {
	var etcd rpctypes.EtcdError
	if !errors.As(err, &etcd) {
		return err != nil
	}
	switch etcd.Code() {
	case codes.Unavailable, codes.DeadlineExceeded, codes.Canceled, codes.Unknown, codes.Internal:
		return true
	}
	return false
}
