// SPDX-FileCopyrightText: The Rollcall Authors
// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"errors"
	"fmt"
	"strconv"
	"strings"
	"syscall"

	"go.etcd.io/etcd/api/v3/v3rpc/rpctypes"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/rollcall-grpc/rollcall"
	"github.com/rollcall-grpc/rollcall/internal/printable"
)

// Exit codes, part of the contract with scripts.
const (
	exitOther        = 1
	exitUsage        = 2
	exitNotFound     = 3
	exitUnreachable  = 4
	exitNotPermitted = 5
	exitTimeout      = 6
)

// exitError gives an error an exit code. With a nil err nothing is printed.
type exitError struct {
	code int
	err  error
}

func (e *exitError) Error() string {
	if e.err == nil {
		return fmt.Sprintf("exit %d", e.code)
	}
	return e.err.Error()
}

func (e *exitError) Unwrap() error { return e.err }

// silent reports whether err is an exit code without a message.
func silent(err error) bool {
	var exit *exitError
	return errors.As(err, &exit) && exit.err == nil
}

func fail(code int, format string, args ...any) error {
	return &exitError{code: code, err: fmt.Errorf(format, args...)}
}

// signalError is the cause of a context that a signal ended.
type signalError struct{ sig syscall.Signal }

func (e signalError) Error() string { return "interrupted by " + e.sig.String() }

func isSignal(err error) bool {
	var sig signalError
	return errors.As(err, &sig)
}

// exitCode returns the exit code for an error.
func exitCode(err error) int {
	var exit *exitError
	var sig signalError
	var input *rollcall.InputError
	switch {
	case err == nil:
		return 0
	case errors.As(err, &sig):
		return 128 + int(sig.sig)
	case errors.As(err, &exit):
		return exit.code
	case errors.As(err, &input), errors.Is(err, rpctypes.ErrLeaseTTLTooLarge):
		return exitUsage
	case notPermitted(err):
		return exitNotPermitted
	case timedOut(err):
		return exitTimeout
	case errors.Is(err, rollcall.ErrNoAnswer), isEtcd(err, codes.Unavailable),
		status.Code(err) == codes.Unavailable, status.Code(err) == codes.Unimplemented: // not an etcd
		return exitUnreachable
	}
	return exitOther
}

// noStatus returns the exit code where no member of etcd told its status, and err is why: what does not answer in
// time was not reached.
func noStatus(err error) error {
	code := exitCode(err)
	if code == exitTimeout {
		code = exitUnreachable
	}
	return &exitError{code: code}
}

func notPermitted(err error) bool {
	for _, refusal := range []error{rpctypes.ErrPermissionDenied, rpctypes.ErrUserEmpty, rpctypes.ErrAuthFailed,
		rpctypes.ErrInvalidAuthToken, rpctypes.ErrUserNotFound, rpctypes.ErrPermissionNotGranted} {
		if errors.Is(err, refusal) {
			return true
		}
	}
	return status.Code(err) == codes.PermissionDenied || status.Code(err) == codes.Unauthenticated
}

// timedOut reports whether etcd was reached but took too long.
func timedOut(err error) bool {
	for _, late := range []error{context.DeadlineExceeded, rpctypes.ErrTimeout, rpctypes.ErrTimeoutDueToLeaderFail,
		rpctypes.ErrTimeoutDueToConnectionLost, rpctypes.ErrTimeoutWaitAppliedIndex} {
		if errors.Is(err, late) {
			return true
		}
	}
	return status.Code(err) == codes.DeadlineExceeded
}

// cancelled reports whether err only says that its context was cancelled.
func cancelled(err error) bool {
	return errors.Is(err, context.Canceled) || status.Code(err) == codes.Canceled
}

func isEtcd(err error, code codes.Code) bool {
	var etcd rpctypes.EtcdError
	return errors.As(err, &etcd) && etcd.Code() == code
}

// explain returns the message for an error; one about etcd names the endpoints and the way out.
func (a *app) explain(err error) string {
	where := strings.Join(a.endpoints, ", ")
	switch exitCode(err) {
	case exitUnreachable:
		return fmt.Sprintf("cannot reach etcd at %s: %s; %s", where, plain(err), a.wayOut(plain(err)))
	case exitNotPermitted:
		who, wayOut := "without a user", "this etcd has users: give --user NAME, or ROLLCALL_USER"
		if user := a.who(); user != "" {
			who, wayOut = "as user "+strconv.Quote(user), "see --user, --password and the user's roles"
		}
		if grant := a.grant(); grant != "" {
			wayOut = grant
		}
		return fmt.Sprintf("etcd at %s denied access %s: %s; %s", where, who, plain(err), wayOut)
	case exitTimeout:
		var exit *exitError
		switch {
		case errors.As(err, &exit): // by a time-out of the command's own
			return plain(err)
		case !errors.Is(err, context.DeadlineExceeded) && status.Code(err) != codes.DeadlineExceeded:
			return fmt.Sprintf("etcd at %s gave up: %s; see rollcall status", where, plain(err))
		}
		wayOut := "see " + a.label("dial-timeout")
		if a.commandTimeout > 0 {
			wayOut = "see " + a.label("command-timeout")
		}
		return fmt.Sprintf("etcd at %s did not answer within %v: %s; %s", where, a.patience(), plain(err), wayOut)
	}
	if cancelled(err) {
		return "cancelled"
	}
	return plain(err)
}

// wayOut suggests what to check when a connection failed. With TLS 1.3 a server that wants a certificate ends
// the connection after the handshake, and with it perhaps the alert that says so.
func (a *app) wayOut(cause string) string {
	switch creds, _ := a.credentials(); {
	case strings.Contains(cause, "handshake"):
		return "does it speak TLS, with a certificate that --cacert signs?"
	case !strings.Contains(cause, "preface") && !strings.Contains(cause, "broken pipe") && !strings.Contains(cause, "connection reset"):
		return "is it running? see " + a.label("endpoints")
	case creds == nil:
		return "does it want TLS? see --cacert, or write https://"
	}
	return "does it want a certificate of the client? see --cert and --key"
}

// plain returns the text of an error without gRPC's prefixes.
func plain(err error) string { return printable.Error(err) }

func oneLine(text string) string {
	return strings.Join(strings.Fields(text), " ")
}
