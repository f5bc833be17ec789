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

// Exit codes of a command that cannot be started, as in shells.
const (
	exitCannotRun = 126
	exitNoCommand = 127
)

// killGrace is how long a command may take to end after its registration failed.
const killGrace = 10 * time.Second

// runCommand starts a command and keeps the endpoint registered until the command ends.
func (s *registerSession) runCommand(ctx context.Context, command []string, signals <-chan os.Signal) error {
	if ctx.Err() != nil {
		return context.Cause(ctx)
	}
	cmd := exec.Command(command[0], command[1:]...)
	cmd.Stdin, cmd.Stdout, cmd.Stderr = s.a.stdin, s.a.stdout, s.a.stderr
	endWithThread(cmd)
	runtime.LockOSThread() // the thread must live until the command has ended
	defer runtime.UnlockOSThread()
	if err := cmd.Start(); err != nil {
		s.abort()
		return cannotStart(command[0], err)
	}
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		_ = cmd.Wait() // ProcessState has the result
	}()
	// From here on the command handles signals; its end ends the registration.
	running, stop := context.WithCancel(context.WithoutCancel(ctx))
	defer stop()
	maintained := make(chan error, 1)
	go func() { maintained <- s.maintain(running) }()
	failed := forwardSignals(cmd.Process, signals, maintained, ended)
	stop()
	if failed == nil {
		failed = <-maintained
	}
	if failed != nil {
		s.abort()
		return failed
	}
	if err := s.deregister(ctx); err != nil {
		s.a.say("%s", s.a.explain(err))
	}
	return exitOf(cmd.ProcessState)
}

// forwardSignals forwards signals to the command until it has ended. If the registration
// fails, forwardSignals ends the command and returns the error.
func forwardSignals(command *os.Process, signals <-chan os.Signal, maintained <-chan error, ended <-chan struct{}) (failed error) {
	var tooLong <-chan time.Time
	for {
		select {
		case sig := <-signals:
			if !fromTerminal(sig) {
				_ = command.Signal(sig)
			}
		case failed = <-maintained:
			maintained = nil
			_ = command.Signal(syscall.SIGTERM)
			tooLong = time.After(killGrace)
		case <-tooLong:
			_ = command.Kill()
		case <-ended:
			return failed
		}
	}
}

// cannotStart returns the error of a command that cannot be started, with a shell's exit code.
func cannotStart(name string, err error) error {
	code := exitCannotRun
	if errors.Is(err, exec.ErrNotFound) || errors.Is(err, fs.ErrNotExist) {
		code = exitNoCommand
	}
	var execErr *exec.Error
	if errors.As(err, &execErr) {
		err = execErr.Err
	}
	return fail(code, "cannot start %q: %v; nothing was registered", name, err)
}

// exitOf returns the command's exit code as an error without a message, nil for 0.
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
