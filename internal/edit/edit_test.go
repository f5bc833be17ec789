// SPDX-FileCopyrightText: The Rollcall Authors
// SPDX-License-Identifier: Apache-2.0

package edit

import (
	"errors"
	"fmt"
	"strings"
	"testing"

	clientv3 "go.etcd.io/etcd/client/v3"

	"github.com/rollcall-grpc/rollcall"
	"github.com/rollcall-grpc/rollcall/internal/test/etcdtest"
)

// many is the number of keys of a service that takes three transactions.
const many = 2*MaxKeys + 50

// startMany starts an etcd with many endpoints of service s, in zone a, and one in zone b.
func startMany(t *testing.T) *rollcall.Directory {
	client := etcdtest.New(t, etcdtest.Options{}).Client(t)
	for i := range many {
		put(t, client, fmt.Sprintf("s/%03d", i), fmt.Sprintf(`{"Addr":"a:%d","Metadata":{"zone":"a"}}`, 1+i))
	}
	put(t, client, "s/other", `{"Addr":"b:1","Metadata":{"zone":"b"}}`)
	return directory(t, client)
}

func directory(t *testing.T, client *clientv3.Client) *rollcall.Directory {
	dir, err := rollcall.NewDirectory(client, rollcall.DirectoryOptions{})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(dir.Close)
	return dir
}

func put(t *testing.T, client *clientv3.Client, key, value string) {
	t.Helper()
	if _, err := client.Put(t.Context(), key, value); err != nil {
		t.Fatal(err)
	}
}

func zone(t *testing.T, name string) Finder {
	selector, err := rollcall.ParseSelector("zone=" + name)
	if err != nil {
		t.Fatal(err)
	}
	return Selected(selector)
}

var drain = SetField("status", rollcall.StatusDraining)

// meddling is drain, and does something once, when a key is about to be written.
func meddling(at string, meddle func()) Write {
	return func(k Key) (clientv3.Op, error) {
		if meddle != nil && k.Key == at {
			do := meddle
			meddle = nil
			do()
		}
		return drain(k)
	}
}

// Whoever changes keys between the transactions of a change loses nothing, no key is written twice, and none that is not
// selected any more.
func TestApplyToManyMeddledWith(t *testing.T) {
	dir := startMany(t)
	client := dir.Client()
	done, err := Apply(t.Context(), dir, "s", zone(t, "a"), KeepServing, meddling("s/200", func() { // the first transaction is done
		put(t, client, "s/150", `{"Addr":"a:151","Metadata":{"zone":"a","weight":7}}`)
		put(t, client, "s/160", `{"Addr":"a:161","Metadata":{"zone":"b"}}`)
		if _, err := client.Delete(t.Context(), "s/180"); err != nil {
			t.Fatal(err)
		}
	}))
	if err != nil || len(done.Written) != many-2 || done.Transactions != 3 {
		t.Fatalf("%d keys in %d transactions: %v", len(done.Written), done.Transactions, err)
	}
	at := make(map[string]int64)
	for _, w := range done.Written {
		at[w.Key.Key] = w.Revision
	}
	list, err := client.Get(t.Context(), "s/", clientv3.WithPrefix())
	if err != nil || list.Count != many {
		t.Fatalf("%v, %v", list, err)
	}
	for _, kv := range list.Kvs {
		key, drains, version := string(kv.Key), true, int64(2)
		switch key {
		case "s/other":
			drains, version = false, 1
		case "s/150":
			version = 3
			if !strings.Contains(string(kv.Value), `"weight":7`) {
				t.Errorf("what was written meanwhile is lost: %s", kv.Value)
			}
		case "s/160": // left the zone
			drains = false
		}
		if drains != strings.Contains(string(kv.Value), `"draining"`) || kv.Version != version {
			t.Errorf("%s has version %d: %s", key, kv.Version, kv.Value)
		}
		if at[key] != 0 && at[key] != kv.ModRevision {
			t.Errorf("%s is of revision %d, told was %d", key, kv.ModRevision, at[key])
		}
	}
	if done.Revision != list.Header.Revision {
		t.Errorf("revision %d, want %d", done.Revision, list.Header.Revision)
	}
}

