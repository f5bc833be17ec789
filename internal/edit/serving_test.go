// SPDX-FileCopyrightText: The Rollcall Authors
// SPDX-License-Identifier: Apache-2.0

package edit

import (
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"

	clientv3 "go.etcd.io/etcd/client/v3"
	"go.uber.org/goleak"

	"github.com/rollcall-grpc/rollcall"
	"github.com/rollcall-grpc/rollcall/internal/test/etcdtest"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// Of two operators who drain the last two endpoints at the same time, one is refused.
func TestKeepServingHoldsForTwoOperators(t *testing.T) {
	etcd := etcdtest.New(t, etcdtest.Options{})
	client := etcd.Client(t)
	for _, id := range []string{"a", "b"} {
		if _, err := client.Put(t.Context(), "s/"+id, `{"Addr":"`+id+`:1"}`); err != nil {
			t.Fatal(err)
		}
	}
	dir, err := rollcall.NewDirectory(client, rollcall.DirectoryOptions{})
	if err != nil {
		t.Fatal(err)
	}
	defer dir.Close()
	drain := func(id string, check Check) error {
		_, err := Apply(t.Context(), dir, "s", Named(id), check, SetField("status", rollcall.StatusDraining))
		return err
	}
	meanwhile := func(snap *rollcall.Snapshot, keys []Key) ([]*rollcall.Instance, error) {
		relied, err := KeepServing(snap, keys)
		if err == nil { // the other is asked between this check and the write
			err = drain("b", KeepServing)
		}
		return relied, err
	}
	var last *LastServingError
	if err := drain("a", meanwhile); !errors.As(err, &last) {
		t.Errorf("the second of two was told %v, want a LastServingError", err)
	}
	list, err := client.Get(t.Context(), "s/b", clientv3.WithPrefix())
	if err != nil || len(list.Kvs) != 1 || list.Kvs[0].Version != 2 {
		t.Errorf("b was not drained: %v, %v", list, err)
	}
}

// As many keys as one transaction can change can be drained, and one that serves be relied on.
func TestKeepServingOfMaxKeys(t *testing.T) {
	client := etcdtest.New(t, etcdtest.Options{}).Client(t)
	for i := range MaxKeys + 1 {
		if _, err := client.Put(t.Context(), fmt.Sprintf("s/%d", i), fmt.Sprintf(`{"Addr":"a:%d"}`, max(1, i-MaxKeys+2))); err != nil {
			t.Fatal(err)
		}
	}
	dir, err := rollcall.NewDirectory(client, rollcall.DirectoryOptions{})
	if err != nil {
		t.Fatal(err)
	}
	defer dir.Close()
	done, err := Apply(t.Context(), dir, "s", Named("a:1"), KeepServing, SetField("status", rollcall.StatusDraining))
	if err != nil || len(done.Written) != MaxKeys || done.Transactions != 1 {
		t.Errorf("drained %d keys in %d transactions, want %d in one: %v", len(done.Written), done.Transactions, MaxKeys, err)
	}
}

// What is left of a service is one that is serving, or else what there was without one.
func TestKeepOne(t *testing.T) {
	const serving, draining, local, broken = `{"Addr":"a:1"}`, `{"Addr":"b:1","Metadata":{"status":"draining"}}`, `{"Addr":"unix:/c"}`, `broken`
	client := etcdtest.New(t, etcdtest.Options{}).Client(t)
	dir, err := rollcall.NewDirectory(client, rollcall.DirectoryOptions{})
	if err != nil {
		t.Fatal(err)
	}
	defer dir.Close()
	for i, row := range []struct {
		removed, others []string // values
		want            string   // how the removal is refused
	}{
		{[]string{serving}, []string{`{"Addr":"d:1"}`, draining}, ""},
		{[]string{serving}, []string{draining, local, broken}, `this removes 1 serving endpoint, the last of service "s": 2 endpoints that stay are draining or cannot be called`},
		{[]string{serving, draining}, []string{broken}, `this removes all endpoints (2) of service "s": calls to it will fail`},
		{[]string{draining}, []string{local}, ""},
		{[]string{draining}, []string{serving}, ""},
		{[]string{draining}, nil, `this removes the only endpoint of service "s": calls to it will fail`},
		{[]string{broken}, nil, ""},
	} {
		if _, err := client.Delete(t.Context(), "s/", clientv3.WithPrefix()); err != nil {
			t.Fatal(err)
		}
		var names []string
		for j, value := range append(slices.Clone(row.removed), row.others...) {
			name := fmt.Sprint(j)
			if j < len(row.removed) {
				names = append(names, name)
			}
			if _, err := client.Put(t.Context(), "s/"+name, value); err != nil {
				t.Fatal(err)
			}
		}
		got := ""
		if _, err := Apply(t.Context(), dir, "s", Named(names...), KeepOne, func(k Key) (clientv3.Op, error) { return clientv3.OpDelete(k.Key), nil }); err != nil {
			got = err.Error()
		}
		if got != row.want {
			t.Errorf("row %d: %q, want %q", i, got, row.want)
		}
	}
}

// fillZones writes two endpoints of each service, one in zone a and one in zone b, and nothing else under "s".
func fillZones(t *testing.T, client *clientv3.Client, services ...string) {
	t.Helper()
	if _, err := client.Delete(t.Context(), "s", clientv3.WithPrefix()); err != nil {
		t.Fatal(err)
	}
	for i, service := range services {
		put(t, client, service+"/1", fmt.Sprintf(`{"Addr":"a%d:1","Metadata":{"zone":"a"}}`, i))
		put(t, client, service+"/2", fmt.Sprintf(`{"Addr":"b%d:1","Metadata":{"zone":"b"}}`, i))
	}
}

// What a check refuses to do to a service it refuses where the keys are written under a name further out.
func TestChecksHoldWithinAService(t *testing.T) {
	const drains = `{"Addr":"x:1","Metadata":{"status":"draining"}}`
	client := etcdtest.New(t, etcdtest.Options{}).Client(t)
	dir := directory(t, client)
	for name, row := range map[string]struct {
		put    map[string]string // besides what fillZones writes
		find   Finder
		drain  string // how a drain is refused
		remove string // how a removal is refused
	}{
		"each keeps one": {nil, Named("1", "geo/1", "pay/1"), "", ""},
		"one within it is emptied": {nil, Named("1", "geo/1", "geo/2"),
			`no other endpoint of service "s/geo", within "s" as rollcall ls lists them, is serving`, `this removes all endpoints (2) of service "s/geo": calls to it will fail`},
		"several are": {nil, Named("geo/1", "geo/2", "pay/1", "pay/2"),
			`no other endpoint of services "s/geo", "s/pay", within "s" as rollcall ls lists them, is serving`,
			`this removes all endpoints (2) of service "s/geo": calls to it will fail; the same goes for "s/pay"`},
		"what stays of one is draining": {map[string]string{"s/geo/2": drains}, Named("geo/1"), `no other endpoint of service "s/geo", within "s" as rollcall ls lists them, is serving`,
			`this removes 1 serving endpoint, the last of service "s/geo": 1 endpoint that stays is draining or cannot be called`},
		"none of one was serving": {map[string]string{"s/geo/1": drains, "s/geo/2": drains}, Named("geo/1"), "", ""},
		"one within one is all that it has": {map[string]string{"s/x/y/1": `{"Addr":"y:1"}`}, Named("x/y/1"),
			`no other endpoint of service "s/x/y", within "s" as rollcall ls lists them, is serving`, `this removes the only endpoint of service "s/x/y": calls to it will fail`},
		"all": {nil, Everything, `no other endpoint of service "s" is serving`,
			`this removes all endpoints (6) of service "s", among them all of "s/geo", "s/pay": calls to them will fail`},
	} {
		t.Run(name, func(t *testing.T) {
			fillZones(t, client, "s", "s/geo", "s/pay")
			for key, value := range row.put {
				put(t, client, key, value)
			}
			refusal := func(check Check, write Write) string {
				_, err := Apply(t.Context(), dir, "s", row.find, check, write)
				if err == nil {
					return ""
				}
				text, _, _ := strings.Cut(err.Error(), ": clients would go on")
				return text
			}
			if got := refusal(KeepServing, drain); got != row.drain {
				t.Errorf("drain: %q, want %q", got, row.drain)
			}
			if got := refusal(KeepOne, func(k Key) (clientv3.Op, error) { return clientv3.OpDelete(k.Key), nil }); got != row.remove {
				t.Errorf("remove: %q, want %q", got, row.remove)
			}
		})
	}
}

// An endpoint that a service within another one relies on is compared as well.
func TestKeepServingWithinAServiceHoldsForTwoOperators(t *testing.T) {
	client := etcdtest.New(t, etcdtest.Options{}).Client(t)
	fillZones(t, client, "s", "s/geo")
	dir := directory(t, client)
	meanwhile := func(snap *rollcall.Snapshot, keys []Key) ([]*rollcall.Instance, error) {
		relied, err := KeepServing(snap, keys)
		if err == nil {
			_, err = Apply(t.Context(), dir, "s/geo", Named("2"), KeepServing, drain)
		}
		return relied, err
	}
	var last *LastServingError
	if _, err := Apply(t.Context(), dir, "s", zone(t, "a"), meanwhile, drain); !errors.As(err, &last) || !slices.Equal(last.Services, []string{"s/geo"}) {
		t.Errorf("the second of two was told %v, want a LastServingError of s/geo", err)
	}
}

// What is relied on takes room in a transaction, and what finds none there is refused.
func TestKeepServingWithinManyServices(t *testing.T) {
	services := make([]string, maxOps)
	for i := range services {
		services[i] = fmt.Sprintf("s/%03d", i)
	}
	client := etcdtest.New(t, etcdtest.Options{}).Client(t)
	dir := directory(t, client)
	fillZones(t, client, services...)
	if _, err := Apply(t.Context(), dir, "s", zone(t, "a"), KeepServing, drain); err == nil ||
		!strings.Contains(err.Error(), `service "s": one endpoint of each of 128 services is to stay as it is, and one transaction can see to 127`) {
		t.Errorf("128 services: %v", err)
	}
	fillZones(t, client, services[2:]...)
	done, err := Apply(t.Context(), dir, "s", zone(t, "a"), KeepServing, drain)
	if err != nil || len(done.Written) != maxOps-2 || done.Transactions != (maxOps-2)/2 {
		t.Errorf("drained %d keys in %d transactions: %v", len(done.Written), done.Transactions, err)
	}
}
