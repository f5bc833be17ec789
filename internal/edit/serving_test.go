// SPDX-FileCopyrightText: The Rollcall Authors
// SPDX-License-Identifier: Apache-2.0

package edit

import (
	"errors"
	"fmt"
	"slices"
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
	meanwhile := func(snap *rollcall.Snapshot, keys []Key) (*rollcall.Instance, error) {
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
