// SPDX-FileCopyrightText: The Rollcall Authors
// SPDX-License-Identifier: Apache-2.0

package edit

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	clientv3 "go.etcd.io/etcd/client/v3"

	"github.com/rollcall-grpc/rollcall/internal/test/etcdtest"
)

var errCut = errors.New("cut off")

// cutKV makes some transactions that write, and fails the next, before etcd has it or after.
type cutKV struct {
	clientv3.KV
	left  int
	after bool
}

func (kv *cutKV) Txn(ctx context.Context) clientv3.Txn { return &cutTxn{Txn: kv.KV.Txn(ctx), kv: kv} }

type cutTxn struct {
	clientv3.Txn
	kv     *cutKV
	writes bool
}

func (t *cutTxn) If(cs ...clientv3.Cmp) clientv3.Txn { t.Txn = t.Txn.If(cs...); return t }

func (t *cutTxn) Then(ops ...clientv3.Op) clientv3.Txn {
	t.writes = ops[0].IsPut() || ops[0].IsDelete()
	t.Txn = t.Txn.Then(ops...)
	return t
}

func (t *cutTxn) Commit() (*clientv3.TxnResponse, error) {
	if t.writes {
		if t.kv.left--; t.kv.left < 0 {
			if t.kv.after {
				_, _ = t.Txn.Commit()
			}
			return nil, errCut
		}
	}
	return t.Txn.Commit()
}

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

// A Move that is cut off between transactions, or does not hear of the last one, has lost no key, says how far it came,
// and another one goes on with it.
func TestMoveGoesOn(t *testing.T) {
	client := etcdtest.New(t, etcdtest.Options{}).Client(t)
	lease, err := client.Grant(t.Context(), 3600)
	if err != nil {
		t.Fatal(err)
	}
	for _, leased := range []int{0, 3} {
		opts := MoveOptions{CopyLeased: leased > 0, MayEmpty: true}
		for cut, finished := 0, false; !finished; cut++ {
			for _, after := range []bool{false, true} {
				t.Run(fmt.Sprintf("leased=%d/cut=%d/after=%v", leased, cut, after), func(t *testing.T) {
					from, to := fmt.Sprintf("from-%d-%d-%v", leased, cut, after), fmt.Sprintf("to-%d-%d-%v", leased, cut, after)
					want := make(map[string]string)
					for i := range 150 {
						var with []clientv3.OpOption
						if i%50 < leased/3 {
							with = append(with, clientv3.WithLease(lease.ID))
						}
						want[fmt.Sprint(i)] = fmt.Sprintf(`{"Addr":"10.0.0.1:%d"}`, i+1)
						if _, err := client.Put(t.Context(), from+"/"+fmt.Sprint(i), want[fmt.Sprint(i)], with...); err != nil {
							t.Fatal(err)
						}
					}
					whole := client.KV
					client.KV = &cutKV{whole, cut, after}
					_, err := Move(t.Context(), client, from, to, opts)
					client.KV = whole
					old, _ := under(t, client, from+"/")
					got, _ := under(t, client, to+"/")
					var interrupted *InterruptedError
					switch {
					case err == nil:
						finished = true
					case !errors.As(err, &interrupted) || !errors.Is(err, errCut):
						t.Fatal(err)
					case !after && (len(got) != interrupted.Copied || len(old) != 150-interrupted.Deleted):
						t.Errorf("%d copies and %d old keys, after %v", len(got), len(old), err)
					}
					maps.Copy(got, old)
					if diff := cmp.Diff(want, got); diff != "" {
						t.Errorf("keys are lost after %v: %s", err, diff)
					}
					if err != nil {
						_, err = Move(t.Context(), client, from, to, opts)
					}
					var gone *NotFoundError
					if err != nil && !(after && leased == 0 && errors.As(err, &gone)) { // the last transaction was made, unheard
						t.Fatalf("the second Move: %v", err)
					}
					got, underLease := under(t, client, to+"/")
					if diff := cmp.Diff(want, got); diff != "" || underLease != leased {
						t.Errorf("%d are under a lease, want %d; %s", underLease, leased, diff)
					}
					if old, _ := under(t, client, from+"/"); len(old) != leased {
						t.Errorf("%d old keys are left, want %d", len(old), leased)
					}
				})
			}
		}
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
		{"another value", map[string]string{"from/a": `{"Addr":"a:1"}`, "to/a": `{"Addr":"b:1"}`}, `"to/a" exists already`},
		{"another key", map[string]string{"from/a": `{"Addr":"a:1"}`, "from/b": `{"Addr":"b:1"}`, "to/a": `{"Addr":"a:1"}`, "to/c": `{"Addr":"c:1"}`}, `"to/c" exists already`},
		{"a config", map[string]string{"from/a": `{"Addr":"a:1"}`, "_grpc_config/to": `{}`}, `"_grpc_config/to" exists already`},
		{"clients of the old name", map[string]string{"from/a": `{"Addr":"a:1"}`, "from/in/b": `{"Addr":"b:1"}`},
			`this moves all endpoints (2) of service "from", with those of "from/in" to "to": calls to the old name will fail`},
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
