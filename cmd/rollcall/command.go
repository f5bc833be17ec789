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
	"sync"
	"syscall"
	"time"

	"github.com/rollcall-grpc/rollcall/internal/healthcheck"
)

// Exit codes of a command that cannot be started, as in shells.
const (
	exitCannotRun = 126
	exitNoCommand = 127
)

// killGrace is how long a command may take to end after its registration failed.
const killGrace = 10 * time.Second

// runCommand starts a command and keeps the endpoint registered until the command ends or is to end.
func (s *registerSession) runCommand(ctx context.Context, command []string, signals <-chan os.Signal) error {
	if ctx.Err() != nil {
		return context.Cause(ctx)
	}
	cmd := exec.Command(command[0], command[1:]...)
	cmd.Stdin, cmd.Stdout, cmd.Stderr = s.a.stdin, s.a.stdout, s.a.stderr
	cmd.Env = healthcheck.Environ()
	prepareChild(cmd)
	runtime.LockOSThread() // the thread must live until the command has ended
	defer runtime.UnlockOSThread()
	if err := cmd.Start(); err != nil {
		s.abort()
		return cannotStart(command[0], err)
	}
	// From here on the command handles signals; its end ends the registration.
	c := &runningCommand{session: s, process: cmd.Process, ended: make(chan struct{}), maintained: make(chan struct{})}
	running, stop := context.WithCancel(context.WithoutCancel(ctx))
	defer stop()
	go func() {
		defer close(c.ended)
		_ = cmd.Wait() // ProcessState has the result
		stop()
	}()
	maintaining, stopMaintaining := context.WithCancel(running)
	defer stopMaintaining()
	go func() {
		defer close(c.maintained)
		c.failed = s.maintain(maintaining)
	}()
	c.supervise(running, signals, func(waiting context.Context, sig os.Signal) {
		stopMaintaining()
		<-c.maintained
		s.leave(waiting, "passing "+map[os.Signal]string{os.Interrupt: "SIGINT", syscall.SIGTERM: "SIGTERM"}[sig]+" on")
	})
	<-c.maintained
	if c.failed != nil {
		s.abort()
		return c.failed
	}
	if err := s.deregister(ctx); err != nil {
		s.a.say("%s", s.a.explain(err))
	}
	return exitOf(cmd.ProcessState)
}

// runningCommand is a command while it runs.
type runningCommand struct {
	session    *registerSession
	process    *os.Process
	ended      chan struct{} // closed when the command has ended
	maintained chan struct{} // closed when the endpoint is not maintained any more
	failed     error         // why not, once maintained is closed
}

// supervise passes signals on until the command has ended. The first one that asks it to end waits
// until leave, in which the endpoint leaves etcd, has returned. One that comes meanwhile does not: it
// goes in place of the first and ends the wait. If the registration fails, the command is ended.
func (c *runningCommand) supervise(ctx context.Context, signals <-chan os.Signal, leave func(context.Context, os.Signal)) {
	maintained := c.maintained
	asked := false
	waiting, hurry := context.WithCancel(ctx)
	defer hurry()
	var leaving sync.WaitGroup
	defer leaving.Wait()
	var tooLong <-chan time.Time
	for {
		select {
		case sig := <-signals:
			switch ends := sig == os.Interrupt || sig == syscall.SIGTERM; {
			case fromTerminal(sig): // the command has it
			case ends && !asked:
				asked = true
				leaving.Go(func() {
					if leave(waiting, sig); waiting.Err() == nil {
						_ = c.process.Signal(sig)
					}
				})
			default:
				if ends {
					hurry()
				}
				_ = c.process.Signal(sig)
			}
		case <-maintained:
			maintained = nil
			if c.failed != nil {
				_ = c.process.Signal(syscall.SIGTERM)
				tooLong = time.After(killGrace)
			}
		case <-tooLong:
			_ = c.process.Kill()
		case <-c.ended:
			return
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
