// SPDX-FileCopyrightText: The Rollcall Authors
// SPDX-License-Identifier: Apache-2.0

package e2e_test

import (
	"context"
	"fmt"
	"strings"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials/insecure"
	grpcresolver "google.golang.org/grpc/resolver"
	"google.golang.org/grpc/status"

	"github.com/rollcall-grpc/rollcall/internal/test/e2e/lab"
)

// faultChecks are about channels while etcd is not there or does not let them in.
func faultChecks() []check {
	return []check{
		{name: "calls go on while etcd is down", mark: both, members: 1, run: func(e *lab.Env) {
			e.Serve("a", "b")
			conn := e.Dial("etcd:///" + e.Target)
			e.Reaches(conn, "a", "b")
			e.Etcd.Member(0).Kill()
			for range 20 {
				_, err := e.Call(conn)
				e.OK(err)
			}
			e.Etcd.Member(0).Start()
			e.Etcd.WaitReady()
			e.Serve("c")
			e.Reaches(conn, "a", "b", "c")
		}},
		{name: "a list waits until etcd can be had", mark: both, run: func(e *lab.Env) {
			link, client := e.Linked()
			m := e.ManagerOf(client, e.Target)
			e.Add(m, e.Key("a"), "a:1")
			e.Listed(m)
			link.Cut()
			back := time.AfterFunc(quietMoment, link.Mend)
			defer back.Stop()
			e.Same("list", e.Listed(m), map[string]string{e.Key("a"): "a:1"})
		}},
		{name: "a watch channel waits until etcd can be had", mark: both, run: func(e *lab.Env) {
			link, client := e.Linked()
			e.Add(e.Manager(), e.Key("a"), "a:1")
			link.Cut()
			back := time.AfterFunc(quietMoment, link.Mend)
			defer back.Stop()
			e.Watch(e.ManagerOf(client, e.Target)).Becomes(map[string]string{e.Key("a"): "a:1"})
		}},
		{name: "calls that wait for ready wait for etcd", mark: both, run: func(e *lab.Env) {
			link, client := e.Linked()
			link.Cut()
			e.Serve("a")
			back := time.AfterFunc(4*quietMoment, link.Mend)
			defer back.Stop()
			_, err := lab.CallNamed(e.Ctx, e.DialBy(e.BuilderOf(client), "etcd:///"+e.Target), grpc.WaitForReady(true))
			e.OK(err)
		}},
		{name: "a channel goes on after a compaction while cut off", mark: ours, difference: "A watch ends with its context only", members: 1, run: func(e *lab.Env) {
			link, client := e.Linked()
			e.Serve("a", "b")
			conn := e.DialBy(e.BuilderOf(client), "etcd:///"+e.Target)
			e.Reaches(conn, "a", "b")
			link.Cut()
			e.OK(e.Manager().DeleteEndpoint(e.Ctx, e.Key("a")))
			e.Serve("c")
			e.Compact()
			link.Mend()
			e.Reaches(conn, "b", "c")
		}},
		{name: "calls fail with etcd's own error while it is down, and heal", mark: ours, difference: "Build never blocks", run: func(e *lab.Env) {
			link, client := e.Linked()
			link.Cut()
			e.Serve("a")
			conn := e.DialBy(e.BuilderOf(client), "etcd:///"+e.Target)
			_, err := e.Call(conn)
			if status.Code(err) != codes.Unavailable || !strings.Contains(err.Error(), link.Addr()) {
				e.Failf("got %v, want UNAVAILABLE that names %s", err, link.Addr())
			}
			link.Mend()
			e.Reaches(conn, "a")
		}},
		{name: "Build and Close do not wait for a mute etcd", mark: ours, difference: "Build never blocks", run: func(e *lab.Env) {
			link, client := e.Linked()
			link.Freeze()
			b := e.BuilderOf(client)
			built := make(chan struct{})
			go func() {
				defer close(built)
				conn, err := grpc.NewClient("etcd:///"+e.Target, grpc.WithResolvers(b), grpc.WithTransportCredentials(insecure.NewCredentials()))
				if err == nil {
					conn.Connect()
					conn.Close()
				}
			}()
			e.T.Cleanup(func() { client.Close(); <-built })
			select {
			case <-built:
			case <-time.After(5 * time.Second):
				e.Failf("still waiting after 5 s")
			}
		}},
		{name: "a call's deadline holds while etcd is mute", mark: ours, difference: "Build never blocks", run: func(e *lab.Env) {
			link, client := e.Linked()
			link.Freeze()
			conn := e.DialBy(e.BuilderOf(client), "etcd:///"+e.Target)
			e.T.Cleanup(func() { client.Close() })
			done := make(chan error, 1)
			go func() {
				ctx, cancel := context.WithTimeout(e.Ctx, time.Second/2)
				defer cancel()
				_, err := lab.CallNamed(ctx, conn)
				done <- err
			}()
			select {
			case err := <-done:
				if err == nil {
					e.Failf("no error")
				}
			case <-time.After(5 * time.Second):
				e.Failf("still waiting after 5 s")
			}
		}},
		{name: "a channel heals once it may read", mark: ours, difference: "Build never blocks", members: 1, run: func(e *lab.Env) {
			root, user := e.WithAuth()
			a := lab.StartServer(e.T, "a")
			e.Add(e.ManagerOf(root, e.Target), e.Key("a"), a.Addr)
			conn := e.DialBy(e.BuilderOf(user), "etcd:///"+e.Target)
			if _, err := e.Call(conn); err == nil || !strings.Contains(err.Error(), "permission denied") {
				e.Failf("got %v, want permission denied", err)
			}
			e.Grant(root)
			e.Reaches(conn, "a")
		}},
		{name: "a watch channel without the right to read is refused", mark: both, members: 1, run: func(e *lab.Env) {
			root, user := e.WithAuth()
			if _, err := e.ManagerOf(user, e.Target).NewWatchChannel(e.Ctx); err == nil || !strings.Contains(err.Error(), "permission denied") {
				e.Failf("got %v, want permission denied", err)
			}
			e.Grant(root)
			e.Add(e.ManagerOf(root, e.Target), e.Key("a"), "a:1")
			e.Watch(e.ManagerOf(user, e.Target)).Becomes(map[string]string{e.Key("a"): "a:1"})
		}},
		{name: "a target that names nothing fails at once with its reason", mark: ours, run: func(e *lab.Env) {
			for _, target := range []string{"etcd:///", "etcd:////", "etcd://authority"} {
				_, err := e.Call(e.Dial(target))
				if err == nil || !strings.Contains(err.Error(), "names no service") {
					e.Failf("%s: got %v", target, err)
				}
			}
		}},
	}
}

// dialBlocking is grpc.Dial as etcd's documentation has it: deprecated, and in use.
func dialBlocking(ctx context.Context, target string, b grpcresolver.Builder, opts ...grpc.DialOption) (*grpc.ClientConn, error) {
	//lint:ignore SA1019 as in the document
	opts = append([]grpc.DialOption{grpc.WithResolvers(b), grpc.WithTransportCredentials(insecure.NewCredentials()), grpc.WithBlock()}, opts...)
	//lint:ignore SA1019 as in the document
	conn, err := grpc.DialContext(ctx, target, opts...)
	if err != nil {
		return nil, fmt.Errorf("dial %s: %w", target, err)
	}
	return conn, nil
}
