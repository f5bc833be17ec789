// SPDX-FileCopyrightText: The Rollcall Authors
// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"

	"github.com/rollcall-grpc/rollcall"
	rollcallprom "github.com/rollcall-grpc/rollcall/metrics/prometheus"
	"github.com/rollcall-grpc/rollcall/xds"
)

// Addresses of serve, unless others are given.
const (
	defaultXDSAddr   = "127.0.0.1:18000"
	defaultAdminAddr = "127.0.0.1:2381"
)

// Of SIGTERM's at most 10 s: clients get goAwayDelay to learn that their connection is to be
// left before their streams end, and stopTimeout to leave it.
const (
	goAwayDelay = 500 * time.Millisecond
	stopTimeout = 5 * time.Second
)

// serveFlags are the flags of serve.
type serveFlags struct {
	addrs                []string
	insecure             bool
	cert, key, clientCA  string
	rules                string
	admin                string
	metricsServices      int
	reflection, channelz bool
	maxConnectionAge     time.Duration
	console              consoleFlags
	xds                  xds.Options
}

// xdsAddrs returns where xDS is served, without what --xds "" stands for.
func (f *serveFlags) xdsAddrs() []string {
	return slices.DeleteFunc(slices.Clone(f.addrs), func(addr string) bool { return addr == "" })
}

func newServe(a *app) *cobra.Command {
	var f serveFlags
	cmd := &cobra.Command{
		Use:   "serve [--xds ADDR]... [--console ADDR]",
		Short: "Serve what etcd holds as xDS, for gRPC in any language, and as a page",
		Long: "serve is an xDS server: with it as the control plane, gRPC clients in any language find by\n" +
			"xds:///my-service what Go clients find by etcd:///my-service. See rollcall xds bootstrap\n" +
			"for what a client needs. It has no state of its own: run several. It starts while etcd is\n" +
			"down, and goes on with what it knows when etcd goes down later. On SIGTERM it has\n" +
			"clients go to another replica and exits with 0 within 10 s.\n\n" +
			"ADDR is HOST:PORT or unix:PATH, '' for none. Without a certificate only loopback addresses and unix\n" +
			"sockets are served, unless --xds-insecure is given; unix sockets never use TLS. Files are\n" +
			"read again when they change. With --grpc-client-ca, clients must have a certificate; of\n" +
			"--xds-allow each line is a name in a client's certificate (DNS name or URI), and the\n" +
			"prefixes of the services that it may ask for:\n\n" +
			"  spiffe://example.org/shop   shop/ pay/cards     # a comment\n" +
			"  *                           public/             # any client\n" +
			"  ops.example.org             *                   # any service\n\n" +
			"A change of the rules applies to what clients ask for from then on.\n\n" +
			"The admin address has /livez, /readyz (200 once etcd has answered), /metrics and\n" +
			"/prometheus/sd (targets for http_sd) for Prometheus, /xds/clients, /revisions (when etcd told\n" +
			"which, for rollcall history) and, for requests from loopback, /debug/pprof/; the gRPC port has\n" +
			"the health service, with the same answer as /readyz. On loopback, ask by an IP address or\n" +
			"localhost, not by another name.\n\n" +
			consoleHelp,
		Example: "  rollcall serve\n" +
			"  rollcall serve --xds 10.0.0.7:18000 --grpc-cert tls.crt --grpc-key tls.key --grpc-client-ca ca.crt\n" +
			"  rollcall serve --xds unix:/run/rollcall.sock --admin ''\n" +
			"  rollcall serve --xds '' --console 127.0.0.1:2382",
		Args: usageArgs(cobra.NoArgs),
		RunE: func(cmd *cobra.Command, _ []string) error {
			return a.serve(cmd.Context(), f)
		},
	}
	flags := cmd.Flags()
	flags.StringArrayVar(&f.addrs, "xds", []string{defaultXDSAddr}, "where clients connect; may be repeated")
	flags.BoolVar(&f.insecure, "xds-insecure", false, "serve others than loopback without TLS")
	flags.StringVar(&f.cert, "grpc-cert", "", "file of the server's certificate")
	flags.StringVar(&f.key, "grpc-key", "", "file of the server's key")
	flags.StringVar(&f.clientCA, "grpc-client-ca", "", "file of the CA that signs clients' certificates, which they then need")
	flags.StringVar(&f.rules, "xds-allow", "", "file of rules: which client may ask for which services (default: all for all)")
	markFiles(flags, "grpc-cert", "grpc-key", "grpc-client-ca", "xds-allow")
	flags.IntVar(&f.xds.MaxStreams, "xds-max-streams", 20_000, "the most streams; clients beyond are refused")
	flags.IntVar(&f.xds.MaxNames, "xds-max-names", 1000, "the most resources of one type that a stream may ask for")
	addSubset(flags, &f.xds.Subset)
	flags.DurationVar(&f.xds.PushInterval, "xds-push-interval", 100*time.Millisecond, "the least time between changes that a client is sent")
	flags.DurationVar(&f.maxConnectionAge, "xds-max-connection-age", 30*time.Minute, "when clients are to connect anew, to spread over replicas")
	flags.BoolVar(&f.reflection, "grpc-reflection", false, "serve gRPC reflection")
	flags.BoolVar(&f.channelz, "grpc-channelz", false, "serve gRPC channelz")
	flags.IntVar(&f.metricsServices, "metrics-services", 1000, "the most services with metrics of their own; 0: none")
	flags.StringVar(&f.admin, "admin", defaultAdminAddr, `address for probes and people, HTTP; "" for none`)
	f.console.add(flags)
	return cmd
}

