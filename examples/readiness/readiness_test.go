// SPDX-FileCopyrightText: The Rollcall Authors
// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"io"
	"net"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/rollcall-grpc/rollcall/internal/test/etcdtest"
)

// TestReadiness: the server is ready once it is registered and until it drains, and exports its metrics.
func TestReadiness(t *testing.T) {
	etcd := etcdtest.New(t, etcdtest.Options{})
	addr, probe := freeAddr(t), freeAddr(t)
	ctx, stop := context.WithCancel(t.Context())
	defer stop()
	ended := make(chan error, 1)
	go func() { ended <- run(ctx, addr, probe, etcd.Endpoints()[0]) }()

	await(t, "http://"+probe+"/readyz", func(code int, _ string) bool { return code == http.StatusOK })
	await(t, "http://"+probe+"/metrics", func(_ int, body string) bool {
		return strings.Contains(body, `rollcall_registrations{phase="registered"} 1`)
	})
	stop()
	await(t, "http://"+probe+"/readyz", func(code int, body string) bool {
		return code == http.StatusServiceUnavailable && strings.Contains(body, "stopping")
	})
	if err := <-ended; err != nil {
		t.Error(err)
	}
}

// await asks until an answer is as wanted.
func await(t *testing.T, url string, wanted func(code int, body string) bool) {
	t.Helper()
	var last string
	for range 300 {
		if resp, err := http.Get(url); err != nil {
			last = err.Error()
		} else {
			body, _ := io.ReadAll(resp.Body)
			resp.Body.Close()
			if wanted(resp.StatusCode, string(body)) {
				return
			}
			last = resp.Status + ": " + string(body)
		}
		time.Sleep(50 * time.Millisecond)
	}
	t.Fatalf("%s: %s", url, last)
}

func freeAddr(t *testing.T) string {
	t.Helper()
	lis, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer lis.Close()
	return lis.Addr().String()
}
