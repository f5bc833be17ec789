// SPDX-FileCopyrightText: The Rollcall Authors
// SPDX-License-Identifier: Apache-2.0

package main

import (
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"

	"google.golang.org/grpc/health"
)

// TestAdminGuards: profiles are for loopback alone, and a browser on this host cannot be led
// there under a name of someone else's.
func TestAdminGuards(t *testing.T) {
	const local, remote = "127.0.0.1:4711", "192.0.2.1:4711"
	for _, row := range []struct {
		listening, peer, host, path string
		code                        int
	}{
		{"0.0.0.0:2381", remote, "10.0.0.7:2381", "/livez", http.StatusOK},
		{"0.0.0.0:2381", remote, "rollcall.example:2381", "/livez", http.StatusOK},
		{"0.0.0.0:2381", remote, "10.0.0.7:2381", "/debug/pprof/", http.StatusForbidden},
		{"0.0.0.0:2381", remote, "localhost", "/debug/pprof/heap", http.StatusForbidden},
		{"0.0.0.0:2381", remote, "localhost", "/debug/pprof/symbol", http.StatusForbidden},
		{"0.0.0.0:2381", local, "10.0.0.7:2381", "/debug/pprof/symbol", http.StatusOK},
		{"[::]:2381", "[::ffff:127.0.0.1]:4711", "127.0.0.1:2381", "/debug/pprof/symbol", http.StatusOK},
		{"[::]:2381", "[::1]:4711", "[::1]:2381", "/debug/pprof/symbol", http.StatusOK},
		{"[::]:2381", "[::1]:4711", "[::1]", "/livez", http.StatusOK},
		{"127.0.0.1:2381", local, "LOCALHOST:2381", "/livez", http.StatusOK},
		{"127.0.0.1:2381", local, "localhost", "/livez", http.StatusOK},
		{"127.0.0.1:2381", local, "", "/livez", http.StatusOK}, // HTTP/1.0
		{"127.0.0.1:2381", local, "localhost", "/", http.StatusOK},
		{"127.0.0.1:2381", local, "localhost", "/nothing", http.StatusNotFound},
		{"127.0.0.1:2381", local, "evil.example:2381", "/livez", http.StatusForbidden},
		{"127.0.0.1:2381", local, "evil.example", "/debug/pprof/symbol", http.StatusForbidden},
		{"0.0.0.0:2381", local, "evil.example", "/debug/pprof/symbol", http.StatusForbidden},
		{"myself.example:2381", local, "Myself.example:2381", "/livez", http.StatusOK},
		{"127.0.0.1:2381", local, "127.0.0.1:2381", "/debug/pprof/cmdline", http.StatusNotFound},
	} {
		r := httptest.NewRequest(http.MethodGet, row.path, nil)
		r.RemoteAddr, r.Host = row.peer, row.host
		w := httptest.NewRecorder()
		adminHandler(row.listening, (&bridge{ready: newReadiness(health.NewServer())}).adminPages(http.NotFoundHandler())).ServeHTTP(w, r)
		body := w.Body.String()
		if w.Code != row.code || w.Code != http.StatusOK && strings.Count(body, "\n") != 1 {
			t.Errorf("%+v: got %d with %.80q", row, w.Code, body)
		}
	}
}
