// SPDX-FileCopyrightText: The Rollcall Authors
// SPDX-License-Identifier: Apache-2.0

package rollcall

import (
	"fmt"
	"log/slog"
	"maps"
	"slices"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/rollcall-grpc/rollcall/internal/etcdkv"
)

// Snapshots are remembered for half an hour, whether or not others follow, and of too many the newest.
func TestRememberedSnapshotsExpire(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var mu sync.Mutex
		f, err := newFallbacks("", slog.New(slog.DiscardHandler), &mu)
		if err != nil {
			t.Fatal(err)
		}
		remember := func(names ...string) {
			mu.Lock()
			defer mu.Unlock()
			for _, name := range names {
				f.rememberLocked(etcdkv.Prefix(name), &Snapshot{})
				time.Sleep(time.Second)
			}
		}
		want := func(at string, names ...string) {
			t.Helper()
			mu.Lock()
			defer mu.Unlock()
			var got []string
			for keys := range maps.Keys(f.memory) {
				got = append(got, keys.Key)
			}
			slices.Sort(got)
			if !slices.Equal(got, names) {
				t.Errorf("%s: %q are remembered, want %q", at, got, names)
			}
		}
		remember("a")
		time.Sleep(10 * time.Minute)
		remember("b")
		want("at first", "a", "b")
		time.Sleep(19 * time.Minute)
		want("after 29 minutes", "a", "b")
		time.Sleep(2 * time.Minute)
		want("after 31 minutes", "b")
		remember("a")
		time.Sleep(10 * time.Minute)
		want("after 41 minutes", "a")
		var many []string
		for i := range maxRemembered + 1 {
			many = append(many, fmt.Sprintf("%03d", i))
		}
		remember(many...)
		want("of many", many[1:]...)
		f.forgetLocked()
		want("at the end")
		time.Sleep(time.Hour) // nothing is left to be done
	})
}

// What is remembered of deregistered keys is bounded, and has the newest.
func TestRememberOf(t *testing.T) {
	all := make(map[string]bool)
	for i := range maxDeregistered + 100 {
		key := fmt.Sprint(i)
		if rememberOf(all, key, true); !all[key] || len(all) > maxDeregistered {
			t.Fatalf("%d keys are remembered, and %s: %v", len(all), key, all[key])
		}
	}
}
