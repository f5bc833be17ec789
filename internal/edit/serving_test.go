// SPDX-FileCopyrightText: The Rollcall Authors
// SPDX-License-Identifier: Apache-2.0

package edit

import (
	"errors"
	"fmt"
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
