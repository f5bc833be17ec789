// SPDX-FileCopyrightText: The Rollcall Authors
// SPDX-License-Identifier: Apache-2.0

//go:build unix

package main

import (
	"encoding/json"
	"net"
	"net/http"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"google.golang.org/grpc/resolver"
	"google.golang.org/grpc/resolver/manual"
)

// replicas resolves replicas:///all, as DNS does for a name with several addresses.
var replicas = manual.NewBuilderWithScheme("replicas")

func init() { resolver.Register(replicas) }

// TestServeProcess: on SIGTERM a replica sends its clients to the other and exits with 0, with
// connections open that say nothing. No call fails, and changes arrive.
func TestServeProcess(t *testing.T) {
	endpoint := sharedEtcd(t)
	addNamed(t, endpoint, "t-proc-serve", "old")
	var processes []*process
	var addrs []string
	for range 2 {
		p := launch(t, endpoint, "serve", "--xds", "127.0.0.1:0", "--admin", "127.0.0.1:0")
		xds, admin := awaitServed(t, p.stderr.String)
		awaitReady(t, admin)
		processes, addrs = append(processes, p), append(addrs, xds[0])
	}
	mute, err := net.Dial("tcp", addrs[0])
	if err != nil {
		t.Fatal(err)
	}
	defer mute.Close()
	replicas.InitialState(resolver.State{Addresses: []resolver.Address{{Addr: addrs[0]}, {Addr: addrs[1]}}})
	bootstrap := must(t, endpoint, "xds", "bootstrap", "--server", addrs[0]).stdout
	client := dialWith(t, "xds:///t-proc-serve", strings.Replace(bootstrap, addrs[0], "replicas:///all", 1))
	wantCall(t, client, "old")

	done := make(chan struct{})
	var calling sync.WaitGroup
	var failed []error
	calling.Go(func() {
		for {
			select {
			case <-done:
				return
			case <-time.After(2 * time.Millisecond):
			}
			if _, err := call(t, client); err != nil {
				failed = append(failed, err)
			}
		}
	})
	began := time.Now()
	processes[0].signal(t, syscall.SIGTERM)
	code, stdout := processes[0].end(t)
	took := time.Since(began)
	if code != 0 || took > 10*time.Second || stdout != "" {
		t.Errorf("exit %d after %v with %q on stdout, want 0 within 10s; stderr %q", code, took, stdout, processes[0].stderr.String())
	}
	addNamed(t, endpoint, "t-proc-serve", "new")
	must(t, endpoint, "rm", "t-proc-serve", "old")
	eventually(t, "the change has come by the other replica", func() bool { name, _ := call(t, client); return name == "new" })
	close(done)
	calling.Wait()
	if len(failed) > 0 {
		t.Errorf("%d calls failed; the first: %v", len(failed), failed[0])
	}
	t.Logf("exit after %v", took)
}

// TestServeConnectionAge: connections end in time, and clients go on without a failed call and
// without a word in the log.
func TestServeConnectionAge(t *testing.T) {
	endpoint := sharedEtcd(t)
	addNamed(t, endpoint, "t-age", "one")
	s := beginServe(t, endpoint, "--xds-max-connection-age", "1s")
	awaitReady(t, s.admin)
	client := dialXDS(t, "xds:///t-age", "--server", s.xds[0])
	wantCall(t, client, "one")
	first := peersAt(t, s.admin)
	eventually(t, "the client has come back on another connection", func() bool {
		wantCall(t, client, "one")
		now := peersAt(t, s.admin)
		return now != "" && now != first
	})
	if strings.Contains(s.stderr.String(), "level=") {
		t.Errorf("told without need: %s", s.stderr.String())
	}
}

// peersAt returns the address that the only client has at its end, "" while there is none.
func peersAt(t *testing.T, admin string) string {
	t.Helper()
	code, body := get(t, admin, "/xds/clients")
	var list xdsClientList
	if err := json.Unmarshal([]byte(body), &list); err != nil || code != http.StatusOK {
		t.Fatalf("%d %q: %v", code, body, err)
	}
	if len(list.Clients) != 1 {
		return ""
	}
	return list.Clients[0].Peer
}