// What somebody else does between two transactions can stop a change half way, which tells how far it came.
func TestApplyToManyFailsHalfWay(t *testing.T) {
	for name, row := range map[string]struct {
		key, value string
		want       string
	}{
		"the endpoint that was to go on serving drains": {"s/other", `{"Addr":"b:1","Metadata":{"status":"draining"}}`, `no other endpoint of service "s" is serving`},
		"a key is in a state that cannot be edited":     {"s/200", `{"Addr":"a:201","Metadata":"text"}`, `"s/200" cannot be edited`},
	} {
		t.Run(name, func(t *testing.T) {
			dir := startMany(t)
			find := func(snap *rollcall.Snapshot) (keys []Key, _ error) { // by key: text has no zone
				for inst := range snap.All() {
					if inst.Key != "s/other" {
						keys = append(keys, keyOf(inst))
					}
				}
				return keys, nil
			}
			done, err := Apply(t.Context(), dir, "s", find, KeepServing, meddling("s/200", func() { put(t, dir.Client(), row.key, row.value) }))
			var partial *PartialError
			if !errors.As(err, &partial) || partial.Keys != MaxKeys || len(done.Written) != MaxKeys {
				t.Fatalf("%d keys: %v", len(done.Written), err)
			}
			for _, want := range []string{row.want, fmt.Sprintf("; before that, %d keys were changed", MaxKeys)} {
				if !strings.Contains(err.Error(), want) {
					t.Errorf("%v, want %s", err, want)
				}
			}
		})
	}
}

// A server that allows fewer operations in a transaction gets smaller ones, and values that are large together as well.
func TestApplyToManyOfTwoLimits(t *testing.T) {
	client := etcdtest.New(t, etcdtest.Options{Flags: []string{"--max-txn-ops=20"}}).Client(t)
	for i := range 45 {
		put(t, client, fmt.Sprintf("s/%02d", i), fmt.Sprintf(`{"Addr":"a:%d"}`, 1+i))
	}
	large := strings.Repeat("x", maxBytes/4)
	for i := range 5 {
		put(t, client, fmt.Sprintf("t/%02d", i), fmt.Sprintf(`{"Addr":"a:%d","Metadata":{"text":%q}}`, 1+i, large))
	}
	dir := directory(t, client)
	for service, want := range map[string]struct{ keys, transactions int }{"s": {45, 3}, "t": {5, 2}} {
		done, err := Apply(t.Context(), dir, service, Selected(rollcall.Selector{}), nil, drain)
		if err != nil || len(done.Written) != want.keys || done.Transactions != want.transactions {
			t.Errorf("%s: %d keys in %d transactions: %v", service, len(done.Written), done.Transactions, err)
		}
	}
}

// A change to a key that others write all the time is given up.
func TestApplyLosesToOthers(t *testing.T) {
	client := etcdtest.New(t, etcdtest.Options{}).Client(t)
	put(t, client, "s/a", `{"Addr":"a:1"}`)
	dir := directory(t, client)
	_, err := Apply(t.Context(), dir, "s", Named("a"), nil, func(k Key) (clientv3.Op, error) {
		put(t, client, "s/a", `{"Addr":"a:1"}`)
		return drain(k)
	})
	if !errors.Is(err, ErrChanged) || !strings.Contains(err.Error(), `service "s"`) {
		t.Errorf("%v, want ErrChanged", err)
	}
}

func TestNothingFound(t *testing.T) {
	dir := startMany(t)
	for service, row := range map[string]struct {
		find Finder
		want string
	}{
		"s": {zone(t, "c"), `service "s" has no endpoint with zone=c at revision `},
		"n": {zone(t, "a"), `service "n" not found: no key under "n/" at revision `},
	} {
		var missing *NotFoundError
		if _, err := Apply(t.Context(), dir, service, row.find, nil, drain); !errors.As(err, &missing) || !strings.HasPrefix(err.Error(), row.want) {
			t.Errorf("%v, want %s", err, row.want)
		}
	}
}
