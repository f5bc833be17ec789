// SPDX-FileCopyrightText: The Rollcall Authors
// SPDX-License-Identifier: Apache-2.0

package main

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"strings"

	"github.com/spf13/pflag"

	"github.com/rollcall-grpc/rollcall/internal/edit"
)

func addYes(flags *pflag.FlagSet, yes *bool) {
	flags.BoolVarP(yes, "yes", "y", false, "do not ask before a service is left without an endpoint")
}

// confirmed makes a change that fails with an *edit.EmptiesError where it would empty a service, unless it is
// told that this is meant. Then it asks, on a terminal, and makes the change again.
func (a *app) confirmed(ctx context.Context, yes bool, change func(yes bool) error) error {
	err := change(yes)
	var empties *edit.EmptiesError
	var partial *edit.PartialError
	if !errors.As(err, &empties) || errors.As(err, &partial) {
		return err
	}
	if !isTerminal(a.stdin) {
		return fail(exitOther, "%w; use --yes if that is meant", err)
	}
	if agreed, err := a.ask(ctx, fmt.Sprintf("%v. Go on?", empties)); err != nil {
		return err
	} else if !agreed {
		return fail(exitOther, "nothing was written")
	}
	return change(true)
}

// ask asks a question, to which the default answer is no.
func (a *app) ask(ctx context.Context, question string) (bool, error) {
	fmt.Fprintf(a.stderr, "rollcall: %s [y/N] ", safe(question))
	answer, err := untilDone(ctx, func() (string, error) { return bufio.NewReader(a.stdin).ReadString('\n') })
	if err != nil {
		fmt.Fprintln(a.stderr)
		if errors.Is(err, io.EOF) {
			err = nil
		}
		return false, err
	}
	switch strings.ToLower(strings.TrimSpace(answer)) {
	case "y", "yes":
		return true, nil
	}
	return false, nil
}

// untilDone returns what read does, or the cause of ctx once that has ended: a read of standard input cannot be
// ended, and is left behind.
func untilDone[T any](ctx context.Context, read func() (T, error)) (T, error) {
	type result struct {
		got T
		err error
	}
	done := make(chan result, 1)
	go func() {
		got, err := read()
		done <- result{got, err}
	}()
	select {
	case r := <-done:
		return r.got, r.err
	case <-ctx.Done():
		var none T
		return none, context.Cause(ctx)
	}
}
