// SPDX-FileCopyrightText: The Rollcall Authors
// SPDX-License-Identifier: Apache-2.0

//go:build unix

package main

import (
	"net"
	"net/http"
	"strings"
	"syscall"
	"testing"

	clientv3 "go.etcd.io/etcd/client/v3"
)

// An endpoint with another address or TTL takes the key over once its checks pass: the service is never empty.
func TestAgentMoves(t *testing.T) {
	t.Parallel()
	endpoint := sharedEtcd(t)
	client := etcdClient(t, endpoint)
	const key = "t-agent-moves/e0"
	a, b := newTarget(t), newTarget(t)
	p := startAgent(t, endpoint, services("t-agent-moves", a.addr))
	p.await(t, "it is registered", 0)
	first, err := client.Get(t.Context(), key)
	if err != nil {
		t.Fatal(err)
	}

	// Its new server is not up yet, and the file takes it back.
	b.stop()
	writeFile(t, p.file, services("t-agent-moves", b.addr))
	waits := func() bool {
		s, _ := p.status(t)
		return len(s.Endpoints) == 1 && strings.Contains(s.Endpoints[0].LastError, "refused")
	}
	eventually(t, "the new address fails", waits)
	if s, code := p.status(t); code != exitOther || s.Endpoints[0].Address != b.addr || s.Endpoints[0].Registration != "registered" {
		t.Errorf("exit %d, %+v, want the new address, and the key as it was", code, s.Endpoints)
	}
	writeFile(t, p.file, services("t-agent-moves", a.addr))
	p.await(t, "all is as it was", 0)
	if got := modRevision(t, client, key); got != first.Kvs[0].ModRevision {
		t.Errorf("written at revision %d, want %d, the first", got, first.Kvs[0].ModRevision)
	}

	writeFile(t, p.file, services("t-agent-moves", b.addr))
	eventually(t, "the new address fails", waits)
	b.start(t)
	eventually(t, "the address is new", func() bool { return strings.Contains(valueOf(t, client, key), b.addr) })
	p.await(t, "the new address is registered", 0)

	lease := clientv3.LeaseID(first.Kvs[0].Lease)
	writeFile(t, p.file, "ttl: 30s\n"+services("t-agent-moves", b.addr))
	eventually(t, "the lease is another", func() bool {
		resp, err := client.Get(t.Context(), key)
		return err == nil && len(resp.Kvs) == 1 && clientv3.LeaseID(resp.Kvs[0].Lease) != lease
	})
	eventually(t, "the first lease is revoked", func() bool {
		resp, err := client.TimeToLive(t.Context(), lease)
		return err == nil && resp.TTL < 0
	})
	p.await(t, "the lease's endpoint is registered", 0)
	past := <-client.Watch(t.Context(), key, clientv3.WithRev(first.Header.Revision))
	for _, ev := range past.Events {
		if ev.Type == clientv3.EventTypeDelete {
			t.Errorf("deleted at revision %d; stderr %s", ev.Kv.ModRevision, p.stderr.String())
		}
	}
	p.signal(t, syscall.SIGTERM)
	if code, _ := p.end(t); code != 0 || valueOf(t, client, key) != "" {
		t.Errorf("exit %d, left %q; stderr %s", code, valueOf(t, client, key), p.stderr.String())
	}
}

// An agent that does not answer, or answers that its loop hangs, is told apart from one that is stopping.
func TestAgentHangs(t *testing.T) {
	t.Parallel()
	for name, row := range map[string]struct {
		answer, want string
		code         int
	}{
		"silent":   {"", "does not answer", exitTimeout},
		"hung":     {`{"heartbeat": "2020-01-01T00:00:00Z"}`, "the agent hangs", exitTimeout},
		"stopping": {`{"heartbeat": "2020-01-01T00:00:00Z", "stopping": true}`, "the agent is stopping", exitOther},
	} {
		path := socketIn(t)
		lis, err := net.Listen("unix", path)
		if err != nil {
			t.Fatal(err)
		}
		srv := &http.Server{Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			if row.answer == "" {
				<-r.Context().Done()
			}
			_, _ = w.Write([]byte(row.answer))
		})}
		t.Cleanup(func() { _ = srv.Close() })
		go func() { _ = srv.Serve(lis) }()
		r := rollcallAt(t, "127.0.0.1:1", "agent", "status", "--socket", path, "--dial-timeout", "500ms")
		if r.code != row.code || !strings.Contains(r.stderr, row.want) {
			t.Errorf("%s: exit %d, %q, want %d and %q", name, r.code, r.stderr, row.code, row.want)
		}
	}
}
