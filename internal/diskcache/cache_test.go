// SPDX-FileCopyrightText: The Rollcall Authors
// SPDX-License-Identifier: Apache-2.0

package diskcache

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"go.uber.org/goleak"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

func open(t *testing.T, dir string) *Cache {
	t.Helper()
	c, err := Open(dir)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(c.Close)
	return c
}

func save(t *testing.T, c *Cache, name string, content Content) {
	t.Helper()
	if err := c.Save(name, content); err != nil {
		t.Fatalf("save %q: %v", name, err)
	}
}

func TestSaveAndLoad(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "made", "if need be")
	c := open(t, dir)
	names := []string{"svc/", "svc", "", "a/b\x00\xff", "../up", strings.Repeat("long/", 100) + "a", strings.Repeat("long/", 100) + "b"}
	for i, name := range names {
		if _, err := c.Load(name); !errors.Is(err, fs.ErrNotExist) {
			t.Errorf("load %q before the first save: %v", name, err)
		}
		save(t, c, name, Content{Revision: 1, Entries: []byte(`"overwritten"`)})
		save(t, c, name, Content{Revision: int64(i), Entries: []byte(`[{"Key":"` + strings.Repeat("x", i) + `"}]`)})
	}
	c = open(t, dir)
	for i, name := range names {
		got, err := c.Load(name)
		if err != nil || got.Revision != int64(i) || string(got.Entries) != `[{"Key":"`+strings.Repeat("x", i)+`"}]` ||
			time.Since(got.Saved) > time.Minute || time.Since(got.Saved) < 0 {
			t.Errorf("load %q: got %+v, %v", name, got, err)
		}
		if rel, err := filepath.Rel(dir, c.Path(name)); err != nil || rel != filepath.Base(rel) {
			t.Errorf("%q is kept outside the directory, in %s", name, rel)
		}
	}
	if files, _ := os.ReadDir(dir); len(files) != len(names) {
		t.Errorf("%d files for %d names", len(files), len(names))
	}
}

// Entries that json.Marshal wrote come back byte by byte.
func TestEntriesAreKept(t *testing.T) {
	c := open(t, t.TempDir())
	for _, value := range []any{nil, []string{}, "<&>\u2028\xff", map[string]any{"k": []byte{0, 255}}} {
		entries, err := json.Marshal(value)
		if err != nil {
			t.Fatal(err)
		}
		save(t, c, "svc", Content{Entries: entries})
		if got, err := c.Load("svc"); err != nil || !bytes.Equal(got.Entries, entries) {
			t.Errorf("got %q, %v, want %q", got.Entries, err, entries)
		}
	}
}

// TestBadFile checks that a file that is not what Save wrote for this name is an error and
// that the next Save mends it.
func TestBadFile(t *testing.T) {
	for _, row := range []struct {
		name  string
		spoil func(data []byte) []byte
		want  string
	}{
		{"empty", func([]byte) []byte { return nil }, "unexpected end"},
		{"torn", func(data []byte) []byte { return data[:len(data)/2] }, "unexpected end"},
		{"no JSON", func([]byte) []byte { return []byte("\x00\x01") }, "invalid character"},
		{"changed", func(data []byte) []byte { return bytes.Replace(data, []byte("a:1"), []byte("a:2"), 1) }, "checksum"},
		{"older version", func(data []byte) []byte { return bytes.Replace(data, []byte(`"Version":1`), []byte(`"Version":0`), 1) }, "version 0, want 1"},
		{"newer version", func(data []byte) []byte { return bytes.Replace(data, []byte(`"Version":1`), []byte(`"Version":2`), 1) }, "version 2, want 1"},
		{"another name", func(data []byte) []byte { return bytes.Replace(data, []byte(`"svc"`), []byte(`"other"`), 1) }, `it holds prefix "other"`},
	} {
		t.Run(row.name, func(t *testing.T) {
			c := open(t, t.TempDir())
			good := Content{Revision: 7, Entries: []byte(`["a:1"]`)}
			save(t, c, "svc", good)
			data, err := os.ReadFile(c.Path("svc"))
			if err != nil {
				t.Fatal(err)
			}
			if err := os.WriteFile(c.Path("svc"), row.spoil(data), 0o600); err != nil {
				t.Fatal(err)
			}
			if got, err := c.Load("svc"); err == nil || !strings.Contains(err.Error(), row.want) {
				t.Errorf("got %+v, %v, want %q", got, err, row.want)
			}
			save(t, c, "svc", good)
			if got, err := c.Load("svc"); err != nil || got.Revision != 7 {
				t.Errorf("after another save: %+v, %v", got, err)
			}
		})
	}
}

func TestTooLargeFile(t *testing.T) {
	c := open(t, t.TempDir())
	save(t, c, "svc", Content{Entries: []byte("[]")})
	if err := os.Truncate(c.Path("svc"), maxFile+1); err != nil { // sparse: it takes no room
		t.Fatal(err)
	}
	if _, err := c.Load("svc"); err == nil || !strings.Contains(err.Error(), "over the limit") {
		t.Errorf("got %v", err)
	}
}

