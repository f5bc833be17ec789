// SPDX-FileCopyrightText: The Rollcall Authors
// SPDX-License-Identifier: Apache-2.0

package xds_test

import (
	"context"
	"fmt"
	"sync/atomic"
	"testing"
	"time"

	"google.golang.org/grpc"

	"github.com/rollcall-grpc/rollcall/xds"
)

// A change that comes while a request is taken in is sent with all that the request asks for: what a
// response with Clusters lacks, clients delete.
func TestChangeDuringRequest(t *testing.T) {
	asked, answer := make(chan struct{}), make(chan struct{})
	l := newLab(t, xds.Options{Authorize: func(_ context.Context, service string) error {
		if service == "c" {
			close(asked)
			<-answer
		}
		return nil
	}})
	c := l.connect(t, "client")
	c.ask(clusterType, nil, "", "a")
	first := c.answer(clusterType)
	wantNames(t, first, "a")
	c.ask(clusterType, first, "", "a", "b", "c")
	<-asked
	l.etcd.Put("_grpc_config/a", `{"loadBalancingConfig":[{"ring_hash_experimental":{}}]}`)
	c.silent()
	close(answer)
	wantNames(t, c.answer(clusterType), "a", "b", "c")
}

// What changes while it may not be sent yet is not made.
func TestNothingIsMadeEarly(t *testing.T) {
	var made atomic.Int64
	l := newLab(t, xds.Options{PushInterval: time.Hour, Policy: func(addr string) error {
		if addr == "10.0.0.1:80" {
			made.Add(1)
		}
		return nil
	}})
	l.put("a/0", "10.0.0.1:80", "null")
	l.put("b/0", "10.0.0.2:80", "null")
	c := l.connect(t, "client")
	c.ask(assignmentType, nil, "", "a", "b")
	have := make(map[string]bool)
	for last := c.answer(assignmentType); ; last = c.answer(assignmentType) {
		c.ask(assignmentType, last, "", "a", "b")
		for _, name := range names(t, last) {
			have[name] = true
		}
		if len(have) == 2 {
			break
		}
	}
	l.put("b/0", "10.0.0.2:80", `{"weight":2}`)
	c.ask(assignmentType, c.answer(assignmentType), "", "a", "b")
	made.Store(0)
	for i := range 10 {
		l.put("a/0", "10.0.0.1:80", fmt.Sprintf(`{"weight":%d}`, 2+i))
		time.Sleep(10 * time.Millisecond)
	}
	if n := made.Load(); n != 0 {
		t.Errorf("the endpoints of a were made %d times, and sent to nobody", n)
	}
}

// A stream that ends gives Authorize up, and waits for it: nothing of the program is called afterwards.
func TestEndDuringRequest(t *testing.T) {
	asked := make(chan struct{})
	var running atomic.Bool
	l := newLab(t, xds.Options{Authorize: func(ctx context.Context, _ string) error {
		running.Store(true)
		defer running.Store(false)
		close(asked)
		<-ctx.Done()
		time.Sleep(50 * time.Millisecond)
		return ctx.Err()
	}})
	var srv *grpc.Server
	l.addr = serve(t, func(s *grpc.Server) {
		l.server.Register(s)
		srv = s
	}, xds.ServerOption())
	c := l.connect(t, "client")
	c.ask(clusterType, nil, "", "a")
	<-asked
	l.server.Close()
	srv.GracefulStop()
	if running.Load() {
		t.Error("Authorize runs after the server has stopped")
	}
}
