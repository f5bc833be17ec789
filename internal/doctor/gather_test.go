// SPDX-FileCopyrightText: The Rollcall Authors
// SPDX-License-Identifier: Apache-2.0

package doctor

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	clientv3 "go.etcd.io/etcd/client/v3"

	"github.com/rollcall-grpc/rollcall"
	"github.com/rollcall-grpc/rollcall/internal/test/etcdtest"
)

// options are those of a run by a client, which dials no server.
func options(t *testing.T, client *clientv3.Client, services ...string) Options {
	t.Helper()
	dir, err := rollcall.SharedDirectory(client)
	if err != nil {
		t.Fatal(err)
	}
	return Options{Client: client, Directory: dir, Services: services, Timeout: 5 * time.Second, CheckConfig: func(string) error { return nil }, UnknownFields: func([]byte) []string { return nil },
		Settings: Settings{Endpoints: client.Endpoints(), DialTimeout: 5 * time.Second, Getenv: func(string) string { return "" }, Permit: permit}}
}

func put(t *testing.T, client *clientv3.Client, key, addr string, opts ...clientv3.OpOption) {
	t.Helper()
	if _, err := client.Put(t.Context(), key, fmt.Sprintf(`{"Op":0,"Addr":%q}`, addr), opts...); err != nil {
		t.Fatal(err)
	}
}

// ofKeys returns the findings that are about keys, as their id and service.
func ofKeys(f *Facts) []string {
	found := []string{}
	for _, finding := range Diagnose(f) {
		if !strings.HasPrefix(finding.ID, "etcd-") {
			found = append(found, strings.TrimSpace(finding.ID+" "+finding.Service))
		}
	}
	slices.Sort(found)
	return found
}

// Servers that leave, move or drain while doctor looks are not at fault.
func TestChangesMeanwhile(t *testing.T) {
	client := etcdtest.New(t, etcdtest.Options{}).Client(t)
	leases := make(map[string]clientv3.LeaseID)
	for _, id := range []string{"stays", "leaves", "revoked"} {
		lease, err := client.Grant(t.Context(), 60)
		if err != nil {
			t.Fatal(err)
		}
		leases[id] = lease.ID
	}
	for i, id := range []string{"good", "silent", "leaves", "moves", "drains"} {
		put(t, client, "shop/"+id, fmt.Sprintf("10.0.0.%d:80", i), clientv3.WithLease(leases["stays"]))
	}
	put(t, client, "shop/leaves", "10.0.0.2:80", clientv3.WithLease(leases["leaves"]))
	put(t, client, "shop/revoked", "10.0.0.9:80", clientv3.WithLease(leases["revoked"]))
	revoke := func(id string) {
		if _, err := client.Revoke(t.Context(), leases[id]); err != nil {
			t.Error(err)
		}
	}
	opts := options(t, client)
	opts.Progress = func(step string) {
		if step == "looking up leases" {
			revoke("revoked")
		}
	}
	opts.Dial = func(_ context.Context, addrs []string) []Answer {
		revoke("leaves")
		put(t, client, "shop/moves", "10.0.1.1:80", clientv3.WithLease(leases["stays"]))
		if _, err := client.Put(t.Context(), "shop/drains", `{"Op":0,"Addr":"10.0.0.4:80","Metadata":{"status":"draining"}}`, clientv3.WithLease(leases["stays"])); err != nil {
			t.Error(err)
		}
		answers := make([]Answer, len(addrs))
		answers[0] = Answer{Connected: true, Answers: true, Health: healthServing}
		return answers
	}
	facts := Gather(t.Context(), opts)
	if diff := cmp.Diff([]string{"server-silent shop"}, ofKeys(facts)); diff != "" {
		t.Errorf("found differs (-want +got):\n%s", diff)
	}
	for _, f := range Diagnose(facts) {
		if f.ID == "server-silent" && (len(f.Keys) != 1 || f.Keys[0].Key != "shop/silent") {
			t.Errorf("silent = %+v", f.Keys)
		}
	}
}

// A service that the user may not read keeps doctor from no other.
func TestServicesWithoutRights(t *testing.T) {
	etcd := etcdtest.New(t, etcdtest.Options{})
	auth := etcd.EnableAuth(t)
	auth.AddUser("reader", "secret", etcdtest.Read("b/"), etcdtest.Read("_grpc_config/b"))
	put(t, auth.Client(t, "root"), "b/x", "10.0.0.1:80")
	facts := Gather(t.Context(), options(t, auth.Client(t, "reader"), "a", "b", "c"))
	if diff := cmp.Diff([]string{"lease-none b", "rights-missing"}, ofKeys(facts)); diff != "" {
		t.Errorf("found differs (-want +got):\n%s", diff)
	}
	if denied := strings.Join(facts.Denied, "\n"); !strings.Contains(denied, `keys of "a": `) || !strings.Contains(denied, `keys of "c": `) {
		t.Errorf("denied = %q", facts.Denied)
	}
}

// What could not be listed is a finding, and not only a line in a log.
func TestUnreadKeys(t *testing.T) {
	etcd := etcdtest.New(t, etcdtest.Options{})
	broken, err := rollcall.NewClient(rollcall.ClientConfig(etcd.Endpoints()...))
	if err != nil {
		t.Fatal(err)
	}
	opts := options(t, broken)
	broken.Close()
	opts.Client = etcd.Client(t)
	if found := ofKeys(Gather(t.Context(), opts)); !slices.Equal(found, []string{"keys-unknown"}) {
		t.Errorf("found %q", found)
	}
}

// Endpoints of a key that begins with its only "/" belong to no service.
func TestKeysWithoutService(t *testing.T) {
	client := etcdtest.New(t, etcdtest.Options{}).Client(t)
	for i, key := range []string{"/abc", "bare", "shop/a"} {
		put(t, client, key, fmt.Sprintf("10.0.0.%d:80", i))
	}
	if _, err := client.Put(t.Context(), "/other", "1"); err != nil {
		t.Fatal(err)
	}
	facts := Gather(t.Context(), options(t, client))
	if len(facts.Bare) != 2 || facts.Bare[0].Key != "/abc" || facts.Bare[1].Key != "bare" || len(facts.Foreign) != 1 || len(facts.Services) != 1 {
		t.Errorf("bare = %+v, foreign = %+v, services = %+v", facts.Bare, facts.Foreign, facts.Services)
	}
}
