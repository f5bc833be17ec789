// SPDX-FileCopyrightText: The Rollcall Authors
// SPDX-License-Identifier: Apache-2.0

package etcdkv

import (
	"slices"
	"testing"

	"github.com/rollcall-grpc/rollcall/internal/test/fakeetcd"
)

func TestKeyRange(t *testing.T) {
	stored := []string{"a", "a/", "a/1", "a/\xff", "a0", "b", "\xff", "\xff\xff", "\xff\xff1"}
	slices.Sort(stored)
	for _, row := range []struct {
		name string
		keys KeyRange
		want []string
	}{
		{"prefix", Prefix("a/"), []string{"a/", "a/1", "a/\xff"}},
		{"prefix of nothing", Prefix("c"), nil},
		{"whole store", Prefix(""), stored},
		{"prefix of 0xff", Prefix("\xff"), []string{"\xff", "\xff\xff", "\xff\xff1"}},
		{"prefix of two 0xff", Prefix("\xff\xff"), []string{"\xff\xff", "\xff\xff1"}},
		{"prefix that ends with 0xff", Prefix("a/\xff"), []string{"a/\xff"}},
		{"single key", SingleKey("a"), []string{"a"}},
		{"single key that is not there", SingleKey("a/2"), nil},
		{"from a key on", KeyRange{Key: "b", End: "\x00"}, []string{"b", "\xff", "\xff\xff", "\xff\xff1"}},
	} {
		t.Run(row.name, func(t *testing.T) {
			bubble(t, func(t *testing.T, store *fakeetcd.Store, conn *fakeetcd.Conn) {
				for _, key := range stored {
					store.Put(key, "")
				}
				resp, err := GetRange(t.Context(), conn.Client, row.keys)
				if err != nil {
					t.Fatal(err)
				}
				var got []string
				for _, kv := range resp.Kvs {
					got = append(got, string(kv.Key))
				}
				if !slices.Equal(got, row.want) {
					t.Errorf("got %q, want %q", got, row.want)
				}
			})
		})
	}
	if !SingleKey("a").IsSingleKey() || Prefix("a").IsSingleKey() || Prefix("").IsSingleKey() {
		t.Error("IsSingleKey holds of prefixes, or not of a single key")
	}
}
