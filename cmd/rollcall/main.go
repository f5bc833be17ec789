// SPDX-FileCopyrightText: The Rollcall Authors
// SPDX-License-Identifier: Apache-2.0

// Command rollcall shows, changes and follows the endpoints that gRPC services have
// registered in etcd. rollcall demo shows Rollcall at work.
package main

import (
	"context"
	"log/slog"
	"net"
	"os"
	"os/signal"
	"syscall"
)

func main() {
	os.Exit(run(os.Args[1:]))
}

// run executes the command line and returns the exit code. The first SIGINT or SIGTERM
// cancels the command's context, so that it can clean up; the second ends the process. As process 1 of a
// container the command line runs in a child.
func run(args []string) int {
	if isInit() {
		return superviseAsInit()
	}
	ctx, cancel := context.WithCancelCause(context.Background())
	defer cancel(nil)
	signals := make(chan os.Signal, 1)
	signal.Notify(signals, os.Interrupt, syscall.SIGTERM)
	defer signal.Stop(signals)
	slog.SetDefault(slog.New(slog.DiscardHandler)) // commands report events themselves
	a := &app{stdin: os.Stdin, stdout: os.Stdout, stderr: os.Stderr, getenv: os.LookupEnv, environ: os.Environ(),
		configDir: os.UserConfigDir, lookupSRV: net.DefaultResolver.LookupSRV}
	go func() {
		for {
			select {
			case sig := <-signals:
				if sig == os.Interrupt && editing.Load() {
					continue // a key of the editor's
				}
				signal.Stop(signals)
				cancel(signalError{sig.(syscall.Signal)})
			case <-ctx.Done():
			}
			return
		}
	}()
	return a.run(ctx, args)
}
