// SPDX-FileCopyrightText: The Rollcall Authors
// SPDX-License-Identifier: Apache-2.0

package devetcd

import (
	"context"
	"errors"
	"net"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	clientv3 "go.etcd.io/etcd/client/v3"
	"go.uber.org/goleak"
	"go.uber.org/zap"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

func start(t *testing.T, opts Options) *Server {
	t.Helper()
	s, err := Start(t.Context(), opts)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := s.Close(); err != nil {
			t.Errorf("Close: %v", err)
		}
	})
	return s
}

func dial(t *testing.T, s *Server) *clientv3.Client {
	t.Helper()
	cli, err := clientv3.New(clientv3.Config{Endpoints: []string{s.Endpoint()}, Logger: zap.NewNop()})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { cli.Close() })
	return cli
}

func put(t *testing.T, cli *clientv3.Client, key, value string) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
	defer cancel()
	if _, err := cli.Put(ctx, key, value); err != nil {
		t.Fatalf("put %s: %v", key, err)
	}
}

func get(t *testing.T, cli *clientv3.Client, key string) string {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
	defer cancel()
	resp, err := cli.Get(ctx, key)
	if err != nil {
		t.Fatalf("get %s: %v", key, err)
	}
	if len(resp.Kvs) == 0 {
		return ""
	}
	return string(resp.Kvs[0].Value)
}

func TestTemporaryDirectoryIsRemoved(t *testing.T) {
	s := start(t, Options{})
	host, _, err := net.SplitHostPort(s.Endpoint())
	if err != nil || host != "127.0.0.1" {
		t.Errorf("Endpoint() = %q, want 127.0.0.1 and a port", s.Endpoint())
	}
	cli := dial(t, s)
	put(t, cli, "k", "v")
	if got := get(t, cli, "k"); got != "v" {
		t.Errorf("got %q, want %q", got, "v")
	}
	cli.Close()
	if err := s.Close(); err != nil {
		t.Errorf("Close: %v", err)
	}
	if _, err := os.Stat(s.DataDir()); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("data directory after Close: %v, want it gone", err)
	}
}

func TestReopenedDirectoryHasItsData(t *testing.T) {
	opts := Options{DataDir: filepath.Join(t.TempDir(), "new", "data")}
	for i, want := range []string{"", "v0", "v1"} {
		s := start(t, opts)
		opts.ClientAddr = s.Endpoint() // the first one is free to choose
		cli := dial(t, s)
		if got := get(t, cli, "k"); got != want {
			t.Errorf("start %d: got %q, want %q", i, got, want)
		}
		put(t, cli, "k", "v"+string(rune('0'+i)))
		cli.Close()
		if err := s.Close(); err != nil {
			t.Fatalf("start %d: Close: %v", i, err)
		}
	}
}

func TestReopenedUnderAnotherAddressAndName(t *testing.T) {
	dir := t.TempDir()
	s := start(t, Options{DataDir: dir})
	cli := dial(t, s)
	put(t, cli, "k", "v")
	cli.Close()
	s.Close()
	if got := get(t, dial(t, start(t, Options{DataDir: dir, Name: "other"})), "k"); got != "v" {
		t.Errorf("got %q, want %q", got, "v")
	}
}

func TestAddressInUse(t *testing.T) {
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer ln.Close()
	addr := ln.Addr().String()
	s, err := Start(t.Context(), Options{ClientAddr: addr})
	if err == nil {
		s.Close()
		t.Fatal("Start succeeded on an address in use")
	}
	if !errors.Is(err, syscall.EADDRINUSE) || !strings.Contains(err.Error(), addr+" is in use") {
		t.Errorf("error %q, want EADDRINUSE that names %s", err, addr)
	}
}

func TestDirectoryInUse(t *testing.T) {
	s := start(t, Options{DataDir: t.TempDir()})
	other, err := Start(t.Context(), Options{DataDir: s.DataDir()})
	if err == nil {
		other.Close()
		t.Fatal("Start succeeded on a directory in use")
	}
	if !strings.Contains(err.Error(), s.DataDir()+" is in use") {
		t.Errorf("error %q, want one that names %s", err, s.DataDir())
	}
}

func TestBadOptions(t *testing.T) {
	for name, opts := range map[string]Options{
		"no port":      {ClientAddr: "127.0.0.1"},
		"not loopback": {ClientAddr: "0.0.0.0:0"},
		"log level":    {LogLevel: "loud"},
	} {
		t.Run(name, func(t *testing.T) {
			if s, err := Start(t.Context(), opts); err == nil {
				s.Close()
				t.Errorf("Start(%+v) succeeded", opts)
			}
		})
	}
}

func TestCancelledStart(t *testing.T) {
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if s, err := Start(ctx, Options{}); !errors.Is(err, context.Canceled) {
		if s != nil {
			s.Close()
		}
		t.Errorf("Start = %v, want %v", err, context.Canceled)
	}
}

func TestCloseDoesNotWaitForStreams(t *testing.T) {
	s := start(t, Options{})
	cli := dial(t, s)
	ch := cli.Watch(t.Context(), "k", clientv3.WithCreatedNotify())
	<-ch
	began := time.Now()
	if err := s.Close(); err != nil {
		t.Errorf("Close: %v", err)
	}
	if took := time.Since(began); took > 3*time.Second {
		t.Errorf("Close took %v with a watch open", took)
	}
}

// startRetrying chooses other ports when etcd's error is recognised as a port in use.
func TestPeerAddressInUseIsRecognised(t *testing.T) {
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer ln.Close()
	opts, err := Options{DataDir: t.TempDir(), LogLevel: "dpanic"}.validate()
	if err != nil {
		t.Fatal(err)
	}
	cfg, _, err := config(opts, "127.0.0.1:0", ln.Addr().String(), true)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := startMember(t.Context(), cfg); !errors.Is(err, syscall.EADDRINUSE) {
		t.Errorf("startMember = %v, want %v", err, syscall.EADDRINUSE)
	}
}
