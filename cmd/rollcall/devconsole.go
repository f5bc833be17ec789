// SPDX-FileCopyrightText: The Rollcall Authors
// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"log/slog"
	"net"
	"net/http"
	"sync"

	clientv3 "go.etcd.io/etcd/client/v3"

	"github.com/rollcall-grpc/rollcall"
	"github.com/rollcall-grpc/rollcall/internal/console"
	"github.com/rollcall-grpc/rollcall/resolver"
)

// devConsole is the page of an etcd for development. It may change what that holds.
type devConsole struct {
	client    *clientv3.Client
	directory *rollcall.Directory
	server    *consoleServer
	clock     revisionClock
	running   sync.WaitGroup
	stop      context.CancelFunc
}

// beginConsole serves the page of an etcd at a loopback address.
func beginConsole(endpoint, addr string) (*devConsole, error) {
	if tcp, err := net.ResolveTCPAddr("tcp", addr); err != nil || !tcp.IP.IsLoopback() {
		return nil, fail(exitUsage, "--console %s: want a loopback address, such as 127.0.0.1:2382; see rollcall serve for others", addr)
	}
	log := slog.New(slog.DiscardHandler)
	d := new(devConsole)
	ctx, stop := context.WithCancel(context.Background())
	d.stop = stop
	var err error
	if d.client, err = rollcall.NewClient(rollcall.ClientConfig(endpoint)); err != nil {
		return nil, err
	}
	if d.directory, err = rollcall.NewDirectory(d.client, rollcall.DirectoryOptions{Logger: log}); err == nil {
		d.server, err = newConsoleServer(consoleFlags{addr: addr, writes: true}, d.directory,
			console.Options{Logger: log, CheckConfig: resolver.CheckServiceConfig, Clock: &d.clock.Clock})
	}
	if err != nil {
		d.end()
		return nil, err
	}
	pages := http.NewServeMux()
	pages.Handle("/", d.server.console)
	pages.Handle("GET /revisions", &d.clock) // for rollcall history
	d.server.http.Handler = guard(addr, pages)
	d.running.Go(func() { d.clock.Follow(ctx, d.directory) })
	d.running.Go(func() { _ = d.server.serve() }) // it listens; the end of the page does not end etcd
	return d, nil
}

func (d *devConsole) end() {
	d.stop()
	d.server.close()
	d.running.Wait()
	if d.directory != nil {
		d.directory.Close()
	}
	_ = d.client.Close()
}
