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

	"github.com/rollcall-grpc/rollcall"
	"github.com/rollcall-grpc/rollcall/endpoints"
	"github.com/rollcall-grpc/rollcall/internal/test/e2e/lab"
)

func resolverChecks() []check {
	return []check{
		{name: "the scheme is etcd", mark: both, run: func(e *lab.Env) { e.Same("scheme", e.Builder().Scheme(), "etcd") }},
		{name: "round_robin calls every endpoint", mark: both, run: func(e *lab.Env) {
			e.Serve("a", "b", "c")
			e.Reaches(e.Dial("etcd:///"+e.Target), "a", "b", "c")
		}},
		{name: "endpoints that come are called, those that go are not", mark: both, run: func(e *lab.Env) {
			e.Serve("a")
			conn := e.Dial("etcd:///" + e.Target)
			e.Reaches(conn, "a")
			e.Serve("b")
			e.Reaches(conn, "a", "b")
			e.OK(e.Manager().DeleteEndpoint(e.Ctx, e.Key("a")))
			e.Reaches(conn, "b")
		}},
		{name: "pick_first is the default policy", mark: both, run: func(e *lab.Env) {
			e.Serve("a", "b", "c")
			conn := e.Dial("etcd:///"+e.Target, grpc.WithDefaultServiceConfig("{}"))
			first, err := e.Call(conn)
			e.OK(err)
			e.Reaches(conn, first)
		}},
		{name: "one server is not everybody's first", mark: both, run: func(e *lab.Env) {
			e.Serve("a", "b", "c")
			seen := make(map[string]bool)
			e.Eventually(func() error {
				name, err := e.Call(e.Dial("etcd:///"+e.Target, grpc.WithDefaultServiceConfig("{}")))
				seen[name] = true
				if err == nil && len(seen) < 2 {
					err = fmt.Errorf("only %v", seen)
				}
				return err
			})
		}},
		{name: "etcd:///foo calls foo/bar/my-service/e1", mark: both, run: func(e *lab.Env) {
			a := lab.StartServer(e.T, "a")
			e.Add(e.Manager(), e.Key("bar/my-service/e1"), a.Addr)
			e.Reaches(e.Dial("etcd:///"+e.Target), "a")
		}},
		{name: "a channel sees its own target only", mark: both, run: func(e *lab.Env) {
			e.Serve("a")
			b := lab.StartServer(e.T, "b")
			for _, other := range []string{e.Target + "-2", e.Target + "_other"} {
				e.Add(e.ManagerOf(e.Client, other), other+"/x", b.Addr)
			}
			e.Shows(e.Resolve(), e.Listed(e.Manager())[e.Key("a")])
			e.Reaches(e.Dial("etcd:///"+e.Target), "a")
		}},
		{name: "targets in all spellings", mark: both, run: func(e *lab.Env) {
			e.Serve("a")
			for _, target := range []string{"etcd:" + e.Target, "etcd:/" + e.Target, "etcd://authority/" + e.Target,
				"etcd:///" + strings.ReplaceAll(e.Target, "/", "%2F")} {
				e.Reaches(e.Dial(target), "a")
			}
		}},
		{name: "a target without a name fails calls", mark: both, run: func(e *lab.Env) {
			for _, target := range []string{"etcd:///", "etcd://authority"} {
				if name, err := e.Call(e.Dial(target)); err == nil || e.Ctx.Err() != nil {
					e.Failf("%s reached %q, err %v", target, name, err)
				}
			}
		}},
		{name: "a blocking Dial waits for an endpoint", mark: both, run: func(e *lab.Env) {
			a := lab.StartServer(e.T, "a")
			type outcome struct {
				conn *grpc.ClientConn
				err  error
			}
			dialled := make(chan outcome, 1)
			b := e.Builder()
			go func() {
				conn, err := dialBlocking(e.Ctx, "etcd:///"+e.Target, b)
				dialled <- outcome{conn, err}
			}()
			time.Sleep(quietMoment)
			e.Add(e.Manager(), e.Key("a"), a.Addr)
			o := <-dialled
			e.OK(o.err)
			e.T.Cleanup(func() { o.conn.Close() })
			e.Reaches(o.conn, "a")
		}},
		{name: "calls that wait for ready wait for the first endpoint", mark: both, run: func(e *lab.Env) {
			a := lab.StartServer(e.T, "a")
			conn := e.Dial("etcd:///" + e.Target)
			answered := make(chan error, 1)
			go func() {
				_, err := lab.CallNamed(e.Ctx, conn, grpc.WaitForReady(true))
				answered <- err
			}()
			time.Sleep(quietMoment)
			e.Add(e.Manager(), e.Key("a"), a.Addr)
			e.OK(<-answered)
		}},
		{name: "a service that became empty fails calls at once", mark: both, run: func(e *lab.Env) {
			e.Serve("a")
			conn := e.Dial("etcd:///" + e.Target)
			e.Reaches(conn, "a")
			e.OK(e.Manager().DeleteEndpoint(e.Ctx, e.Key("a")))
			e.Eventually(func() error {
				if name, err := e.Call(conn); status.Code(err) != codes.Unavailable {
					return fmt.Errorf("called %q, err %v, want UNAVAILABLE", name, err)
				}
				return nil
			})
			e.Serve("b")
			e.Reaches(conn, "b")
		}},
		{name: "a value that is not JSON harms no neighbour", mark: both, run: func(e *lab.Env) {
			e.Put(e.Key("bad"), "not JSON")
			e.Serve("a")
			e.Reaches(e.Dial("etcd:///"+e.Target), "a")
		}},
		{name: "an endpoint whose lease ends gets no more calls", mark: both, run: func(e *lab.Env) {
			a, b := lab.StartServer(e.T, "a"), lab.StartServer(e.T, "b")
			e.Add(e.Manager(), e.Key("a"), a.Addr)
			e.Add(e.Manager(), e.Key("b"), b.Addr, e.ShortLease())
			conn := e.Dial("etcd:///" + e.Target)
			_, err := e.Call(conn)
			e.OK(err)
			e.Lists(e.Manager(), map[string]string{e.Key("a"): a.Addr})
			e.Reaches(conn, "a")
		}},
		{name: "many channels of one client", mark: both, run: func(e *lab.Env) {
			e.Serve("a", "b")
			builder := e.Builder()
			for range 10 {
				e.Reaches(e.DialBy(builder, "etcd:///"+e.Target), "a", "b")
			}
		}},

		{name: "a call to an empty service waits for its deadline", mark: theirs, difference: "An empty service fails fast", run: func(e *lab.Env) {
			ctx, cancel := context.WithTimeout(e.Ctx, 3*time.Second)
			defer cancel()
			_, err := lab.CallNamed(ctx, e.Dial("etcd:///"+e.Target))
			e.Same("code", status.Code(err), codes.DeadlineExceeded)
		}},
		{name: "a call to an empty service names service, prefix and revision", mark: ours, difference: "An empty service fails fast", run: func(e *lab.Env) {
			_, err := e.Call(e.Dial("etcd:///" + e.Target))
			e.Same("code", status.Code(err), codes.Unavailable)
			for _, want := range []string{fmt.Sprintf("%q", e.Target), fmt.Sprintf("%q", e.Target+"/"), "revision"} {
				if !strings.Contains(err.Error(), want) {
					e.Failf("%v does not name %s", err, want)
				}
			}
		}},
		{name: "the first endpoint of an empty service heals its channel", mark: ours, run: func(e *lab.Env) {
			conn := e.Dial("etcd:///" + e.Target)
			if _, err := e.Call(conn); status.Code(err) != codes.Unavailable {
				e.Failf("got %v", err)
			}
			e.Serve("a")
			e.Reaches(conn, "a")
		}},
		{name: "`{}` and a stored deletion are not dialled", mark: ours, difference: "Values without an address are no endpoints", run: func(e *lab.Env) {
			e.Put(e.Key("a"), `{}`)
			e.Put(e.Key("b"), `{"Op":1,"Addr":"127.0.0.1:1"}`)
			e.Put(e.Key("c"), `{"Addr":"127.0.0.1:2"}`)
			e.Shows(e.Resolve(), "127.0.0.1:2")
		}},
		{name: "garbage takes an endpoint out of a running channel", mark: ours, difference: "A bad overwrite is a deletion", run: func(e *lab.Env) {
			e.Put(e.Key("a"), `{"Addr":"127.0.0.1:1"}`)
			e.Put(e.Key("b"), `{"Addr":"127.0.0.1:2"}`)
			c := e.Resolve()
			e.Shows(c, "127.0.0.1:1", "127.0.0.1:2")
			e.Put(e.Key("a"), "not JSON")
			e.Shows(c, "127.0.0.1:2")
		}},
		{name: "hostile addresses are not dialled", mark: ours, difference: "Only host:port is dialled", run: func(e *lab.Env) {
			for i, addr := range []string{"unix:/var/run/docker.sock", "169.254.169.254:80", "[fe80::1%eth0]:80", "http://10.0.0.1:80/",
				"no-port", "dns:///x:1", "0.0.0.0:80", "a:99999", "127.0.0.1:7"} {
				e.OK(e.Manager().AddEndpoint(e.Ctx, e.Key(fmt.Sprint(i)), endpoints.Endpoint{Addr: addr}))
			}
			e.Shows(e.Resolve(), "127.0.0.1:7")
		}},
		{name: "a socket of this machine is dialled", mark: theirs, difference: "Only host:port is dialled", run: func(e *lab.Env) {
			e.Add(e.Manager(), e.Key("a"), "unix:/run/a.sock")
			e.Shows(e.Resolve(), "unix:/run/a.sock")
		}},
		{name: "one endpoint an address", mark: ours, difference: "One endpoint an address", run: func(e *lab.Env) {
			e.Add(e.Manager(), e.Key("a"), "127.0.0.1:1")
			e.Add(e.Manager(), e.Key("b"), "127.0.0.1:1")
			e.Shows(e.Resolve(), "127.0.0.1:1")
		}},
		{name: "draining endpoints get no calls", mark: ours, difference: "Draining endpoints get no calls", run: func(e *lab.Env) {
			a, b := lab.StartServer(e.T, "a"), lab.StartServer(e.T, "b")
			e.Add(e.Manager(), e.Key("a"), a.Addr)
			e.OK(e.Manager().AddEndpoint(e.Ctx, e.Key("b"), endpoints.Endpoint{Addr: b.Addr, Metadata: map[string]string{"status": "draining"}}))
			e.Shows(e.Resolve(), a.Addr)
			e.Reaches(e.Dial("etcd:///"+e.Target), "a")
		}},
		{name: "metadata reaches the balancer", mark: ours, difference: "Metadata reaches balancers", run: func(e *lab.Env) {
			e.OK(e.Manager().AddEndpoint(e.Ctx, e.Key("a"), endpoints.Endpoint{Addr: "127.0.0.1:1", Metadata: map[string]any{"zone": "z"}}))
			c := e.Resolve()
			e.Shows(c, "127.0.0.1:1")
			if c.Last()[0].Attributes == nil {
				e.Failf("the endpoint has no attributes")
			}
		}},
		{name: "writing the same value again is nothing to a channel", mark: ours, difference: "Equal states are skipped", run: func(e *lab.Env) {
			e.Add(e.Manager(), e.Key("a"), "127.0.0.1:1")
			c := e.Resolve()
			e.Shows(c, "127.0.0.1:1")
			before := c.Count()
			for range 20 {
				e.Add(e.Manager(), e.Key("a"), "127.0.0.1:1")
			}
			e.Add(e.Manager(), e.Key("b"), "127.0.0.1:2")
			e.Shows(c, "127.0.0.1:1", "127.0.0.1:2")
			if n := c.Count() - before; n != 1 {
				e.Failf("%d states for one change", n)
			}
		}},
		{name: "a trailing slash in a target is dropped", mark: ours, difference: "A trailing slash in a target is dropped", run: func(e *lab.Env) {
			e.Serve("a")
			e.Reaches(e.Dial("etcd:///"+e.Target+"/"), "a")
		}},
		{name: "a query or fragment in a target is ignored", mark: theirs, difference: "A query in a target selects, a fragment is refused", run: func(e *lab.Env) {
			e.Serve("a")
			e.Reaches(e.Dial("etcd:///"+e.Target+"?colour=blue"), "a")
			e.Reaches(e.Dial("etcd:///"+e.Target+"#blue"), "a")
		}},
		{name: "a stored service config is followed", mark: ours, difference: "Keys under _grpc_config/ are service configs", run: func(e *lab.Env) {
			e.Serve("a", "b")
			conn := e.Dial("etcd:///"+e.Target, grpc.WithDefaultServiceConfig("{}"))
			e.Put(rollcall.ConfigPrefix+e.Target, `{"loadBalancingConfig":[{"round_robin":{}}]}`)
			e.Reaches(conn, "a", "b")
		}},
		{name: "a builder needs a client", mark: ours, difference: "NewBuilder(nil) is an error", run: func(e *lab.Env) {
			if _, err := e.Naming.NewBuilder(nil); err == nil {
				e.Failf("no error")
			}
		}},
	}
}
