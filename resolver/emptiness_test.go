// SPDX-FileCopyrightText: The Rollcall Authors
// SPDX-License-Identifier: Apache-2.0

package resolver

import (
	"fmt"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	clientv3 "go.etcd.io/etcd/client/v3"
	grpcresolver "google.golang.org/grpc/resolver"

	"github.com/rollcall-grpc/rollcall/internal/test/fakeetcd"
)

// What the errors of calls say after the last endpoints of a service are gone.
func TestWhyThereIsNoEndpoint(t *testing.T) {
	pause := func() { // so that what comes next is another snapshot
		time.Sleep(10 * time.Millisecond)
		synctest.Wait()
	}
	put := func(store *fakeetcd.Store, ids, metadata string) {
		for _, id := range strings.Fields(ids) {
			store.Put("svc/"+id, fmt.Sprintf(`{"Addr":"%s:1","Metadata":%s}`, id, metadata))
		}
	}
	remove := func(store *fakeetcd.Store, ids string) {
		for _, id := range strings.Fields(ids) {
			store.Delete("svc/" + id)
			pause()
		}
	}
	for _, row := range []struct {
		name   string
		happen func(store *fakeetcd.Store, conn *fakeetcd.Conn)
		want   string
	}{
		{"one of two had left before", func(s *fakeetcd.Store, _ *fakeetcd.Conn) {
			put(s, "a b", `{"status":"draining"}`)
			remove(s, "a b")
		}, "its last endpoint left at revision 5"},
		{"a lease of three ends", func(s *fakeetcd.Store, conn *fakeetcd.Conn) {
			lease, err := conn.Client.Grant(t.Context(), 3600)
			if err != nil {
				t.Fatal(err)
			}
			for _, id := range []string{"a", "b", "c"} {
				if _, err := conn.Client.Put(t.Context(), "svc/"+id, `{"Addr":"`+id+`:1"}`, clientv3.WithLease(lease.ID)); err != nil {
					t.Fatal(err)
				}
			}
			pause()
			s.ExpireLease(lease.ID)
		}, "its last 3 endpoints vanished at revision 5 (their leases ended or they were deleted)"},
		{"etcd loses its data", func(s *fakeetcd.Store, _ *fakeetcd.Conn) {
			put(s, "a b", "null")
			pause()
			s.Wipe()
			time.Sleep(20 * time.Second)
		}, "its last 2 endpoints went when etcd lost its data or was restored from a backup"},
		{"all are disallowed", func(s *fakeetcd.Store, _ *fakeetcd.Conn) {
			s.Put("svc/b", `{"Addr":"unix:/b"}`)
			s.Put("svc/a", `{"Addr":"a"}`)
		}, `all 2 are disallowed, the first: "svc/a": invalid address "a": it must be host:port, for example 10.0.0.7:50051`},
		{"its value is overwritten", func(s *fakeetcd.Store, _ *fakeetcd.Conn) {
			put(s, "a", "null")
			pause()
			s.Put("svc/a", "{}")
		}, `1 invalid, the first: "svc/a": value has no Addr`},
		{"it came back and went again", func(s *fakeetcd.Store, _ *fakeetcd.Conn) {
			put(s, "a", `{"status":"draining"}`)
			remove(s, "a")
			put(s, "a", "null")
			pause()
			remove(s, "a")
		}, "its last endpoint was deleted at revision 5"},
	} {
		t.Run(row.name, func(t *testing.T) {
			bubble(t, func(*fakeetcd.Store, *fakeetcd.Conn) {}, func(t *testing.T, s *fakeetcd.Store, conn *fakeetcd.Conn, c *channel, _ grpcresolver.Resolver) {
				row.happen(s, conn)
				want := fmt.Sprintf(`error rollcall: service "svc" has no endpoints: %s; no usable key under "svc/" at revision %d`, row.want, s.Revision())
				if got := c.told(); !strings.HasSuffix(got, want) {
					t.Errorf("the channel was told %s, want %s", got, want)
				}
			})
		})
	}
}
