// SPDX-FileCopyrightText: The Rollcall Authors
// SPDX-License-Identifier: Apache-2.0

package e2e_test

import (
	"context"
	"fmt"
	"strings"
	"time"

	clientv3 "go.etcd.io/etcd/client/v3"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials/insecure"
	grpcresolver "google.golang.org/grpc/resolver"
	"google.golang.org/grpc/status"

	"github.com/rollcall-grpc/rollcall/endpoints"
	"github.com/rollcall-grpc/rollcall/internal/etcdtest"
)

// faultChecks are about channels while etcd is not there or does not let them in.
func faultChecks() []check {
	return []check{
		{name: "calls go on while etcd is down", mark: both, members: 1, run: func(e *env) {
			e.serve("a", "b")
			conn := e.dial("etcd:///" + e.target)
			e.reaches(conn, "a", "b")
			e.etcd.Member(0).Kill()
			for range 20 {
				_, err := e.call(conn)
				e.ok(err)
			}
			e.etcd.Member(0).Start()
			e.etcd.WaitReady()
			e.serve("c")
			e.reaches(conn, "a", "b", "c")
		}},
		{name: "a list waits until etcd can be had", mark: both, run: func(e *env) {
			link, client := e.linked()
			m := e.managerOf(client, e.target)
			e.add(m, e.key("a"), "a:1")
			e.listed(m)
			link.Cut()
			back := time.AfterFunc(quietMoment, link.Mend)
			defer back.Stop()
			e.same("list", e.listed(m), map[string]string{e.key("a"): "a:1"})
		}},
		{name: "a watch channel waits until etcd can be had", mark: both, run: func(e *env) {
			link, client := e.linked()
			e.add(e.manager(), e.key("a"), "a:1")
			link.Cut()
			back := time.AfterFunc(quietMoment, link.Mend)
			defer back.Stop()
			e.watch(e.managerOf(client, e.target)).becomes(map[string]string{e.key("a"): "a:1"})
		}},
		{name: "calls that wait for ready wait for etcd", mark: both, run: func(e *env) {
			link, client := e.linked()
			link.Cut()
			e.serve("a")
			back := time.AfterFunc(4*quietMoment, link.Mend)
			defer back.Stop()
			_, err := callNamed(e.ctx, e.dialBy(e.builderOf(client), "etcd:///"+e.target), grpc.WaitForReady(true))
			e.ok(err)
		}},
		{name: "a channel goes on after a compaction while cut off", mark: ours, difference: "A watch ends with its context only", members: 1, run: func(e *env) {
			link, client := e.linked()
			e.serve("a", "b")
			conn := e.dialBy(e.builderOf(client), "etcd:///"+e.target)
			e.reaches(conn, "a", "b")
			link.Cut()
			e.ok(e.manager().DeleteEndpoint(e.ctx, e.key("a")))
			e.serve("c")
			e.compact()
			link.Mend()
			e.reaches(conn, "b", "c")
		}},
		{name: "calls fail with etcd's own error while it is down, and heal", mark: ours, difference: "Build never blocks", run: func(e *env) {
			link, client := e.linked()
			link.Cut()
			e.serve("a")
			conn := e.dialBy(e.builderOf(client), "etcd:///"+e.target)
			_, err := e.call(conn)
			if status.Code(err) != codes.Unavailable || !strings.Contains(err.Error(), link.Addr()) {
				e.failf("got %v, want UNAVAILABLE that names %s", err, link.Addr())
			}
			link.Mend()
			e.reaches(conn, "a")
		}},
		{name: "Build and Close do not wait for a mute etcd", mark: ours, difference: "Build never blocks", run: func(e *env) {
			link, client := e.linked()
			link.Freeze()
			b := e.builderOf(client)
			built := make(chan struct{})
			go func() {
				defer close(built)
				conn, err := grpc.NewClient("etcd:///"+e.target, grpc.WithResolvers(b), grpc.WithTransportCredentials(insecure.NewCredentials()))
				if err == nil {
					conn.Connect()
					conn.Close()
				}
			}()
			e.t.Cleanup(func() { client.Close(); <-built })
			select {
			case <-built:
			case <-time.After(5 * time.Second):
				e.failf("still waiting after 5 s")
			}
		}},
		{name: "a call's deadline holds while etcd is mute", mark: ours, difference: "Build never blocks", run: func(e *env) {
			link, client := e.linked()
			link.Freeze()
			conn := e.dialBy(e.builderOf(client), "etcd:///"+e.target)
			e.t.Cleanup(func() { client.Close() })
			done := make(chan error, 1)
			go func() {
				ctx, cancel := context.WithTimeout(e.ctx, time.Second/2)
				defer cancel()
				_, err := callNamed(ctx, conn)
				done <- err
			}()
			select {
			case err := <-done:
				if err == nil {
					e.failf("no error")
				}
			case <-time.After(5 * time.Second):
				e.failf("still waiting after 5 s")
			}
		}},
		{name: "a channel heals once it may read", mark: ours, difference: "Build never blocks", members: 1, run: func(e *env) {
			root, user := e.withAuth()
			a := startNamedServer(e.t, "a")
			e.add(e.managerOf(root, e.target), e.key("a"), a.addr)
			conn := e.dialBy(e.builderOf(user), "etcd:///"+e.target)
			if _, err := e.call(conn); err == nil || !strings.Contains(err.Error(), "permission denied") {
				e.failf("got %v, want permission denied", err)
			}
			e.grant(root)
			e.reaches(conn, "a")
		}},
		{name: "a watch channel without the right to read is refused", mark: both, members: 1, run: func(e *env) {
			root, user := e.withAuth()
			if _, err := e.managerOf(user, e.target).NewWatchChannel(e.ctx); err == nil || !strings.Contains(err.Error(), "permission denied") {
				e.failf("got %v, want permission denied", err)
			}
			e.grant(root)
			e.add(e.managerOf(root, e.target), e.key("a"), "a:1")
			e.watch(e.managerOf(user, e.target)).becomes(map[string]string{e.key("a"): "a:1"})
		}},
		{name: "a target that names nothing fails at once with its reason", mark: ours, run: func(e *env) {
			for _, target := range []string{"etcd:///", "etcd:////", "etcd://authority"} {
				_, err := e.call(e.dial(target))
				if err == nil || !strings.Contains(err.Error(), "names no service") {
					e.failf("%s: got %v", target, err)
				}
			}
		}},
	}
}

