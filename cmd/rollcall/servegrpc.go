// SPDX-FileCopyrightText: The Rollcall Authors
// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"os"
	"strings"
	"syscall"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/channelz/service"
	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/health"
	healthpb "google.golang.org/grpc/health/grpc_health_v1"
	"google.golang.org/grpc/keepalive"
	"google.golang.org/grpc/reflection"

	"github.com/rollcall-grpc/rollcall"
	"github.com/rollcall-grpc/rollcall/internal/console"
	rollcallprom "github.com/rollcall-grpc/rollcall/metrics/prometheus"
	"github.com/rollcall-grpc/rollcall/resolver"
	"github.com/rollcall-grpc/rollcall/xds"
)

// bridge is a server of xDS: listeners, a gRPC server and an admin server.
type bridge struct {
	flags     serveFlags
	log       *slog.Logger
	files     []refresher // what is read again when it changes
	creds     credentials.TransportCredentials
	rules     *fileValue[rules] // nil: everything is allowed
	xds       *xds.Server
	listeners []net.Listener
	ready     *readiness
	directory *rollcall.Directory
	clock     revisionClock
	discovery *discovery
	admin     *admin
	console   *consoleServer
	grpc      *grpc.Server
	probe     *rollcall.ConfigDelivery
}

// newBridge reads the files and listens, so that mistakes in either are told at once. The caller
// runs the bridge and closes it. What pages and Prometheus ask for is followed by a Directory of its
// own, views, which is not in the metrics: that somebody looks at a service raises no alert.
func newBridge(f serveFlags, directory, views *rollcall.Directory, calls *rollcallprom.EtcdCalls, log *slog.Logger) (_ *bridge, err error) {
	b := &bridge{flags: f, log: log, directory: directory, discovery: newDiscovery(views),
		creds: insecure.NewCredentials(), ready: newReadiness(health.NewServer())}
	if err := b.readFiles(); err != nil {
		return nil, fail(exitUsage, "%v", err)
	}
	opts := f.xds
	opts.Logger = log
	if b.rules != nil {
		opts.Authorize = func(ctx context.Context, service string) error { return b.rules.get().authorize(ctx, service) }
	}
	if b.xds, err = xds.NewServer(directory, opts); err != nil {
		return nil, err
	}
	defer func() {
		if err != nil {
			b.close()
		}
	}()
	for _, addr := range f.xdsAddrs() {
		lis, err := f.listen(addr)
		if err != nil {
			return nil, err
		}
		b.listeners = append(b.listeners, lis)
	}
	if b.admin, err = newAdmin(f.admin, b.adminPages(metricsHandler(directory, f.metricsServices, calls, b.xds, b.ready))); err != nil {
		return nil, err
	}
	if b.console, err = newConsoleServer(f.console, views, b.consoleOptions()); err != nil {
		return nil, err
	}
	b.files = append(b.files, b.console.watched()...)
	b.grpc = b.newGRPCServer()
	if b.probe, err = directory.SubscribeServiceConfigFunc(probeService, b.ready.observe); err != nil {
		return nil, err
	}
	return b, nil
}

func (b *bridge) readFiles() error {
	if f := b.flags; f.cert != "" {
		cert, err := newTLSFiles("--grpc", f.cert, f.key, f.clientCA)
		if err != nil {
			return err
		}
		b.files = append(b.files, cert)
		b.creds = newServerCredentials(cert)
	}
	if b.flags.rules != "" {
		var err error
		if b.rules, err = newFileValue("--xds-allow", parseRules, b.flags.rules); err != nil {
			return err
		}
		b.files = append(b.files, b.rules)
	}
	return nil
}

// close releases what newBridge has made.
func (b *bridge) close() {
	if b.probe != nil {
		b.probe.Close()
	}
	b.discovery.close()
	b.xds.Close()
	for _, lis := range b.listeners {
		_ = lis.Close()
	}
	b.admin.close()
	b.console.close()
}

// newGRPCServer returns a gRPC server for very many connections, most of them quiet, from
// clients that may be hostile.
func (b *bridge) newGRPCServer() *grpc.Server {
	srv := grpc.NewServer(
		grpc.Creds(b.creds),
		xds.ServerOption(),
		grpc.ConnectionTimeout(stopTimeout), // of TLS and HTTP/2's preface, which Stop waits for
		grpc.MaxRecvMsgSize(1<<20),
		grpc.MaxHeaderListSize(64<<10),
		grpc.MaxConcurrentStreams(100), // what a client does not read piles up for each
		grpc.ReadBufferSize(4<<10),     // of each connection
		grpc.KeepaliveEnforcementPolicy(keepalive.EnforcementPolicy{MinTime: 10 * time.Second, PermitWithoutStream: true}),
		grpc.KeepaliveParams(keepalive.ServerParameters{
			Time:              time.Minute, // finds clients that are gone without a word
			Timeout:           20 * time.Second,
			MaxConnectionIdle: 5 * time.Minute,
			MaxConnectionAge:  b.flags.maxConnectionAge, // with gRPC's jitter of 10 %

			// By then a client has another connection. Its stream never ends by itself.
			MaxConnectionAgeGrace: min(10*time.Second, b.flags.maxConnectionAge),
		}))
	b.xds.Register(srv)
	healthpb.RegisterHealthServer(srv, b.ready.health)
	if b.flags.reflection {
		reflection.Register(srv)
	}
	if b.flags.channelz {
		service.RegisterChannelzServiceToServer(srv)
	}
	return srv
}

