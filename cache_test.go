// SPDX-FileCopyrightText: The Rollcall Authors
// SPDX-License-Identifier: Apache-2.0

package rollcall_test

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/rollcall-grpc/rollcall"
	"github.com/rollcall-grpc/rollcall/internal/test/fakeetcd"
)

func cachedDirectory(t *testing.T, conn *fakeetcd.Conn, dir string) *rollcall.Directory {
	t.Helper()
	d, err := rollcall.NewDirectory(conn.Client, rollcall.DirectoryOptions{CacheDir: dir})
	if err != nil {
		t.Fatal(err)
	}
	return d
}

func onlyFile(t *testing.T, dir string) string {
	t.Helper()
	files, err := os.ReadDir(dir)
	if err != nil || len(files) != 1 {
		t.Fatalf("files %v, %v, want one", files, err)
	}
	return filepath.Join(dir, files[0].Name())
}

// A process that starts while etcd is away begins with what another one knew.
func TestG5CacheOnDisk(t *testing.T) {
	dir := t.TempDir()
	bubble(t, func(t *testing.T, store *fakeetcd.Store, conn *fakeetcd.Conn) {
		store.Put("a/b svc/x", `{"Addr":"x:1","Metadata":{"weight":7}}`)
		store.Put("a/b svc/bad", "not JSON")
		d := cachedDirectory(t, conn, dir)
		sub := subscribe(t, d, "a/b svc")
		known := next(t, sub)
		synctest.Wait()
		store.Put("a/b svc/y", `{"Addr":"y:1"}`)
		next(t, sub)
		time.Sleep(10 * time.Second)
		sub.Close()
		d.Close()

		time.Sleep(time.Hour)
		conn.Cut()
		d = cachedDirectory(t, conn, dir)
		defer d.Close()
		sub = subscribe(t, d, "a/b svc")
		defer sub.Close()
		began := time.Now()
		snap := next(t, sub)
		if took := time.Since(began); took > time.Second {
			t.Errorf("served after %v", took)
		}
		x := snap.Instance("a/b svc/x")
		if !x.Equal(known.Instance("a/b svc/x")) || x.Attributes().Weight != 7 || snap.Instance("a/b svc/y") == nil || snap.Len() != 2 {
			t.Errorf("instances %+v", describe(snap))
		}
		stale := snap.Staleness()
		if stale == nil || time.Since(stale.Since) < time.Hour || !strings.Contains(stale.Cause.Error(), "saved 1h0m") {
			t.Errorf("stale %+v, want for an hour", stale)
		}
		store.Delete("a/b svc/x")
		conn.Mend()
		for snap.Staleness() != nil {
			snap = next(t, sub)
		}
		if snap.Len() != 1 || len(snap.Invalid()) != 1 || snap.Epoch() != 1 {
			t.Errorf("after mending: %+v", snap)
		}
	})
}

// A file from a lost epoch is not an alarm: nothing is compared with it.
func TestCacheOfALostEpoch(t *testing.T) {
	dir := t.TempDir()
	bubble(t, func(t *testing.T, store *fakeetcd.Store, conn *fakeetcd.Conn) {
		for range 20 {
			store.Put("svc/a", `{"Addr":"a:1"}`)
		}
		d := cachedDirectory(t, conn, dir)
		next(t, subscribe(t, d, "svc"))
		synctest.Wait()
		d.Close()
		store.Wipe()
		store.Put("svc/b", `{"Addr":"b:1"}`)
		d = cachedDirectory(t, conn, dir)
		defer d.Close()
		snap := next(t, subscribe(t, d, "svc"))
		if snap.Instance("svc/b") == nil || snap.Len() != 1 || snap.Epoch() != 1 || snap.Staleness() != nil {
			t.Errorf("got %+v, want b of the first epoch", snap)
		}
	})
}

// A file that is not what was written counts as none.
func TestBadCacheIsIgnored(t *testing.T) {
	for name, spoil := range map[string]func(data string) string{
		"torn":          func(data string) string { return data[:len(data)/2] },
		"empty":         func(string) string { return "" },
		"changed":       func(data string) string { return strings.Replace(data, "a:1", "b:1", 1) },
		"other version": func(data string) string { return strings.Replace(data, `"Version":1`, `"Version":2`, 1) },
		"other prefix":  func(data string) string { return strings.Replace(data, `"Prefix":"svc/"`, `"Prefix":"other/"`, 1) },
	} {
		t.Run(name, func(t *testing.T) {
			dir := t.TempDir()
			bubble(t, func(t *testing.T, store *fakeetcd.Store, conn *fakeetcd.Conn) {
				store.Put("svc/a", `{"Addr":"a:1"}`)
				d := cachedDirectory(t, conn, dir)
				next(t, subscribe(t, d, "svc"))
				synctest.Wait()
				d.Close()
				file := onlyFile(t, dir)
				data, err := os.ReadFile(file)
				if err != nil {
					t.Fatal(err)
				}
				spoilt := spoil(string(data))
				if spoilt == string(data) {
					t.Fatalf("nothing spoilt in %s", data)
				}
				if err := os.WriteFile(file, []byte(spoilt), 0o600); err != nil {
					t.Fatal(err)
				}
				conn.Cut()
				d = cachedDirectory(t, conn, dir)
				sub := subscribe(t, d, "svc")
				time.Sleep(3 * time.Second)
				if snap := sub.Latest(); snap != nil || sub.Err() == nil {
					t.Errorf("served %+v", snap)
				}
				conn.Mend()
				for snap := sub.Latest(); snap == nil; snap = sub.Latest() {
					time.Sleep(time.Second)
				}
				time.Sleep(time.Minute)
				d.Close()
				if mended, err := os.ReadFile(file); err != nil || string(mended) == spoilt {
					t.Errorf("file was not written anew: %v", err)
				}
			})
		})
	}
}
