// SPDX-FileCopyrightText: The Rollcall Authors
// SPDX-License-Identifier: Apache-2.0

package main

import (
	"fmt"
	"os"
	"os/signal"
	"slices"
	"syscall"
)

// isInit reports whether this is process 1 of a container, to which the kernel gives orphans.
func isInit() bool { return os.Getpid() == 1 }

// superviseAsInit runs this command line again as a child, passes all signals on to it, reaps every process
// that ends, and returns the child's exit code. Nothing else in this process waits for children, so none
// is taken from it.
func superviseAsInit() int {
	signals := make(chan os.Signal, 64)
	signal.Notify(signals)
	child, err := syscall.ForkExec("/proc/self/exe", os.Args, &syscall.ProcAttr{Env: os.Environ(), Files: []uintptr{0, 1, 2}})
	if err != nil {
		fmt.Fprintf(os.Stderr, "rollcall: cannot start itself as a child of process 1: %v\n", err)
		return exitCannotRun
	}
	// Of no use to the child, or sent to it by the kernel.
	kept := []os.Signal{syscall.SIGCHLD, syscall.SIGURG, syscall.SIGPIPE, syscall.SIGTSTP, syscall.SIGTTIN, syscall.SIGTTOU}
	for sig := range signals {
		if !slices.Contains(kept, sig) && !fromTerminal(sig) {
			_ = syscall.Kill(child, sig.(syscall.Signal))
		}
		if status, ended := reap(child); ended {
			if status.Signaled() {
				return 128 + int(status.Signal())
			}
			return status.ExitStatus()
		}
	}
	return 0
}

// reap waits for all children that have ended, and returns the status of one of them.
func reap(child int) (_ syscall.WaitStatus, ended bool) {
	for {
		var status syscall.WaitStatus
		switch pid, err := syscall.Wait4(-1, &status, syscall.WNOHANG, nil); {
		case err == syscall.EINTR:
		case pid == child:
			return status, true
		case err != nil, pid <= 0:
			return 0, false
		}
	}
}