// where returns what is listened at.
func (b *bridge) where() string {
	if len(b.listeners) == 0 {
		return "no xDS address"
	}
	var all []string
	for _, lis := range b.listeners {
		if lis.Addr().Network() == "unix" {
			all = append(all, "unix:"+lis.Addr().String())
			continue
		}
		how := "plaintext"
		switch {
		case b.flags.clientCA != "":
			how = "TLS, for clients with a certificate"
		case b.flags.cert != "":
			how = "TLS"
		}
		all = append(all, fmt.Sprintf("%s (%s)", lis.Addr(), how))
	}
	return "serving xDS at " + strings.Join(all, " and ")
}

// consoleOptions are what the page shows of this process.
func (b *bridge) consoleOptions() console.Options {
	opts := console.Options{Logger: b.log, CheckConfig: resolver.CheckServiceConfig, Clock: &b.clock.Clock}
	if len(b.listeners) > 0 {
		opts.Clients = func() []console.Client { return consoleClients(b.xds.Clients(), time.Now()) }
	}
	return opts
}

// followFiles reads files again when they change, until the context ends.
func (b *bridge) followFiles(ctx context.Context) {
	ticker := time.NewTicker(refreshPeriod)
	defer ticker.Stop()
	for {
		select {
		case <-ticker.C:
			for _, file := range b.files {
				file.refresh(b.log)
			}
		case <-ctx.Done():
			return
		}
	}
}

// listen listens at an address of --xds.
func (f *serveFlags) listen(addr string) (net.Listener, error) {
	if path, ok := strings.CutPrefix(addr, "unix:"); ok {
		if path = strings.TrimPrefix(path, "//"); path == "" {
			return nil, fail(exitUsage, "--xds %s: the path is missing; write unix:/run/rollcall.sock", addr)
		}
		return listenUnix(addr, path)
	}
	tcp, err := net.ResolveTCPAddr("tcp", addr)
	if err != nil {
		return nil, fail(exitUsage, "--xds %s: %v; write HOST:PORT or unix:PATH", addr, err)
	}
	if !tcp.IP.IsLoopback() && f.cert == "" && !f.insecure {
		return nil, fail(exitUsage, "--xds %s: others than loopback are served over TLS: give --grpc-cert and --grpc-key, or --xds-insecure", addr)
	}
	return listenTCP("--xds", addr)
}

// listenTCP listens at the address that a flag gives.
func listenTCP(flag, addr string) (net.Listener, error) {
	lis, err := net.Listen("tcp", addr)
	if err != nil {
		return nil, cannotListen(flag, addr, err)
	}
	if host, _, _ := net.SplitHostPort(addr); host == net.IPv4zero.String() {
		return everywhere{lis}, nil
	}
	return lis, nil
}

// everywhere is a listener at 0.0.0.0 that keeps this name; the system calls it [::].
type everywhere struct{ net.Listener }

func (l everywhere) Addr() net.Addr {
	return &net.TCPAddr{IP: net.IPv4zero, Port: l.Listener.Addr().(*net.TCPAddr).Port}
}

// listenUnix listens at a unix socket. That of a process that was killed is replaced; a file that
// is not a socket stays, though connecting to it is refused as well.
func listenUnix(addr, path string) (net.Listener, error) {
	lis, err := net.Listen("unix", path)
	if errors.Is(err, syscall.EADDRINUSE) {
		if info, err := os.Lstat(path); err == nil && info.Mode().Type() != os.ModeSocket {
			return nil, fail(exitOther, "--xds %s: there is a file that is not a socket: move it away or choose another path", addr)
		}
		conn, dialErr := net.Dial("unix", path)
		if dialErr == nil {
			_ = conn.Close()
		} else if errors.Is(dialErr, syscall.ECONNREFUSED) && os.Remove(path) == nil {
			lis, err = net.Listen("unix", path)
		}
	}
	if err != nil {
		return nil, cannotListen("--xds", addr, err)
	}
	return lis, nil
}

func cannotListen(flag, addr string, err error) error {
	var op *net.OpError
	if errors.As(err, &op) {
		err = op.Err
	}
	if errors.Is(err, syscall.EADDRINUSE) {
		guess := "another rollcall serve"
		if addr == defaultAdminAddr {
			guess += ", or kubeadm's etcd, which has its metrics there"
		}
		return fail(exitOther, "%s %s: the address is in use, perhaps by %s: choose another address", flag, addr, guess)
	}
	return fail(exitOther, "%s %s: cannot listen: %v", flag, addr, err)
}