// A save that fails leaves the old content and no temporary file.
func TestFailedSave(t *testing.T) {
	dir := t.TempDir()
	c := open(t, dir)
	if err := c.Save("svc", Content{Entries: []byte("{")}); err == nil {
		t.Error("what is not JSON was saved")
	}
	if err := os.MkdirAll(filepath.Join(c.Path("svc"), "in the way"), 0o700); err != nil {
		t.Fatal(err)
	}
	if err := c.Save("svc", Content{Entries: []byte("[]")}); err == nil {
		t.Error("a directory was replaced")
	}
	if files, _ := os.ReadDir(dir); len(files) != 1 {
		t.Errorf("left over: %v", files)
	}
	if _, err := c.Load("svc"); err == nil {
		t.Error("a directory was loaded")
	}
}

// Temporary files of dead processes are removed when the directory is opened; younger ones,
// which may still be written to, once they are old; whatever else lies there stays.
func TestLeftovers(t *testing.T) {
	names := []string{"cache", "cache[1]", "c*"}
	if runtime.GOOS == "windows" { // which allows no asterisk
		names = names[:2]
	}
	for _, name := range names {
		t.Run(name, func(t *testing.T) {
			parent := t.TempDir()
			dir := filepath.Join(parent, name)
			for _, d := range []string{dir, filepath.Join(parent, "cousin")} {
				if err := os.MkdirAll(d, 0o700); err != nil {
					t.Fatal(err)
				}
			}
			temp := func(dir, suffix string) string {
				return (&Cache{dir: dir}).Path("svc/") + suffix
			}
			old, young := temp(dir, ".123.tmp"), temp(dir, ".456.tmp")
			others := []string{temp(dir, ""), filepath.Join(dir, "my.tmp"), filepath.Join(dir, "notes-2024.json.1.tmp"),
				temp(filepath.Join(parent, "cousin"), ".123.tmp")}
			for _, path := range append([]string{old, young}, others...) {
				if err := os.WriteFile(path, nil, 0o600); err != nil {
					t.Fatal(err)
				}
				if path != young {
					before := time.Now().Add(-2 * tempExpiry)
					if err := os.Chtimes(path, before, before); err != nil {
						t.Fatal(err)
					}
				}
			}
			c := open(t, dir)
			if exists(old) || !exists(young) {
				t.Errorf("old %t, young %t, want the old one gone", exists(old), exists(young))
			}
			before := time.Now().Add(-2 * tempExpiry)
			if err := os.Chtimes(young, before, before); err != nil {
				t.Fatal(err)
			}
			c.clean.Reset(0)
			for deadline := time.Now().Add(10 * time.Second); exists(young) && time.Now().Before(deadline); {
				time.Sleep(time.Millisecond)
			}
			if exists(young) {
				t.Error("what had been young at the start was never removed")
			}
			for _, path := range others {
				if !exists(path) {
					t.Errorf("%s was removed", path)
				}
			}
		})
	}
}

func exists(path string) bool {
	_, err := os.Lstat(path)
	return err == nil
}

func TestOpenFails(t *testing.T) {
	file := filepath.Join(t.TempDir(), "file")
	if err := os.WriteFile(file, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	if c, err := Open(file); err == nil || errors.Is(err, ErrSlow) || c != nil {
		t.Errorf("got %v, %v, want an error at once", c, err)
	}
}

// block has work under way in a Cache until the disk answers.
func block(c *Cache, ctx context.Context, disk <-chan struct{}) (ended chan bool) {
	ended = make(chan bool, 1)
	go func() { ended <- c.Do(ctx, func() { <-disk }) }()
	return ended
}

func TestDo(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := &Cache{slots: make(chan struct{}, workers)}
		ran := false
		if !c.Do(t.Context(), func() { ran = true }) || !ran {
			t.Errorf("ran %t", ran)
		}
		// Two are under way at once; a third one waits for its turn.
		disk := make(chan struct{})
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		one, two := block(c, ctx, disk), block(c, t.Context(), disk)
		synctest.Wait()
		if c.Do(ctx, func() { t.Error("ran while two were under way") }) || time.Since(deadline(ctx)) != 0 {
			t.Error("the third one had its turn, or waited longer than its context")
		}
		if <-one {
			t.Error("work is said to have ended that hangs")
		}
		// It goes on all the same, and keeps its turn.
		again, stop := context.WithTimeout(t.Context(), time.Second)
		defer stop()
		if c.Do(again, func() {}) {
			t.Error("work that hangs has lost its turn")
		}
		close(disk)
		if !<-two || !c.Do(t.Context(), func() {}) {
			t.Error("nothing goes on although the disk answers")
		}
	})
}

func deadline(ctx context.Context) time.Time {
	d, _ := ctx.Deadline()
	return d
}

// Close waits for 30 ms at most, and no longer than something is under way.
func TestCloseIsBounded(t *testing.T) {
	for _, row := range []struct {
		name        string
		disk, takes time.Duration
	}{{"idle", 0, 0}, {"quick disk", 10 * time.Millisecond, 10 * time.Millisecond}, {"slow disk", time.Hour, 30 * time.Millisecond}} {
		t.Run(row.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				c := &Cache{slots: make(chan struct{}, workers)}
				if row.disk > 0 {
					disk := make(chan struct{})
					time.AfterFunc(row.disk, func() { close(disk) })
					block(c, t.Context(), disk)
					synctest.Wait()
				}
				began := time.Now()
				c.Close()
				if took := time.Since(began); took != row.takes {
					t.Errorf("took %v, want %v", took, row.takes)
				}
				time.Sleep(row.disk)
			})
		})
	}
}

// Nothing is removed after Close.
func TestCloseStopsTheCleaning(t *testing.T) {
	c := open(t, t.TempDir())
	c.Close()
	if c.clean.Stop() {
		t.Error("the cleaning was still to come")
	}
}
