// SPDX-FileCopyrightText: The Rollcall Authors
// SPDX-License-Identifier: Apache-2.0

//go:build unix

package resolving_test

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	clientv3 "go.etcd.io/etcd/client/v3"

	"github.com/rollcall-grpc/rollcall"
	"github.com/rollcall-grpc/rollcall/internal/test/e2e/lab"
	"github.com/rollcall-grpc/rollcall/internal/test/etcdtest"
	"github.com/rollcall-grpc/rollcall/internal/test/fakeetcd"
)

// fill writes the cache file of svc as a process that knew n endpoints leaves it, and
// returns its path.
func fill(t *testing.T, dir string, n int) string {
	t.Helper()
	store := fakeetcd.New()
	defer store.Close()
	conn := store.Connect(context.Background())
	defer conn.Close()
	metadata := strings.Repeat("x", 1024)
	for i := range n {
		store.Put(fmt.Sprint("svc/", i), fmt.Sprintf(`{"Addr":"10.0.0.1:%d","Metadata":%q}`, 1+i, metadata))
	}
	d, err := rollcall.NewDirectory(conn.Client, rollcall.DirectoryOptions{CacheDir: dir})
	if err != nil {
		t.Fatal(err)
	}
	defer d.Close()
	sub, err := d.Subscribe("svc")
	if err != nil {
		t.Fatal(err)
	}
	defer sub.Close()
	return written(t, dir)
}

// written waits until there is a file in a cache directory, and returns it: files are written beside the calls.
func written(t *testing.T, dir string) (file string) {
	t.Helper()
	for deadline := time.Now().Add(lab.WaitMost); time.Now().Before(deadline); time.Sleep(10 * time.Millisecond) {
		if files, _ := filepath.Glob(filepath.Join(dir, "*.json")); len(files) == 1 {
			return files[0]
		}
	}
	t.Fatal("no file was written")
	return ""
}

// first returns how long a new Directory takes to its first snapshot, or first error, and
// then to close.
func first(t *testing.T, client *clientv3.Client, opts rollcall.DirectoryOptions) (snap *rollcall.Snapshot, took, closed time.Duration) {
	t.Helper()
	d, err := rollcall.NewDirectory(client, opts)
	if err != nil {
		t.Fatal(err)
	}
	began := time.Now()
	sub, err := d.Subscribe("svc")
	if err != nil {
		t.Fatal(err)
	}
	for snap = sub.Latest(); snap == nil && sub.Err() == nil; snap = sub.Latest() {
		<-sub.Changed()
	}
	took, began = time.Since(began), time.Now()
	d.Close()
	return snap, took, time.Since(began)
}

