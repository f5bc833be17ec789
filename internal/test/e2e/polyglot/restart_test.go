// SPDX-FileCopyrightText: The Rollcall Authors
// SPDX-License-Identifier: Apache-2.0

//go:build linux

package polyglot_test

import (
	"context"
	"fmt"
	"slices"
	"sync"
	"testing"
	"time"

	"google.golang.org/grpc"

	"github.com/rollcall-grpc/rollcall"
	"github.com/rollcall-grpc/rollcall/internal/test/e2e/lab"
	"github.com/rollcall-grpc/rollcall/serving"
)

// TestRollingRestart: 20 servers are restarted at their addresses, two at a time, each drained
// first, under calls from all languages. None fails, and each server is called afterwards.
func TestRollingRestart(t *testing.T) {
	t.Parallel()
	const servers = 20
	f := newFixture(t)
	registrar, err := rollcall.NewRegistrar(lab.Directory(t, f.client), rollcall.RegistrarOptions{})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = registrar.Shutdown(lab.CleanupContext(t)) })
	run := func(addr string) *backend {
		lis := listen(t, addr)
		srv := grpc.NewServer()
		srv.RegisterService(&greeter, nil)
		ctx, cancel := context.WithCancel(context.Background())
		var running sync.WaitGroup
		running.Go(func() {
			if err := serving.Run(ctx, srv, lis, serving.Options{Registrar: registrar, Service: "rolling", DrainDelay: 500 * time.Millisecond}); err != nil {
				t.Error(err)
			}
		})
		b := &backend{addr: lis.Addr().String(), stop: func() {
			cancel()
			running.Wait()
		}}
		t.Cleanup(b.stop)
		return b
	}
	var all []*backend
	for range servers {
		all = append(all, run(""))
	}
	began := time.Now()
	fl := f.fleet("xds:///rolling", "", "--count", "0", "--interval", "0.002")
	called := func(since time.Time) {
		for _, b := range all {
			fl.see(t, "", since, answers(since, b.addr))
		}
	}
	called(began)
	for pair := range slices.Chunk(all, 2) {
		var restarts sync.WaitGroup
		for i, b := range pair {
			restarts.Go(func() {
				b.stop()
				pair[i] = run(b.addr)
			})
		}
		restarts.Wait()
	}
	called(time.Now())
	fl.stop()
	fl.noFailure(t, "a rolling restart", began)
	const row = "20 servers restarted two at a time, drained first"
	for _, c := range fl {
		measured.set(row, c.name, fmt.Sprintf("%d calls, %d failed", len(c.since(began)), len(c.failures(began))))
	}
	t.Log(measured.row(row))
}
