// SPDX-FileCopyrightText: The Rollcall Authors
// SPDX-License-Identifier: Apache-2.0

package edit

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	clientv3 "go.etcd.io/etcd/client/v3"

	"github.com/rollcall-grpc/rollcall/internal/test/etcdtest"
)

// under returns the values of the keys with a prefix, by what follows it, and how many have a lease.
func under(t *testing.T, client *clientv3.Client, prefix string) (values map[string]string, leased int) {
	t.Helper()
	resp, err := client.Get(t.Context(), prefix, clientv3.WithPrefix())
	if err != nil {
		t.Fatal(err)
	}
	values = make(map[string]string)
	for _, kv := range resp.Kvs {
		values[strings.TrimPrefix(string(kv.Key), prefix)] = string(kv.Value)
		if kv.Lease != 0 {
			leased++
		}
	}
	return values, leased
}

// A Move of as many keys as there may be is one change, at one revision: an old key and its copy are never both there, nor
// is neither.
func TestMoveIsOneChange(t *testing.T) {
	client := etcdtest.New(t, etcdtest.Options{}).Client(t)
	lease, err := client.Grant(t.Context(), 3600)
	if err != nil {
		t.Fatal(err)
	}
	want := make(map[string]string)
	var puts []clientv3.Op
	for i := range maxMoves - 1 {
		op := clientv3.OpPut(fmt.Sprintf("from/%d", i), fmt.Sprintf(`{"Addr":"10.0.0.1:%d"}`, i))
		if i%100 == 0 {
			op = clientv3.OpPut(string(op.KeyBytes()), string(op.ValueBytes()), clientv3.WithLease(lease.ID))
		}
		want[fmt.Sprint(i)] = string(op.ValueBytes())
		puts = append(puts, op)
	}
	puts = append(puts, clientv3.OpPut("_grpc_config/from", "{}"))
	for chunk := range slices.Chunk(puts, maxOps) {
		if _, err := client.Txn(t.Context()).Then(chunk...).Commit(); err != nil {
			t.Fatal(err)
		}
	}
	before, leased := under(t, client, "from/")
	done, err := Move(t.Context(), client, "from", "to", MoveOptions{CopyLeased: true})
	if err != nil || len(done.Keys) != len(before) || len(done.Left) != leased || !slices.Equal(done.Configs, []string{"_grpc_config/to"}) {
		t.Fatalf("%d keys, %d left, %q: %v", len(done.Keys), len(done.Left), done.Configs, err)
	}
	got, copied := under(t, client, "to/")
	if diff := cmp.Diff(want, got); diff != "" || copied != leased {
		t.Errorf("%d are under a lease, want %d; %s", copied, leased, diff)
	}
	if old, left := under(t, client, "from/"); len(old) != leased || left != leased {
		t.Errorf("%d old keys are left, %d of them under a lease; want %d", len(old), left, leased)
	}
	if configs, _ := under(t, client, "_grpc_config/"); len(configs) != 2 {
		t.Errorf("service configs: %q, want one for either name", configs)
	}
	resp, err := client.Get(t.Context(), "to/", clientv3.WithPrefix(), clientv3.WithMinModRev(done.Revision), clientv3.WithMaxModRev(done.Revision), clientv3.WithKeysOnly())
	if err != nil || len(resp.Kvs) != len(want) {
		t.Errorf("%d keys were written at revision %d, want all %d; %v", len(resp.Kvs), done.Revision, len(want), err)
	}

	if _, err := client.Put(t.Context(), "to/more", "x"); err != nil {
		t.Fatal(err)
	}
	if _, err := client.Put(t.Context(), "to/still-more", "x"); err != nil {
		t.Fatal(err)
	}
	var large *TooLargeError
	if _, err := Move(t.Context(), client, "to", "third", MoveOptions{CopyLeased: true}); !errors.As(err, &large) {
		t.Errorf("a Move of more than fits: %v", err)
	}
}

// meddledKV lets somebody write before a transaction that writes.
type meddledKV struct {
	clientv3.KV
	write func()
}

func (kv *meddledKV) Txn(ctx context.Context) clientv3.Txn { return &meddledTxn{kv.KV.Txn(ctx), kv} }

