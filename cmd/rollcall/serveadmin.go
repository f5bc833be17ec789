// SPDX-FileCopyrightText: The Rollcall Authors
// SPDX-License-Identifier: Apache-2.0

package main

import (
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"net/http"
	"net/http/pprof"
	"net/netip"
	"strings"
	"sync"
	"time"

	"go.etcd.io/etcd/api/v3/v3rpc/rpctypes"
	"google.golang.org/grpc/health"
	healthpb "google.golang.org/grpc/health/grpc_health_v1"

	"github.com/rollcall-grpc/rollcall"
)

// probeService is whose service config is followed to find out whether etcd answers. It need not
// exist: the service configs of all services are followed together, which clients need anyway.
const probeService = "rollcall"

// readiness is whether clients can be served: once etcd has answered, and until the end. What
// etcd has said once is served when it does not answer later.
type readiness struct {
	health *health.Server // says the same

	mu     sync.Mutex
	reason string // why not; "": ready
	ended  bool
}

func newReadiness(srv *health.Server) *readiness {
	srv.SetServingStatus("", healthpb.HealthCheckResponse_NOT_SERVING)
	return &readiness{health: srv, reason: "etcd has not answered yet"}
}

// observe takes in an answer of etcd, or why there is none. That a service config may not be
// read is an answer: the role may be for some services only.
func (r *readiness) observe(_ *rollcall.ServiceConfig, err error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	switch {
	case r.ended || r.reason == "":
	case err == nil || errors.Is(err, rpctypes.ErrPermissionDenied):
		r.reason = ""
		r.health.SetServingStatus("", healthpb.HealthCheckResponse_SERVING)
	default:
		r.reason = oneLine(plain(err))
	}
}

// end makes it unready for good.
func (r *readiness) end() {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.ended, r.reason = true, "shutting down"
	r.health.Shutdown()
}

// why returns why it is not ready, "" if it is.
func (r *readiness) why() string {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.reason
}

// ServeHTTP answers 200 or 503 with the reason.
func (r *readiness) ServeHTTP(w http.ResponseWriter, _ *http.Request) {
	if reason := r.why(); reason != "" {
		http.Error(w, "not ready: "+reason, http.StatusServiceUnavailable)
		return
	}
	_, _ = w.Write([]byte("ready\n"))
}

// admin is the HTTP server for probes and people. The nil admin serves nothing.
type admin struct {
	lis  net.Listener
	http *http.Server
}

// adminPage is what the admin address has at a path.
type adminPage struct {
	path, about string
	handler     http.Handler
}

// adminPages are what the admin address has, beside the profiles.
func (b *bridge) adminPages(metrics http.Handler) []adminPage {
	return []adminPage{
		{"/livez", "whether the process answers", http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { _, _ = w.Write([]byte("alive\n")) })},
		{"/readyz", "whether clients can be served", b.ready},
		{"/metrics", "for Prometheus", metrics},
		{"/prometheus/sd", "targets for Prometheus' http_sd; ?service=, ?prefix=, ?port=, ?zone= and other fields", b.discovery},
		{"/xds/clients", "xDS clients and what they accepted; see rollcall xds clients", http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
			w.Header().Set("Content-Type", "application/json")
			_ = json.NewEncoder(w).Encode(newXDSClientList(b.xds.Clients()))
		})},
		{"/revisions", "when etcd was at which revision, for rollcall history", &b.clock},
	}
}

func newAdmin(addr string, pages []adminPage) (*admin, error) {
	if addr == "" {
		return nil, nil
	}
	if _, err := net.ResolveTCPAddr("tcp", addr); err != nil {
		return nil, fail(exitUsage, "--admin %s: %v; write HOST:PORT", addr, err)
	}
	lis, err := listenTCP("--admin", addr)
	if err != nil {
		return nil, err
	}
	return &admin{lis, &http.Server{Handler: adminHandler(addr, pages), ReadHeaderTimeout: 5 * time.Second, IdleTimeout: time.Minute}}, nil
}

// adminHandler returns what is served at an address: the pages, and at "/" a list of them.
func adminHandler(addr string, pages []adminPage) http.Handler {
	mux := http.NewServeMux()
	var index [][]string
	for _, page := range pages {
		mux.Handle("GET "+page.path, page.handler)
		index = append(index, []string{page.path, page.about})
	}
	index = append(index, []string{"/debug/pprof/", "profiles, for requests from loopback"})
	mux.HandleFunc("GET /{$}", func(w http.ResponseWriter, _ *http.Request) { _, _ = w.Write([]byte(table(index...))) })
	mux.HandleFunc("/debug/pprof/", pprof.Index)
	mux.HandleFunc("/debug/pprof/profile", pprof.Profile)
	mux.HandleFunc("/debug/pprof/symbol", pprof.Symbol)
	mux.HandleFunc("/debug/pprof/trace", pprof.Trace)
	return guard(addr, mux)
}

// guard keeps others than loopback from what tells a lot or costs a lot, and web pages from
// loopback: one whose own name has been made to resolve to it is given away by the Host header.
func guard(addr string, next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		peer, _ := netip.ParseAddrPort(r.RemoteAddr)
		switch local := peer.Addr().Unmap().IsLoopback(); {
		case !local && strings.HasPrefix(r.URL.Path, "/debug/pprof/"):
			http.Error(w, "/debug/pprof/ is served to loopback addresses only; ask from the host or pod of the rollcall serve", http.StatusForbidden)
		case local && !isOwnHost(r.Host, addr):
			http.Error(w, fmt.Sprintf("host %q is refused on loopback; use the IP address or localhost", r.Host), http.StatusForbidden)
		default:
			next.ServeHTTP(w, r)
		}
	})
}

// isOwnHost reports whether a Host header is an IP address, localhost, the host of an address or
// empty, as in HTTP/1.0.
func isOwnHost(header, addr string) bool {
	host, _, err := net.SplitHostPort(header)
	if err != nil {
		host = strings.Trim(header, "[]") // it has no port
	}
	_, err = netip.ParseAddr(host)
	own, _, _ := net.SplitHostPort(addr)
	return err == nil || host == "" || strings.EqualFold(host, "localhost") || strings.EqualFold(host, own)
}

func (s *admin) where() string {
	if s == nil {
		return "no admin address"
	}
	return "admin at http://" + s.lis.Addr().String()
}

// serve returns nil after close.
func (s *admin) serve() error {
	if s == nil {
		return nil
	}
	if err := s.http.Serve(s.lis); !errors.Is(err, http.ErrServerClosed) {
		return err
	}
	return nil
}

func (s *admin) close() {
	if s != nil {
		_ = s.http.Close()
		_ = s.lis.Close()
	}
}
