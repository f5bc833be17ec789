// SPDX-FileCopyrightText: The Rollcall Authors
// SPDX-License-Identifier: Apache-2.0

package etcdtest

import (
	"context"
	"net"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	clientv3 "go.etcd.io/etcd/client/v3"
)

// Proxy is an etcd grpc-proxy. It speaks plain text on both sides.
type Proxy struct {
	Server
}

// StartProxy runs a grpc-proxy in front of endpoints, host:port each, and waits until it
// answers. It is stopped when the test ends.
func StartProxy(tb testing.TB, endpoints ...string) *Proxy {
	tb.Helper()
	p := &Proxy{Server{
		tb:   tb,
		name: "grpc-proxy",
		host: net.JoinHostPort("127.0.0.1", strconv.Itoa(reservePort(tb))),
		log:  filepath.Join(tb.TempDir(), "grpc-proxy.log"),
	}}
	p.argv = []string{Etcd(tb, Version()), "grpc-proxy", "start",
		"--endpoints=" + strings.Join(endpoints, ","), "--listen-addr=" + p.host}
	tb.Cleanup(func() {
		p.end()
		p.tellLog()
	})
	p.Start()
	p.WaitReady()
	return p
}

// WaitReady waits until the proxy answers a linearizable read. It fails the test after a
// minute, and at once if the proxy has ended by itself.
func (p *Proxy) WaitReady() {
	p.tb.Helper()
	client, err := clientv3.New(clientConfig(p.host))
	if err != nil {
		p.tb.Fatalf("etcdtest: client: %v", err)
	}
	defer client.Close()
	for deadline := time.Now().Add(readyTimeout); ; time.Sleep(50 * time.Millisecond) {
		ctx, cancel := context.WithTimeout(context.Background(), 2*time.Second)
		err := linearizable(ctx, client)
		cancel()
		if err == nil {
			return
		}
		if p.failed() {
			p.tb.Fatalf("etcdtest: %s ended by itself", p.name)
		}
		if time.Now().After(deadline) {
			p.tb.Fatalf("etcdtest: %s does not answer: %v", p.name, err)
		}
	}
}