type meddledTxn struct {
	clientv3.Txn
	kv *meddledKV
}

func (t *meddledTxn) If(cs ...clientv3.Cmp) clientv3.Txn {
	t.kv.write()
	t.Txn = t.Txn.If(cs...)
	return t.Txn
}

// What others write between the reading and the moving is neither lost nor overwritten.
func TestMoveMeddledWith(t *testing.T) {
	client := etcdtest.New(t, etcdtest.Options{}).Client(t)
	for _, row := range []struct {
		name, key, value string // of what is written; "": it is deleted
		moved            bool
	}{
		{"an old key changes", "from/a", `{"Addr":"x:1"}`, false},
		{"an old key comes", "from/z", `{"Addr":"x:1"}`, false},
		{"an old key goes", "from/a", "", true},
		{"a new key comes", "to/q", `{"Addr":"x:1"}`, false},
		{"the config changes", "_grpc_config/from", `{"methodConfig":[]}`, false},
		{"a new config comes", "_grpc_config/to", `{}`, false},
	} {
		t.Run(row.name, func(t *testing.T) {
			if _, err := client.Delete(t.Context(), "", clientv3.WithFromKey()); err != nil {
				t.Fatal(err)
			}
			want := map[string]string{"from/a": `{"Addr":"a:1"}`, "from/b": `{"Addr":"b:1"}`, "_grpc_config/from": `{}`}
			for key, value := range want {
				if _, err := client.Put(t.Context(), key, value); err != nil {
					t.Fatal(err)
				}
			}
			whole := client.KV
			client.KV = &meddledKV{whole, func() {
				var err error
				if row.value == "" {
					_, err = whole.Delete(t.Context(), row.key)
				} else {
					_, err = whole.Put(t.Context(), row.key, row.value)
				}
				if err != nil {
					t.Error(err)
				}
			}}
			_, err := Move(t.Context(), client, "from", "to", MoveOptions{MayEmpty: true})
			client.KV = whole
			if row.moved {
				want = map[string]string{"to/b": `{"Addr":"b:1"}`, "_grpc_config/to": `{}`}
			} else {
				want[row.key] = row.value
			}
			if (err == nil) != row.moved || err != nil && !errors.Is(err, ErrChanged) {
				t.Errorf("got %v", err)
			}
			if now, _ := under(t, client, ""); !maps.Equal(now, want) {
				t.Errorf("now there is %q, want %q", now, want)
			}
		})
	}
}

// What somebody else has under the new name is left alone.
func TestMoveRefuses(t *testing.T) {
	client := etcdtest.New(t, etcdtest.Options{}).Client(t)
	for _, row := range []struct {
		name string
		keys map[string]string
		want string
	}{
		{"a service that looks the same", map[string]string{"from/a": `{"Addr":"a:1"}`, "to/a": `{"Addr":"a:1"}`}, `"to/a" exists already`},
		{"a config", map[string]string{"from/a": `{"Addr":"a:1"}`, "_grpc_config/to": `{}`}, `"_grpc_config/to" exists already`},
		{"clients of the old name", map[string]string{"from/a": `{"Addr":"a:1"}`, "from/in/b": `{"Addr":"b:1"}`},
			`this moves all endpoints (2) of service "from", among them all of "from/in" to "to": calls to the old name will fail`},
		{"nothing to move", map[string]string{"to/a": `{"Addr":"a:1"}`}, `service "from" not found`},
	} {
		t.Run(row.name, func(t *testing.T) {
			if _, err := client.Delete(t.Context(), "", clientv3.WithFromKey()); err != nil {
				t.Fatal(err)
			}
			for key, value := range row.keys {
				if _, err := client.Put(t.Context(), key, value); err != nil {
					t.Fatal(err)
				}
			}
			_, err := Move(t.Context(), client, "from", "to", MoveOptions{})
			if err == nil || !strings.Contains(err.Error(), row.want) {
				t.Errorf("got %v, want %q", err, row.want)
			}
			if now, _ := under(t, client, ""); !maps.Equal(now, row.keys) {
				t.Errorf("now there is %q", now)
			}
		})
	}
}
