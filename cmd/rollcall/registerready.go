// SPDX-FileCopyrightText: The Rollcall Authors
// SPDX-License-Identifier: Apache-2.0

package main

import (
	"fmt"
	"net"
	"net/http"
	"time"

	"github.com/rollcall-grpc/rollcall/internal/healthcheck"
)

// serveReadiness answers probes until close: /livez while the process lives, /readyz by an endpoint.
func serveReadiness(addr string, endpoint *healthcheck.Endpoint) (closeServer func(), err error) {
	lis, err := net.Listen("tcp", addr)
	if err != nil {
		return nil, fail(exitUsage, "--ready-http %s: %v", addr, err)
	}
	mux := http.NewServeMux()
	mux.HandleFunc("GET /livez", func(w http.ResponseWriter, _ *http.Request) { fmt.Fprintln(w, "live") })
	mux.HandleFunc("GET /readyz", func(w http.ResponseWriter, _ *http.Request) {
		if why := endpoint.Status().Unready(); why != nil {
			http.Error(w, "not ready: "+safe(oneLine(why.Error())), http.StatusServiceUnavailable)
			return
		}
		fmt.Fprintln(w, "ready")
	})
	srv := &http.Server{Handler: mux, ReadHeaderTimeout: 5 * time.Second}
	done := make(chan struct{})
	go func() {
		defer close(done)
		_ = srv.Serve(lis)
	}()
	return func() {
		_ = srv.Close()
		<-done
	}, nil
}