// A cache on disk that is huge, or hangs, is in nobody's way.
func TestG14CacheInTheWay(t *testing.T) {
	t.Parallel()
	etcd := lab.Start(t, etcdtest.Options{})
	direct := etcd.Client(t)
	lab.Put(t, direct, "svc", "a", nil)
	client := lab.Client(t, etcd.Endpoints()...)
	_, _, _ = first(t, client, rollcall.DirectoryOptions{}) // it is connected from now on

	check := func(what string, opts rollcall.DirectoryOptions, most time.Duration) *rollcall.Snapshot {
		t.Helper()
		snap, took, closed := first(t, client, opts)
		lab.Note(t, "%s: first snapshot after %v, closed after %v", what, took.Round(time.Millisecond), closed.Round(time.Millisecond))
		if took > most || closed > 300*time.Millisecond {
			t.Errorf("%s: first snapshot after %v, want %v; closed after %v, want 100ms", what, took, most, closed)
		}
		return snap
	}
	healthy := func(what string, dir string) {
		t.Helper()
		if snap := check(what, rollcall.DirectoryOptions{CacheDir: dir}, 600*time.Millisecond); snap == nil || snap.Staleness() != nil || snap.Len() != 1 {
			t.Errorf("%s: got %+v, want what etcd holds", what, snap)
		}
	}
	huge, hung := t.TempDir(), t.TempDir()
	path := fill(t, huge, lab.Size(50_000, 20_000))
	info, err := os.Stat(path)
	if err != nil {
		t.Fatal(err)
	}
	t.Logf("a file of %d MB", info.Size()>>20)
	hang := func(dir string) (file string) { // whoever opens the file waits for the other end
		file = filepath.Join(dir, filepath.Base(path))
		if err := syscall.Mkfifo(file, 0o600); err != nil {
			t.Fatal(err)
		}
		return file
	}
	hungFiles := []string{hang(hung)}
	healthy("no cache", "")
	healthy("a huge file", huge)
	healthy("a disk that hangs", hung)

	// While etcd is away a disk that hangs does not keep the reason back. It is another one, since the
	// Directory before may still be writing.
	hung = t.TempDir()
	hungFiles = append(hungFiles, hang(hung))
	etcd.Member(0).Stop()
	away := lab.Client(t, etcd.Endpoints()...)
	snap, took, closed := first(t, away, rollcall.DirectoryOptions{CacheDir: hung})
	if snap != nil || took > 3*time.Second || closed > 300*time.Millisecond {
		t.Errorf("etcd away and the disk hangs: %v after %v, closed after %v; want an error after 1s", snap, took, closed)
	}
	lab.Note(t, "etcd away and the disk hangs: an error after %v", took.Round(time.Millisecond))
	// What is read late is shown late.
	snap, took, _ = first(t, away, rollcall.DirectoryOptions{CacheDir: fillSmall(t)})
	if snap == nil || snap.Staleness() == nil || snap.Len() != 3 {
		t.Errorf("etcd away: got %+v after %v, want the cached endpoints", snap, took)
	}
	// The readers that hang are let go, for the goroutines' sake.
	for _, hungFile := range hungFiles {
		if file, err := os.OpenFile(hungFile, os.O_WRONLY|syscall.O_NONBLOCK, 0); err == nil {
			file.Close()
		}
	}
}

func fillSmall(t *testing.T) (dir string) {
	dir = t.TempDir()
	fill(t, dir, 3)
	return dir
}

// What a process leaves that is killed while it saves goes at the next start, and not
// what another process is writing.
func TestG14KilledWhileSaving(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	file := func(name string) string { return filepath.Join(dir, name) }
	dead, alive := file("svc%2F-0123456789abcdef.json.1.tmp"), file("svc%2F-0123456789abcdef.json.2.tmp")
	foreign := file("upload.tmp")
	for _, file := range []string{dead, alive, foreign} {
		if err := os.WriteFile(file, []byte("half a"), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	ago := time.Now().Add(-2 * time.Minute)
	for _, file := range []string{dead, foreign} {
		if err := os.Chtimes(file, ago, ago); err != nil {
			t.Fatal(err)
		}
	}
	d, err := rollcall.NewDirectory(clientv3.NewCtxClient(t.Context()), rollcall.DirectoryOptions{CacheDir: dir})
	if err != nil {
		t.Fatal(err)
	}
	d.Close()
	if _, err := os.Stat(dead); !os.IsNotExist(err) {
		t.Errorf("a dead process's file: %v, want none", err)
	}
	for _, file := range []string{alive, foreign} {
		if _, err := os.Stat(file); err != nil {
			t.Errorf("a file that is being written, or is somebody else's: %v", err)
		}
	}
}

// A file that is too large for a cache is not read.
func TestG14TooLargeFile(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	path := fill(t, dir, 3)
	if err := os.Truncate(path, 1<<40); err != nil { // it takes no room on the disk
		t.Skip(err)
	}
	etcd := lab.Start(t, etcdtest.Options{})
	etcd.Member(0).Stop()
	snap, took, _ := first(t, lab.Client(t, etcd.Endpoints()...), rollcall.DirectoryOptions{CacheDir: dir})
	if snap != nil || took > 3*time.Second {
		t.Errorf("got %v after %v, want an error after 1s", snap, took)
	}
}
