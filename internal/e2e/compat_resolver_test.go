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
	"google.golang.org/grpc/status"

	"github.com/rollcall-grpc/rollcall/endpoints"
)

func resolverChecks() []check {
	return []check{
		{name: "the scheme is etcd", mark: both, run: func(e *env) { e.same("scheme", e.builder().Scheme(), "etcd") }},
		{name: "round_robin calls every endpoint", mark: both, run: func(e *env) {
			e.serve("a", "b", "c")
			e.reaches(e.dial("etcd:///"+e.target), "a", "b", "c")
		}},
		{name: "endpoints that come are called, those that go are not", mark: both, run: func(e *env) {
			e.serve("a")
			conn := e.dial("etcd:///" + e.target)
			e.reaches(conn, "a")
			e.serve("b")
			e.reaches(conn, "a", "b")
			e.ok(e.manager().DeleteEndpoint(e.ctx, e.key("a")))
			e.reaches(conn, "b")
		}},
		{name: "pick_first is the default policy", mark: both, run: func(e *env) {
			e.serve("a", "b", "c")
			conn := e.dial("etcd:///"+e.target, grpc.WithDefaultServiceConfig("{}"))
			first, err := e.call(conn)
			e.ok(err)
			e.reaches(conn, first)
		}},
		{name: "one server is not everybody's first", mark: both, run: func(e *env) {
			e.serve("a", "b", "c")
			seen := make(map[string]bool)
			e.eventually(func() error {
				name, err := e.call(e.dial("etcd:///"+e.target, grpc.WithDefaultServiceConfig("{}")))
				seen[name] = true
				if err == nil && len(seen) < 2 {
					err = fmt.Errorf("only %v", seen)
				}
				return err
			})
		}},
		{name: "etcd:///foo calls foo/bar/my-service/e1", mark: both, run: func(e *env) {
			a := startNamedServer(e.t, "a")
			e.add(e.manager(), e.key("bar/my-service/e1"), a.addr)
			e.reaches(e.dial("etcd:///"+e.target), "a")
		}},
		{name: "a channel sees its own target only", mark: both, run: func(e *env) {
			e.serve("a")
			b := startNamedServer(e.t, "b")
			for _, other := range []string{e.target + "-2", e.target + "_other"} {
				e.add(e.managerOf(e.client, other), other+"/x", b.addr)
			}
			e.shows(e.resolve(), e.listed(e.manager())[e.key("a")])
			e.reaches(e.dial("etcd:///"+e.target), "a")
		}},
		{name: "targets in all spellings", mark: both, run: func(e *env) {
			e.serve("a")
			for _, target := range []string{"etcd:" + e.target, "etcd:/" + e.target, "etcd://authority/" + e.target,
				"etcd:///" + strings.ReplaceAll(e.target, "/", "%2F")} {
				e.reaches(e.dial(target), "a")
			}
		}},
		{name: "a target without a name fails calls", mark: both, run: func(e *env) {
			for _, target := range []string{"etcd:///", "etcd://authority"} {
				if name, err := e.call(e.dial(target)); err == nil || e.ctx.Err() != nil {
					e.failf("%s reached %q, err %v", target, name, err)
				}
			}
		}},
		{name: "a blocking Dial waits for an endpoint", mark: both, run: func(e *env) {
			a := startNamedServer(e.t, "a")
			type outcome struct {
				conn *grpc.ClientConn
				err  error
			}
			dialled := make(chan outcome, 1)
			b := e.builder()
			go func() {
				conn, err := dialBlocking(e.ctx, "etcd:///"+e.target, b)
				dialled <- outcome{conn, err}
			}()
			time.Sleep(quietMoment)
			e.add(e.manager(), e.key("a"), a.addr)
			o := <-dialled
			e.ok(o.err)
			e.t.Cleanup(func() { o.conn.Close() })
			e.reaches(o.conn, "a")
		}},
		{name: "calls that wait for ready wait for the first endpoint", mark: both, run: func(e *env) {
			a := startNamedServer(e.t, "a")
			conn := e.dial("etcd:///" + e.target)
			answered := make(chan error, 1)
			go func() {
				_, err := callNamed(e.ctx, conn, grpc.WaitForReady(true))
				answered <- err
			}()
			time.Sleep(quietMoment)
			e.add(e.manager(), e.key("a"), a.addr)
			e.ok(<-answered)
		}},
		{name: "a service that became empty fails calls at once", mark: both, run: func(e *env) {
			e.serve("a")
			conn := e.dial("etcd:///" + e.target)
			e.reaches(conn, "a")
			e.ok(e.manager().DeleteEndpoint(e.ctx, e.key("a")))
			e.eventually(func() error {
				if name, err := e.call(conn); status.Code(err) != codes.Unavailable {
					return fmt.Errorf("called %q, err %v, want UNAVAILABLE", name, err)
				}
				return nil
			})
			e.serve("b")
			e.reaches(conn, "b")
		}},
		{name: "a value that is not JSON harms no neighbour", mark: both, run: func(e *env) {
			e.put(e.key("bad"), "not JSON")
			e.serve("a")
			e.reaches(e.dial("etcd:///"+e.target), "a")
		}},
		{name: "an endpoint whose lease ends gets no more calls", mark: both, run: func(e *env) {
			a, b := startNamedServer(e.t, "a"), startNamedServer(e.t, "b")
			e.add(e.manager(), e.key("a"), a.addr)
			e.add(e.manager(), e.key("b"), b.addr, e.shortLease())
			conn := e.dial("etcd:///" + e.target)
			_, err := e.call(conn)
			e.ok(err)
			e.lists(e.manager(), map[string]string{e.key("a"): a.addr})
			e.reaches(conn, "a")
		}},
		{name: "many channels of one client", mark: both, run: func(e *env) {
			e.serve("a", "b")
			builder := e.builder()
			for range 10 {
				e.reaches(e.dialBy(builder, "etcd:///"+e.target), "a", "b")
			}
		}},

		{name: "a call to an empty service waits for its deadline", mark: theirs, difference: "An empty service fails fast", run: func(e *env) {
			ctx, cancel := context.WithTimeout(e.ctx, 3*time.Second)
			defer cancel()
			_, err := callNamed(ctx, e.dial("etcd:///"+e.target))
			e.same("code", status.Code(err), codes.DeadlineExceeded)
		}},
		{name: "a call to an empty service names service, prefix and revision", mark: ours, difference: "An empty service fails fast", run: func(e *env) {
			_, err := e.call(e.dial("etcd:///" + e.target))
			e.same("code", status.Code(err), codes.Unavailable)
			for _, want := range []string{fmt.Sprintf("%q", e.target), fmt.Sprintf("%q", e.target+"/"), "revision"} {
				if !strings.Contains(err.Error(), want) {
					e.failf("%v does not name %s", err, want)
				}
			}
		}},
		{name: "the first endpoint of an empty service heals its channel", mark: ours, run: func(e *env) {
			conn := e.dial("etcd:///" + e.target)
			if _, err := e.call(conn); status.Code(err) != codes.Unavailable {
				e.failf("got %v", err)
			}
			e.serve("a")
			e.reaches(conn, "a")
		}},
		{name: "`{}` and a stored deletion are not dialled", mark: ours, difference: "Values without an address are no endpoints", run: func(e *env) {
			e.put(e.key("a"), `{}`)
			e.put(e.key("b"), `{"Op":1,"Addr":"127.0.0.1:1"}`)
			e.put(e.key("c"), `{"Addr":"127.0.0.1:2"}`)
			e.shows(e.resolve(), "127.0.0.1:2")
		}},
		{name: "garbage takes an endpoint out of a running channel", mark: ours, difference: "A bad overwrite is a deletion", run: func(e *env) {
			e.put(e.key("a"), `{"Addr":"127.0.0.1:1"}`)
			e.put(e.key("b"), `{"Addr":"127.0.0.1:2"}`)
			c := e.resolve()
			e.shows(c, "127.0.0.1:1", "127.0.0.1:2")
			e.put(e.key("a"), "not JSON")
			e.shows(c, "127.0.0.1:2")
		}},
		{name: "hostile addresses are not dialled", mark: ours, difference: "Only host:port is dialled", run: func(e *env) {
			for i, addr := range []string{"unix:/var/run/docker.sock", "169.254.169.254:80", "[fe80::1%eth0]:80", "http://10.0.0.1:80/",
				"no-port", "dns:///x:1", "0.0.0.0:80", "a:99999", "127.0.0.1:7"} {
				e.ok(e.manager().AddEndpoint(e.ctx, e.key(fmt.Sprint(i)), endpoints.Endpoint{Addr: addr}))
			}
			e.shows(e.resolve(), "127.0.0.1:7")
		}},
		{name: "a socket of this machine is dialled", mark: theirs, difference: "Only host:port is dialled", run: func(e *env) {
			e.add(e.manager(), e.key("a"), "unix:/run/a.sock")
			e.shows(e.resolve(), "unix:/run/a.sock")
		}},
		{name: "one endpoint an address", mark: ours, difference: "One endpoint an address", run: func(e *env) {
			e.add(e.manager(), e.key("a"), "127.0.0.1:1")
			e.add(e.manager(), e.key("b"), "127.0.0.1:1")
			e.shows(e.resolve(), "127.0.0.1:1")
		}},
		{name: "draining endpoints get no calls", mark: ours, difference: "Draining endpoints get no calls", run: func(e *env) {
			a, b := startNamedServer(e.t, "a"), startNamedServer(e.t, "b")
			e.add(e.manager(), e.key("a"), a.addr)
			e.ok(e.manager().AddEndpoint(e.ctx, e.key("b"), endpoints.Endpoint{Addr: b.addr, Metadata: map[string]string{"status": "draining"}}))
			e.shows(e.resolve(), a.addr)
			e.reaches(e.dial("etcd:///"+e.target), "a")
		}},
		{name: "metadata reaches the balancer", mark: ours, difference: "Metadata reaches balancers", run: func(e *env) {
			e.ok(e.manager().AddEndpoint(e.ctx, e.key("a"), endpoints.Endpoint{Addr: "127.0.0.1:1", Metadata: map[string]any{"zone": "z"}}))
			c := e.resolve()
			e.shows(c, "127.0.0.1:1")
			if c.last()[0].Attributes == nil {
				e.failf("the endpoint has no attributes")
			}
		}},
		{name: "writing the same value again is nothing to a channel", mark: ours, difference: "Equal states are skipped", run: func(e *env) {
			e.add(e.manager(), e.key("a"), "127.0.0.1:1")
			c := e.resolve()
			e.shows(c, "127.0.0.1:1")
			before := c.count()
			for range 20 {
				e.add(e.manager(), e.key("a"), "127.0.0.1:1")
			}
			e.add(e.manager(), e.key("b"), "127.0.0.1:2")
			e.shows(c, "127.0.0.1:1", "127.0.0.1:2")
			if n := c.count() - before; n != 1 {
				e.failf("%d states for one change", n)
			}
		}},
		{name: "a trailing slash in a target is dropped", mark: ours, difference: "A trailing slash in a target is dropped", run: func(e *env) {
			e.serve("a")
			e.reaches(e.dial("etcd:///"+e.target+"/"), "a")
		}},
		{name: "a query or fragment in a target is ignored", mark: theirs, difference: "A query or fragment in a target is refused", run: func(e *env) {
			e.serve("a")
			e.reaches(e.dial("etcd:///"+e.target+"?colour=blue"), "a")
			e.reaches(e.dial("etcd:///"+e.target+"#blue"), "a")
		}},
		{name: "a builder needs a client", mark: ours, difference: "NewBuilder(nil) is an error", run: func(e *env) {
			if _, err := e.naming.newBuilder(nil); err == nil {
				e.failf("no error")
			}
		}},
	}
}