// validate checks what needs no file.
func (f *serveFlags) validate() error {
	switch {
	case (f.cert == "") != (f.key == ""):
		return fail(exitUsage, "--grpc-cert and --grpc-key go together; give both")
	case f.clientCA != "" && f.cert == "":
		return fail(exitUsage, "--grpc-client-ca needs --grpc-cert and --grpc-key: clients show certificates over TLS only")
	case f.rules != "" && f.clientCA == "":
		return fail(exitUsage, "--xds-allow needs --grpc-client-ca: without it, clients have no names")
	case f.insecure && f.cert != "":
		return fail(exitUsage, "--xds-insecure and --grpc-cert exclude each other; serve plaintext beside TLS on a unix socket")
	case len(f.xdsAddrs()) == 0 && f.admin == "" && f.console.addr == "":
		return fail(exitUsage, "there is nothing to serve: give --xds, --admin or --console an address")
	case f.maxConnectionAge < time.Second:
		return fail(exitUsage, "--xds-max-connection-age %v: must be at least 1s", f.maxConnectionAge)
	case f.metricsServices < 0:
		return fail(exitUsage, "--metrics-services %d: must be at least 0", f.metricsServices)
	case f.xds.PushInterval < time.Millisecond:
		return fail(exitUsage, "--xds-push-interval %v: must be at least 1ms", f.xds.PushInterval)
	}
	for _, n := range []struct {
		flag  string
		value int
	}{{"--xds-max-streams", f.xds.MaxStreams}, {"--xds-max-names", f.xds.MaxNames}, {"--xds-subset", f.xds.Subset}} {
		if err := atLeastOne(n.flag, n.value); err != nil {
			return err
		}
	}
	return f.console.validate()
}

func addSubset(flags *pflag.FlagSet, n *int) {
	flags.IntVar(n, "xds-subset", 2000, "the most endpoints of a service that a client is sent")
}

func atLeastOne(flag string, n int) error {
	if n < 1 {
		return fail(exitUsage, "%s %d: must be at least 1", flag, n)
	}
	return nil
}

// serve serves until the context ends.
func (a *app) serve(ctx context.Context, f serveFlags) error {
	if err := f.validate(); err != nil {
		return err
	}
	log := slog.New(slog.NewTextHandler(a.stderr, nil))
	calls := rollcallprom.NewEtcdCalls()
	client, err := a.client(calls.DialOptions()...)
	if err != nil {
		return err
	}
	defer client.Close()
	directory, err := rollcall.NewDirectory(client, rollcall.DirectoryOptions{Logger: log})
	if err != nil {
		return err
	}
	defer directory.Close()
	views, err := rollcall.NewDirectory(client, rollcall.DirectoryOptions{Logger: log.With("of", "console and /prometheus/sd")})
	if err != nil {
		return err
	}
	defer views.Close()
	f.console.logIn = a.clientOf
	b, err := newBridge(f, directory, views, calls, log)
	if err != nil {
		return err
	}
	defer b.close()
	a.say("%s; %s; %setcd at %s", b.where(), b.admin.where(), b.console.where(), strings.Join(a.endpoints, ", "))
	return b.run(ctx)
}

// run serves until the context ends, then has the clients leave.
func (b *bridge) run(ctx context.Context) error {
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	var running sync.WaitGroup
	running.Go(func() { b.followFiles(ctx) })
	running.Go(func() { b.clock.Follow(ctx, b.directory) })
	for _, lis := range b.listeners {
		running.Go(func() {
			if err := b.grpc.Serve(lis); err != nil {
				cancel(fmt.Errorf("serve xDS at %s: %w", lis.Addr(), err))
			}
		})
	}
	running.Go(func() {
		if err := b.admin.serve(); err != nil {
			cancel(fmt.Errorf("serve --admin %s: %w", b.admin.lis.Addr(), err))
		}
	})
	running.Go(func() {
		if err := b.console.serve(); err != nil {
			cancel(fmt.Errorf("serve --console %s: %w", b.console.lis.Addr(), err))
		}
	})
	<-ctx.Done()
	b.stop()
	running.Wait()
	if cause := context.Cause(ctx); !isSignal(cause) && !errors.Is(cause, context.Canceled) {
		return cause
	}
	return nil
}

// stop ends serving. Streams never end by themselves: clients are told to leave first, so that
// those who do not wait for the end of their stream have another connection by then.
func (b *bridge) stop() {
	b.ready.end()
	b.console.close()
	stopped := make(chan struct{})
	go func() {
		defer close(stopped)
		b.grpc.GracefulStop()
	}()
	time.Sleep(goAwayDelay)
	b.xds.Close()
	select {
	case <-stopped:
	case <-time.After(stopTimeout):
		b.grpc.Stop()
		<-stopped
	}
	b.admin.close()
}
