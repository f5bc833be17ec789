// SPDX-FileCopyrightText: The Rollcall Authors
// SPDX-License-Identifier: Apache-2.0

package monitoring_test

import (
	"bytes"
	"net/http"
	"net/http/httptest"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	prom "github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/promhttp"
	clientv3 "go.etcd.io/etcd/client/v3"

	"github.com/rollcall-grpc/rollcall"
	"github.com/rollcall-grpc/rollcall/internal/test/e2e/lab"
	rollcallprom "github.com/rollcall-grpc/rollcall/metrics/prometheus"
)

// app is a program that registers, follows services, and exports its metrics.
type app struct {
	t         *testing.T
	client    *clientv3.Client
	directory *rollcall.Directory
	registrar *rollcall.Registrar
	addr      string // of its metrics
}

// newApp starts one that does not register yet.
func newApp(t *testing.T, client *clientv3.Client, opts rollcall.DirectoryOptions) *app {
	t.Helper()
	directory, err := rollcall.NewDirectory(client, opts)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(directory.Close)
	registrar, err := rollcall.NewRegistrar(directory, rollcall.RegistrarOptions{})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(registrar.Close)
	registry := prom.NewPedanticRegistry()
	registry.MustRegister(rollcallprom.NewCollector(directory, rollcallprom.Options{Registrars: []*rollcall.Registrar{registrar}}))
	server := httptest.NewServer(promhttp.HandlerFor(registry, promhttp.HandlerOpts{}))
	t.Cleanup(server.Close)
	return &app{t, client, directory, registrar, server.Listener.Addr().String()}
}

// follow subscribes to a service until the test ends.
func (a *app) follow(service string) {
	a.t.Helper()
	sub, err := a.directory.Subscribe(service)
	if err != nil {
		a.t.Fatal(err)
	}
	a.t.Cleanup(sub.Close)
}

// register registers the app at an address of which only the metadata says where its metrics are.
func (a *app) register(service, zone string) *rollcall.Registration {
	a.t.Helper()
	registration, err := a.registrar.Register(service, rollcall.Endpoint{Addr: "127.0.0.1:1", ID: a.addr, Metadata: map[string]any{"zone": zone, "metrics_port": port(a.t, a.addr)}})
	if err == nil {
		err = registration.Wait(lab.Context(a.t))
	}
	if err != nil {
		a.t.Fatal(err)
	}
	return registration
}

// serve is a rollcall serve at fixed addresses.
type serve struct {
	t                *testing.T
	path, xds, admin string
	etcd             string
	log              bytes.Buffer
	cmd              *exec.Cmd
}

func newServe(t *testing.T, etcd string) *serve {
	t.Helper()
	s := &serve{t: t, path: filepath.Join(t.TempDir(), "rollcall"), xds: freeAddr(t), admin: freeAddr(t), etcd: etcd}
	if out, err := exec.Command("go", "build", "-o", s.path, root+"cmd/rollcall").CombinedOutput(); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	t.Cleanup(func() {
		if t.Failed() {
			t.Logf("rollcall serve: %s", &s.log)
		}
	})
	return s
}

// start starts it and waits until it answers.
func (s *serve) start() {
	s.t.Helper()
	s.cmd = run(s.t, &s.log, s.path, "--endpoints", s.etcd, "serve", "--xds", s.xds, "--admin", s.admin)
	eventually(s.t, "rollcall serve answers", func() (bool, any) {
		code, body := get(s.t, "http://"+s.admin+"/livez")
		return code == http.StatusOK, body
	})
}

// metrics returns its page of metrics.
func (s *serve) metrics() string {
	s.t.Helper()
	code, body := get(s.t, "http://"+s.admin+"/metrics")
	if code != http.StatusOK || !strings.Contains(body, "rollcall_") {
		s.t.Fatalf("/metrics: %d %s", code, body)
	}
	return body
}
