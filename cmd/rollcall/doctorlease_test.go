// SPDX-FileCopyrightText: The Rollcall Authors
// SPDX-License-Identifier: Apache-2.0

package main

import (
	"slices"
	"strings"
	"testing"
	"time"

	clientv3 "go.etcd.io/etcd/client/v3"
	healthpb "google.golang.org/grpc/health/grpc_health_v1"

	"github.com/rollcall-grpc/rollcall"
	"github.com/rollcall-grpc/rollcall/internal/doctor"
	"github.com/rollcall-grpc/rollcall/internal/test/etcdtest"
)

// ofID returns the findings with an id, by service.
func ofID(d diagnosis, id string) map[string]doctor.Finding {
	found := make(map[string]doctor.Finding)
	for _, f := range d.Findings {
		if f.ID == id {
			found[f.Service] = f
		}
	}
	return found
}

// grant grants a lease that nothing renews.
func grant(t *testing.T, client *clientv3.Client, ttl int64) clientv3.OpOption {
	t.Helper()
	lease, err := client.Grant(t.Context(), ttl)
	if err != nil {
		t.Fatal(err)
	}
	return clientv3.WithLease(lease.ID)
}

// What doctor says of a server that cannot be reached is true of its lease, and the command that it prints works.
func TestDoctorOfSilentServers(t *testing.T) {
	onVersions(t, func(t *testing.T, binary string, healthy []string) {
		etcd := etcdtest.New(t, etcdtest.Options{Etcd: binary})
		client := etcd.Client(t)
		put1(t, client, "immortal/-a", endpointAt("127.0.0.1:1", "null"))
		put1(t, client, "renewed/a", endpointAt("127.0.0.1:1", "null"), kept(t, client, 6))
		put1(t, client, "dead/a", endpointAt("127.0.0.1:1", "null"), grant(t, client, 18))
		put1(t, client, "ending/a", endpointAt("127.0.0.1:1", "null"), grant(t, client, 6))
		env := []string{"ROLLCALL_ENDPOINTS=" + etcd.Endpoints()[0]}
		found, d := diagnose(t, exitErrors, env)
		found = slices.DeleteFunc(found, func(f string) bool { return strings.HasPrefix(f, "warning lease-ending ") }) // on a slow machine
		wantFindings(t, found, d, append(slices.Clone(healthy), "error server-silent dead", "error server-silent immortal", "error server-silent renewed")...)
		silent := ofID(d, "server-silent")
		wantIn(t, "immortal", silent["immortal"].What, "1 endpoint without a lease cannot be reached: ")
		wantIn(t, "renewed", silent["renewed"].What, "although the lease is renewed")
		wantIn(t, "dead", silent["dead"].What, "nothing was seen to renew the lease", " of 18 s left")
		for service, f := range silent {
			for _, command := range f.Commands {
				if command[1] == "rm" { // nobody can be asked whether the service is to be empty
					command = slices.Insert(slices.Clone(command), 2, "--yes")
				}
				if code := begin(t, env, command[1:]...).end(t); code != 0 && command[1] != "ping" {
					t.Errorf("%s: %q ends with %d", service, command, code)
				}
			}
		}
		found, d = diagnose(t, exitErrors, env, "renewed")
		wantFindings(t, found, d, append(slices.Clone(healthy), "error server-silent renewed")...)
		if got, err := client.Get(t.Context(), "immortal/", clientv3.WithPrefix()); err != nil || len(got.Kvs) > 0 {
			t.Errorf("after the commands there is still %v, %v", got, err)
		}
	})
}

// Of two Registrars with one id the first waits for the key. One that died, and was started again, does not.
func TestDoctorOfADuplicateID(t *testing.T) {
	onVersions(t, func(t *testing.T, binary string, healthy []string) {
		etcd := etcdtest.New(t, etcdtest.Options{Etcd: binary})
		client := etcd.Client(t)
		var first *rollcall.Registrar
		for range 2 {
			dir, err := rollcall.NewDirectory(etcd.Client(t), rollcall.DirectoryOptions{})
			if err != nil {
				t.Fatal(err)
			}
			t.Cleanup(func() { dir.Close() })
			registrar, err := rollcall.NewRegistrar(dir, rollcall.RegistrarOptions{TTL: 6 * time.Second})
			if err != nil {
				t.Fatal(err)
			}
			t.Cleanup(func() { registrar.Close() })
			registration, err := registrar.Register("twins", rollcall.Endpoint{ID: "a", Addr: listen(t, healthpb.HealthCheckResponse_SERVING)})
			if err == nil {
				err = registration.Wait(t.Context())
			}
			if err != nil {
				t.Fatal(err)
			}
			if first == nil {
				first = registrar
			}
		}
		env := []string{"ROLLCALL_ENDPOINTS=" + etcd.Endpoints()[0]}
		if r := begin(t, env, "weight", "twins", "a", "3"); r.end(t) != 0 { // an edit hides nothing
			t.Fatal(r.stderr.String())
		}
		restarted := listen(t, healthpb.HealthCheckResponse_SERVING)
		put1(t, client, "restarted/a", endpointAt(restarted, "null"), grant(t, client, 12))
		put1(t, client, "restarted/a", endpointAt(restarted, "null"), kept(t, client, 12))
		other := kept(t, client, 12)
		for _, lease := range []clientv3.OpOption{other, kept(t, client, 12)} {
			put1(t, client, "moved/a", endpointAt(restarted, "null"), lease)
		}
		put1(t, client, "moved/b", endpointAt(listen(t, healthpb.HealthCheckResponse_SERVING), "null"), other) // whose process has given "a" away
		code := 0
		if len(healthy) > 0 {
			code = exitWarnings
		}
		found, d := diagnose(t, code, env, "moved", "restarted", "twins")
		wantFindings(t, found, d, append(slices.Clone(healthy), "note id-duplicate twins")...)
		wantIn(t, "what", ofID(d, "id-duplicate")["twins"].What, `"twins/a" (lease `, ", before that ")
		first.Close()
		found, d = diagnose(t, code, env, "twins")
		wantFindings(t, found, d, healthy...)
	})
}
