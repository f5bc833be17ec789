// SPDX-FileCopyrightText: The Rollcall Authors
// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"io"
	"os"
)

// readFile returns the content of a file or, where its name is "" or "-", of standard input, and what to call that.
// It says what it waits for on a terminal, and ends with ctx.
func (a *app) readFile(ctx context.Context, file, what string, most int64) (name string, data []byte, err error) {
	in, name := a.stdin, "standard input"
	if file != "" && file != "-" {
		f, err := os.Open(file)
		if err != nil {
			return "", nil, fail(exitUsage, "cannot read %s: %v", what, err)
		}
		defer f.Close()
		in, name = f, file
	} else if isTerminal(a.stdin) {
		a.say("reading %s from the terminal; end it with Ctrl-D on a line of its own", what)
	}
	data, err = untilDone(ctx, func() ([]byte, error) { return io.ReadAll(io.LimitReader(in, most+1)) })
	switch {
	case isSignal(err):
		return name, nil, err
	case err != nil:
		return name, nil, fail(exitUsage, "cannot read %s from %s: %v", what, name, err)
	case int64(len(data)) > most:
		return name, nil, fail(exitUsage, "%s has over %d bytes, more than is accepted", name, most)
	}
	return name, data, nil
}
