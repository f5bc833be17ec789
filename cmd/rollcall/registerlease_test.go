// SPDX-FileCopyrightText: The Rollcall Authors
// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/rollcall-grpc/rollcall"
	"github.com/rollcall-grpc/rollcall/internal/test/etcdtest"
)

// A sidecar that was killed has left its key under a lease: the next one takes it over, on every etcd.
func TestRegisterOverALease(t *testing.T) {
	onVersions(t, func(t *testing.T, binary string, _ []string) {
		etcd := etcdtest.New(t, etcdtest.Options{Etcd: binary})
		client := etcd.Client(t)
		put1(t, client, "shop/a", endpointAt("10.0.0.1:80", "null"), kept(t, client, 60))
		s := begin(t, []string{"ROLLCALL_ENDPOINTS=" + etcd.Endpoints()[0]}, "register", "shop", "--id", "a", "--addr", "10.0.0.2:80", "--", "true")
		if code := s.end(t); code != 0 || strings.Contains(s.stderr.String(), "without a lease") {
			t.Errorf("exit %d, %q", code, s.stderr.String())
		}
	})
}

// An endpoint that is registered stays so where etcd cannot be asked what it has, as while a password is changed.
func TestRegisteredButUnreadable(t *testing.T) {
	etcd := freshEtcd(t)
	directory, err := rollcall.SharedDirectory(etcdClient(t, etcd.Endpoint()))
	if err != nil {
		t.Fatal(err)
	}
	registrar, err := rollcall.NewRegistrar(directory, rollcall.RegistrarOptions{})
	if err != nil {
		t.Fatal(err)
	}
	defer registrar.Close()
	reg, err := registrar.Register("shop", rollcall.Endpoint{Addr: "10.0.0.1:80"})
	if err != nil {
		t.Fatal(err)
	}
	if err := reg.Wait(t.Context()); err != nil {
		t.Fatal(err)
	}
	state, _ := reg.State()
	var stdout, stderr strings.Builder
	s := &registerSession{a: &app{stderr: &stderr, settings: settings{dialTimeout: 5 * time.Second}}, client: etcdClient(t, etcd.Endpoint()), out: &stdout}
	_ = s.client.Close()
	lease, err := s.printRegistered(t.Context(), reg)
	want := fmt.Sprintf("rollcall: \"shop/10.0.0.1:80\" is registered, under lease %x, but cannot be read: ", state.Lease)
	if err != nil || lease != state.Lease || stdout.String() != "" || !strings.HasPrefix(stderr.String(), want) {
		t.Errorf("lease %x, %v; stdout %q, stderr %q; want lease %x, and %q", lease, err, stdout.String(), stderr.String(), state.Lease, want)
	}
	ended, end := context.WithCancel(t.Context())
	end()
	if _, err := s.printRegistered(ended, reg); !errors.Is(err, context.Canceled) {
		t.Errorf("with a context that has ended: %v", err)
	}
}
