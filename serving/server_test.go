// SPDX-FileCopyrightText: The Rollcall Authors
// SPDX-License-Identifier: Apache-2.0

package serving_test

import (
	"context"
	"errors"
	"net"
	"slices"
	"testing"
	"time"

	clientv3 "go.etcd.io/etcd/client/v3"
	"google.golang.org/grpc"
	"google.golang.org/grpc/xds"

	"github.com/rollcall-grpc/rollcall"
	"github.com/rollcall-grpc/rollcall/internal/test/etcdtest"
	"github.com/rollcall-grpc/rollcall/serving"
)

var (
	_ serving.GRPCServer = (*grpc.Server)(nil)
	_ serving.GRPCServer = (*xds.GRPCServer)(nil)
)

// With a client alone, the server has a registrar of its own, of which nothing is left.
func TestListenAndServeWithAClient(t *testing.T) {
	h := newHouse(t)
	close(h.slow.finish)
	lis, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	addr := lis.Addr().String()
	lis.Close()
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() {
		done <- serving.ListenAndServe(ctx, h.srv, addr, serving.Options{Client: h.client, Service: "svc", DrainDelay: 1})
	}()
	h.saw("serving")
	h.lis.Close()
	h.lis = listenerAt(addr)
	if err := callSlow(h.dial()); err != nil {
		t.Error(err)
	}
	cancel()
	if err := <-done; err != nil {
		t.Errorf("ListenAndServe: %v", err)
	}
	h.saw("serving", "draining", "")
	leases, err := h.client.Leases(t.Context())
	if err != nil || len(leases.Leases) != 0 {
		t.Errorf("leases %v, %v, want none", leases, err)
	}
	if err := serving.ListenAndServe(ctx, grpc.NewServer(), "nowhere", serving.Options{Client: h.client, Service: "svc"}); err == nil {
		t.Error("listens nowhere")
	}
	var input *rollcall.InputError
	if err := serving.ListenAndServe(ctx, grpc.NewServer(), ":0", serving.Options{Client: h.client, Service: "svc"}); !errors.As(err, &input) {
		t.Errorf("a wildcard address: %v, want an *InputError", err)
	}
}

// listenerAt is a listener of which only the address is asked.
type listenerAt string

func (l listenerAt) Accept() (net.Conn, error) { return nil, net.ErrClosed }
func (l listenerAt) Close() error              { return nil }
func (l listenerAt) Addr() net.Addr {
	addr, _ := net.ResolveTCPAddr("tcp", string(l))
	return addr
}

// A host name that is listened at is what is advertised.
func TestHostNameIsAdvertised(t *testing.T) {
	h := newHouse(t)
	server, err := serving.New(h.srv, serving.Options{Client: h.client, Service: "svc", DrainDelay: 1})
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- server.ListenAndServe(ctx, "localhost:0") }()
	h.saw("serving")
	if host, port, err := net.SplitHostPort(server.Registrations()[0].Addr()); err != nil || host != "localhost" || port == "0" {
		t.Errorf("advertised %q", server.Registrations()[0].Addr())
	}
	cancel()
	if err := <-done; err != nil {
		t.Errorf("ListenAndServe: %v", err)
	}
}

// A server is listed under all of its services, and leaves them together, after one delay.
func TestSeveralServices(t *testing.T) {
	etcd := etcdtest.New(t, etcdtest.Options{})
	client, err := rollcall.NewClient(rollcall.ClientConfig(etcd.Endpoints()...))
	if err != nil {
		t.Fatal(err)
	}
	defer client.Close()
	const delay = 500 * time.Millisecond
	services := []string{"a", "b/c", "d"}
	s, err := serving.New(grpc.NewServer(), serving.Options{Client: client, Services: services, DrainDelay: delay})
	if err != nil {
		t.Fatal(err)
	}
	if regs := s.Registrations(); len(regs) != 0 {
		t.Errorf("%d registrations before it runs", len(regs))
	}
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- s.ListenAndServe(ctx, "127.0.0.1:0") }()
	var regs []*rollcall.Registration
	for len(regs) == 0 {
		time.Sleep(time.Millisecond)
		regs = s.Registrations()
	}
	var listed []string
	for _, g := range regs {
		if err := g.Wait(t.Context()); err != nil {
			t.Fatal(err)
		}
		listed = append(listed, g.Service())
	}
	if !slices.Equal(listed, services) {
		t.Errorf("listed as %q, want %q", listed, services)
	}
	if err := regs[1].Update(t.Context(), map[string]int{"weight": 2}); err != nil {
		t.Error(err)
	}
	began := time.Now()
	cancel()
	if err := <-done; err != nil {
		t.Errorf("ListenAndServe: %v", err)
	}
	if took := time.Since(began); took < delay || took > delay+waitMost/4 {
		t.Errorf("left in %v, with a delay of %v", took, delay)
	}
	resp, err := client.Get(t.Context(), "", clientv3.WithPrefix())
	if err != nil || len(resp.Kvs) != 0 {
		t.Errorf("left: %v, %v", resp.Kvs, err)
	}
	if regs := s.Registrations(); len(regs) != 0 {
		t.Errorf("%d registrations in the end", len(regs))
	}
}

// A service that cannot be registered leaves none of the others behind.
func TestAllServicesOrNone(t *testing.T) {
	h := newHouse(t)
	taken, err := h.registrar.Register("b", rollcall.Endpoint{Addr: h.lis.Addr().String()})
	if err != nil {
		t.Fatal(err)
	}
	opts := h.options()
	opts.Service, opts.Services = "", []string{"svc", "b"}
	var input *rollcall.InputError
	if err := serving.Run(t.Context(), h.srv, h.lis, opts); !errors.As(err, &input) || input.Field != "key" {
		t.Errorf("got %v, want an *InputError about the key", err)
	}
	if err := taken.Wait(t.Context()); err != nil {
		t.Error(err)
	}
	for began := time.Now(); ; time.Sleep(time.Millisecond) {
		if stats := h.registrar.Stats(); len(stats.Registrations) == 1 {
			break
		} else if time.Since(began) > waitMost {
			t.Fatalf("registered: %v", stats.Registrations)
		}
	}
}
