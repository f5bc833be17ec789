// SPDX-FileCopyrightText: The Rollcall Authors
// SPDX-License-Identifier: Apache-2.0

//go:build linux

package polyglot_test

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/netip"
	"net/url"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	clientv3 "go.etcd.io/etcd/client/v3"
	"golang.org/x/sys/unix"
	"google.golang.org/grpc"
	"google.golang.org/grpc/peer"
	"google.golang.org/protobuf/types/known/wrapperspb"

	"github.com/rollcall-grpc/rollcall"
	"github.com/rollcall-grpc/rollcall/internal/test/e2e/lab"
	"github.com/rollcall-grpc/rollcall/internal/test/etcdtest"
	"github.com/rollcall-grpc/rollcall/xds"
)

// fixture is an etcd and two xDS replicas at one address.
type fixture struct {
	t        *testing.T
	etcd     *etcdtest.Cluster
	client   *clientv3.Client
	addr     string
	replicas []*replica
}

// subset is how many endpoints of a service a client is sent at most.
const subset = 200

func newFixture(t *testing.T) *fixture {
	t.Helper()
	f := &fixture{t: t, etcd: etcdtest.New(t, etcdtest.Options{}), addr: "127.0.0.1:0"}
	f.client = lab.Client(t, f.etcd.Endpoints()...)
	f.replicas = []*replica{f.replica(), f.replica()}
	return f
}

// replica is an xDS server. Others listen at the same address, as behind a load balancer.
type replica struct {
	server *xds.Server
	kill   func()
}

func (f *fixture) replica() *replica {
	f.t.Helper()
	shared := net.ListenConfig{Control: func(_, _ string, c syscall.RawConn) error {
		var failure error
		err := c.Control(func(fd uintptr) { failure = unix.SetsockoptInt(int(fd), unix.SOL_SOCKET, unix.SO_REUSEPORT, 1) })
		return errors.Join(err, failure)
	}}
	lis, err := shared.Listen(f.t.Context(), "tcp", f.addr)
	if err != nil {
		f.t.Fatal(err)
	}
	f.addr = lis.Addr().String()
	client, err := rollcall.NewClient(rollcall.ClientConfig(f.etcd.Endpoints()...))
	if err != nil {
		f.t.Fatal(err)
	}
	directory, err := rollcall.NewDirectory(client, rollcall.DirectoryOptions{})
	if err != nil {
		f.t.Fatal(err)
	}
	r := new(replica)
	var log strings.Builder // of one handler, which writes a line at a time
	if r.server, err = xds.NewServer(directory, xds.Options{Subset: subset, LookupHost: lookUp, Authorize: authorize, Logger: slog.New(slog.NewTextHandler(&log, nil))}); err != nil {
		f.t.Fatal(err)
	}
	srv := grpc.NewServer()
	r.server.Register(srv)
	var serving sync.WaitGroup
	serving.Go(func() { _ = srv.Serve(lis) })
	r.kill = sync.OnceFunc(func() {
		srv.Stop()
		serving.Wait()
		r.server.Close()
		if n := r.server.Stats().Rejections; n > 0 {
			f.t.Errorf("clients have rejected %d responses:\n%s", n, &log)
		}
		directory.Close()
		client.Close()
	})
	f.t.Cleanup(r.kill)
	return r
}

// lookUp knows one host, of two addresses.
func lookUp(_ context.Context, host string) ([]netip.Addr, error) {
	if host == "known.test" {
		return []netip.Addr{netip.MustParseAddr("127.0.0.1"), netip.MustParseAddr("::1")}, nil
	}
	return nil, fmt.Errorf("no such host: %s", host)
}

func authorize(_ context.Context, service string) error {
	if service == "forbidden" {
		return errors.New("this client may not ask for forbidden")
	}
	return nil
}

// greeter is a server of greeter.proto, which says at which of its addresses it was called.
var greeter = grpc.ServiceDesc{
	ServiceName: "greeter.Greeter",
	HandlerType: (*any)(nil),
	Methods: []grpc.MethodDesc{{
		MethodName: "Greet",
		Handler: func(_ any, ctx context.Context, decode func(any) error, _ grpc.UnaryServerInterceptor) (any, error) {
			name := new(wrapperspb.StringValue)
			if err := decode(name); err != nil {
				return nil, err
			}
			p, _ := peer.FromContext(ctx)
			return wrapperspb.String(fmt.Sprintf("hello %s, this is %s", name.Value, p.LocalAddr)), nil
		},
	}},
}

// backend is a server of the greeter.
type backend struct {
	addr string
	stop func() // at once
}

// listen returns a listener, at any port of 127.0.0.1 for "".
func listen(t *testing.T, addr string) net.Listener {
	t.Helper()
	if addr == "" {
		addr = "127.0.0.1:0"
	}
	lis, err := net.Listen("tcp4", addr)
	if err != nil {
		t.Fatal(err)
	}
	return lis
}

func start(t *testing.T, addr string) *backend {
	t.Helper()
	lis := listen(t, addr)
	srv := grpc.NewServer()
	srv.RegisterService(&greeter, nil)
	var serving sync.WaitGroup
	serving.Go(func() { _ = srv.Serve(lis) })
	b := &backend{addr: lis.Addr().String(), stop: func() {
		srv.Stop()
		serving.Wait()
	}}
	t.Cleanup(b.stop)
	return b
}

// put writes an endpoint and returns when that began.
func (f *fixture) put(key, addr, metadata string) (since time.Time) {
	f.t.Helper()
	since = time.Now()
	lab.PutValue(f.t, f.client, key, fmt.Sprintf(`{"Op":0,"Addr":%q,"Metadata":%s}`, addr, metadata))
	return since
}

// remove deletes endpoints and returns when that began.
func (f *fixture) remove(keys ...string) (since time.Time) {
	f.t.Helper()
	since = time.Now()
	var ops []clientv3.Op
	for _, key := range keys {
		ops = append(ops, clientv3.OpDelete(key))
	}
	if _, err := f.client.Txn(lab.Context(f.t)).Then(ops...).Commit(); err != nil {
		f.t.Fatal(err)
	}
	return since
}

// fleet starts the clients of all languages in a zone. "LANGUAGE" in a target is replaced.
func (f *fixture) fleet(target, zone string, args ...string) (fl fleet) {
	f.t.Helper()
	for _, l := range present() {
		own := strings.ReplaceAll(target, "LANGUAGE", url.PathEscape(l.name))
		fl = append(fl, l.run(f.t, f.bootstrap(l, zone), append(slices.Clone(args), own)...))
	}
	return fl
}

func (f *fixture) bootstrap(l *language, zone string) string {
	return fmt.Sprintf(`{
		"xds_servers": [{"server_uri": %q, "channel_creds": [{"type": "insecure"}], "server_features": ["xds_v3"]}],
		"authorities": {"etcd": {"client_listener_resource_name_template": "xdstp://etcd/envoy.config.listener.v3.Listener/%%s"}},
		"node": {"id": %q, "locality": {"zone": %q}}}`, f.addr, strings.ToLower(l.name), zone)
}
