// SPDX-FileCopyrightText: The Rollcall Authors
// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"errors"
	"io/fs"
	"os"
	"os/exec"
	"runtime"
	"syscall"
	"time"
)

// Exit codes of a command that cannot be started, as shells have them.
const (
	exitCannotRun = 126
	exitNoCommand = 127
)

// killGrace is how long a command that could not be registered has to end.
const killGrace = 10 * time.Second

// accompany starts a command and keeps the endpoint registered until it ends.
func (d *desk) accompany(ctx context.Context, command []string, signals <-chan os.Signal) error {
	if ctx.Err() != nil {
		return context.Cause(ctx)
	}
	cmd := exec.Command(command[0], command[1:]...)
	cmd.Stdin, cmd.Stdout, cmd.Stderr = d.a.stdin, d.a.stdout, d.a.stderr
	endWithThread(cmd)
	runtime.LockOSThread() // which then lives until the command has ended
	defer runtime.UnlockOSThread()
	if err := cmd.Start(); err != nil {
		d.abandon()
		return cannotStart(command[0], err)
	}
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		_ = cmd.Wait() // ProcessState tells the same
	}()
	// From here on signals are the command's; what ends the registration is its end.
	keeping, stop := context.WithCancel(context.WithoutCancel(ctx))
	defer stop()
	kept := make(chan error, 1)
	go func() { kept <- d.keep(keeping) }()
	failed := escort(cmd.Process, signals, kept, ended)
	stop()
	if failed == nil {
		failed = <-kept
	}
	if failed != nil {
		d.abandon()
		return failed
	}
	if err := d.leave(ctx); err != nil {
		d.a.say("%s", d.a.explain(err))
	}
	return exitOf(cmd.ProcessState)
}

// escort passes signals on until the command has ended. A registration that failed ends
// the command and is returned.
func escort(command *os.Process, signals <-chan os.Signal, kept <-chan error, ended <-chan struct{}) (failed error) {
	var tooLong <-chan time.Time
	for {
		select {
		case sig := <-signals:
			if !fromTerminal(sig) {
				_ = command.Signal(sig)
			}
		case failed = <-kept:
			kept = nil
			_ = command.Signal(syscall.SIGTERM)
			tooLong = time.After(killGrace)
		case <-tooLong:
			_ = command.Kill()
		case <-ended:
			return failed
		}
	}
}

// cannotStart gives a command that cannot be started the code that a shell would.
func cannotStart(name string, err error) error {
	code := exitCannotRun
	if errors.Is(err, exec.ErrNotFound) || errors.Is(err, fs.ErrNotExist) {
		code = exitNoCommand
	}
	var about *exec.Error
	if errors.As(err, &about) {
		err = about.Err
	}
	return fail(code, "cannot start %q: %v; nothing was registered", name, err)
}

// exitOf passes a command's own exit code on, without a word.
func exitOf(state *os.ProcessState) error {
	code := state.ExitCode()
	if ws, ok := state.Sys().(syscall.WaitStatus); ok && ws.Signaled() {
		code = 128 + int(ws.Signal())
	}
	if code == 0 {
		return nil
	}
	return &exitError{code: code}
}