// serve starts servers and adds their endpoints to the check's target.
func (e *env) serve(names ...string) {
	for _, name := range names {
		e.ok(e.manager().AddEndpoint(e.ctx, e.key(name), endpoints.Endpoint{Addr: startNamedServer(e.t, name).addr}))
	}
}

// linked returns a client behind a link of its own.
func (e *env) linked() (*etcdtest.Link, *clientv3.Client) {
	link := etcdtest.NewLink(e.t, e.etcd.Member(0).Addr())
	return link, e.clientAt(link.Addr())
}

// shortLease returns the option of a lease that nobody keeps alive.
func (e *env) shortLease() clientv3.OpOption {
	lease, err := e.client.Grant(e.ctx, 2)
	e.ok(err)
	return clientv3.WithLease(lease.ID)
}

// withAuth turns authentication on and returns clients of root and of a user who may
// do nothing yet.
func (e *env) withAuth() (root, user *clientv3.Client) {
	for _, name := range []string{"root", "user"} {
		_, err := e.client.RoleAdd(e.ctx, name)
		e.ok(err)
		_, err = e.client.UserAdd(e.ctx, name, "secret")
		e.ok(err)
		_, err = e.client.UserGrantRole(e.ctx, name, name)
		e.ok(err)
	}
	_, err := e.client.AuthEnable(e.ctx)
	e.ok(err)
	as := func(name string) *clientv3.Client {
		return e.clientOf(func(cfg *clientv3.Config) { cfg.Username, cfg.Password = name, "secret" })
	}
	return as("root"), as("user")
}

// grant lets the user read the check's target.
func (e *env) grant(root *clientv3.Client) {
	_, err := root.RoleGrantPermission(e.ctx, "user", e.target+"/", clientv3.GetPrefixRangeEnd(e.target+"/"), clientv3.PermissionType(clientv3.PermRead))
	e.ok(err)
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
