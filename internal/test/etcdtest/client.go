// SPDX-FileCopyrightText: The Rollcall Authors
// SPDX-License-Identifier: Apache-2.0

package etcdtest

import (
	"bytes"
	"context"
	"os/exec"
	"strings"
	"testing"
	"time"

	clientv3 "go.etcd.io/etcd/client/v3"
	"go.uber.org/zap"
	"google.golang.org/grpc"
	"google.golang.org/grpc/backoff"
)

// toolTimeout bounds a run of etcdctl or etcdutl.
const toolTimeout = 60 * time.Second

// Client returns a client of all members, closed when tb ends, with the certificate that
// Options.TLS requires and without a user (see Auth.Client). It logs nothing and reconnects within
// a second after a member is back; mutate may change the configuration.
func (c *Cluster) Client(tb testing.TB, mutate ...func(*clientv3.Config)) *clientv3.Client {
	tb.Helper()
	cfg := c.config(c.Endpoints()...)
	for _, m := range mutate {
		m(&cfg)
	}
	client, err := clientv3.New(cfg)
	if err != nil {
		tb.Fatalf("etcdtest: client: %v", err)
	}
	tb.Cleanup(func() { client.Close() })
	return client
}

func (c *Cluster) config(endpoints ...string) clientv3.Config {
	cfg := clientConfig(endpoints...)
	if c.ca != nil {
		cfg.TLS = c.ca.ClientConfig(c.cert)
	}
	return cfg
}

// rootConfig is the configuration for requests of the test itself.
func (c *Cluster) rootConfig(endpoints ...string) clientv3.Config {
	cfg := c.config(endpoints...)
	if c.root != nil {
		c.root.As(rootUser)(&cfg)
		cfg.DialTimeout = 2 * time.Second // New requests a token, and a member may be down
	}
	return cfg
}

func clientConfig(endpoints ...string) clientv3.Config {
	return clientv3.Config{
		Endpoints: endpoints,
		Logger:    zap.NewNop(),
		DialOptions: []grpc.DialOption{grpc.WithConnectParams(grpc.ConnectParams{
			Backoff:           backoff.Config{BaseDelay: 50 * time.Millisecond, Multiplier: 1.6, Jitter: 0.2, MaxDelay: time.Second},
			MinConnectTimeout: 3 * time.Second,
		})},
	}
}

// Etcdctl runs etcdctl on all members, as root if authentication is on, and returns its stdout. The
// test fails if etcdctl does.
func (c *Cluster) Etcdctl(tb testing.TB, args ...string) string {
	tb.Helper()
	return c.etcdctl(tb, c.Endpoints(), args...)
}

func (c *Cluster) etcdctl(tb testing.TB, endpoints []string, args ...string) string {
	tb.Helper()
	flags := []string{"--endpoints=" + strings.Join(endpoints, ",")}
	if c.ca != nil {
		flags = append(flags, "--cacert="+c.ca.File(), "--cert="+c.cert.CertFile, "--key="+c.cert.KeyFile)
	}
	if c.root != nil {
		flags = append(flags, "--user="+rootUser+":"+c.root.passwords[rootUser])
	}
	return run(tb, "etcdctl", append(flags, args...)...)
}

// Etcdutl runs etcdutl and returns its stdout. The test fails if etcdutl does.
func Etcdutl(tb testing.TB, args ...string) string {
	tb.Helper()
	return run(tb, "etcdutl", args...)
}

func run(tb testing.TB, name string, args ...string) string {
	tb.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), toolTimeout)
	defer cancel()
	cmd := exec.CommandContext(ctx, Binary(tb, name), args...)
	cmd.Env = cleanEnv()
	var stdout, stderr bytes.Buffer
	cmd.Stdout, cmd.Stderr = &stdout, &stderr
	if err := cmd.Run(); err != nil {
		tb.Fatalf("etcdtest: %s %s: %v\n%s%s", name, strings.Join(args, " "), err, &stdout, &stderr)
	}
	return stdout.String()
}
